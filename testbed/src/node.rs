//! What a node is to the plugin.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::ControlPlane;
use crate::control_plane::random_hex;

/// A node without a kubelet: a host's name and ledger, and a way to the cluster.
#[derive(Debug, Clone)]
pub struct SimulatedNode {
    /// The name of the Node that it would be.
    pub name: String,
    /// Where the ledger is. The folder is there, empty, and goes with the control plane.
    pub data_dir: PathBuf,
    /// With a token of the service account that this node alone has.
    pub kubeconfig: PathBuf,
}

// === impl SimulatedNode ===

impl SimulatedNode {
    /// A new node, whose kubeconfig leads to `server_url` (the API server's, or that of a proxy before it) and into the
    /// namespace of the service account `(namespace, name)`. What of that account is missing is made; the rights that it
    /// has are those that manifests gave it.
    #[track_caller]
    pub fn new(control_plane: &ControlPlane, name: &str, account: (&str, &str), server_url: &str) -> Self {
        let (namespace, account) = account;
        control_plane.ensure_service_account(namespace, account);
        let token = control_plane.service_account_token(namespace, account);
        // Several tests that share a control plane may have nodes of the same name.
        let unique = format!("{name}-{}", random_hex());
        let data_dir = control_plane.folder().join("nodes").join(&unique);
        std::fs::create_dir_all(&data_dir).expect("a folder in a new folder");
        let kubeconfig = control_plane.kubeconfig(&unique, &token, namespace, server_url);
        Self { name: name.to_owned(), data_dir, kubeconfig }
    }

    /// The environment by which the plugin takes itself to be on this node. The kubeconfig is not in it: the network
    /// configuration names that.
    pub fn env(&self) -> Vec<(String, OsString)> {
        vec![
            ("WHEREABOUTS_DATA_DIR".to_owned(), self.data_dir.clone().into()),
            ("NODENAME".to_owned(), self.name.clone().into()),
        ]
    }
}
