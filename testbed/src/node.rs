//! What a node is to the plugin.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::ControlPlane;
use crate::control_plane::random_hex;

/// Runs its further arguments as a program where the file that is its first one is `/etc/machine-id`. The environment stays
/// as it is.
const ON_MACHINE: &str = r#"
    mount=$(PATH=/usr/sbin:/usr/bin:/sbin:/bin command -v mount)
    "$mount" --bind "$0" /etc/machine-id && exec "$@"
"#;

/// A node without a kubelet: a host's name, machine id and ledger, and a way to the cluster.
#[derive(Debug, Clone)]
pub struct SimulatedNode {
    /// The name of the Node that it would be.
    pub name: String,
    /// Where the ledger is. The folder is there, empty, and goes with the control plane.
    pub data_dir: PathBuf,
    /// With a token of the service account that this node alone has.
    pub kubeconfig: PathBuf,
    machine_id: PathBuf,
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
        let folder = control_plane.folder().join("nodes").join(&unique);
        let (data_dir, machine_id) = (folder.join("ledger"), folder.join("machine-id"));
        std::fs::create_dir_all(&data_dir).expect("a folder in a new folder");
        std::fs::write(&machine_id, format!("{}\n", random_hex())).expect("a file in a new folder");
        let kubeconfig = control_plane.kubeconfig(&unique, &token, namespace, server_url);
        Self { name: name.to_owned(), data_dir, kubeconfig, machine_id }
    }

    /// What goes before a program and its arguments, so that it runs on a machine with this node's machine id. That takes a
    /// mount of its own; where there can be none, it is nothing, and all nodes have the machine id of this machine.
    #[must_use]
    pub fn launcher(&self) -> Vec<OsString> {
        if !Self::can_have_machine_id() {
            return Vec::new();
        }
        let mut words = unshare().to_vec();
        words.extend(["/bin/sh", "-c", ON_MACHINE].map(OsString::from));
        words.push(self.machine_id.clone().into());
        words
    }

    /// Whether nodes have machine ids of their own here.
    #[must_use]
    pub fn can_have_machine_id() -> bool {
        static CAN: OnceLock<bool> = OnceLock::new();
        *CAN.get_or_init(|| {
            let Some((program, words)) = unshare().split_first() else { return false };
            let mut probe = Command::new(program);
            probe.args(words).args(["/bin/sh", "-c", ON_MACHINE, "/dev/null", "/bin/true"]);
            probe.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        })
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

/// What runs a program with mounts of its own, by which path it is found in whatever environment.
fn unshare() -> &'static [OsString] {
    static UNSHARE: OnceLock<Vec<OsString>> = OnceLock::new();
    UNSHARE.get_or_init(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program =
            std::env::split_paths(&path).map(|folder| folder.join("unshare")).find(|program| program.exists());
        let mut words = vec![program.unwrap_or_else(|| "unshare".into()).into_os_string()];
        // Somebody who is not root gets them in a user namespace.
        if !rustix::process::geteuid().is_root() {
            words.extend(["--user", "--map-root-user"].map(OsString::from));
        }
        words.extend(["--mount", "--"].map(OsString::from));
        words
    })
}
