//! Who makes pods of a Deployment, and says where they run.

use std::process::Command;

use crate::ControlPlane;
use crate::processes::Server;
use crate::programs;

/// What a Deployment needs; and a node has a taint until one of them takes it away.
const CONTROLLERS: &str = "--controllers=deployment-controller,replicaset-controller,garbage-collector-controller,\
    pod-garbage-collector-controller,node-lifecycle-controller";

/// kube-controller-manager and kube-scheduler of a control plane. They end when it is dropped, and when the process ends
/// in whatever way.
#[derive(Debug)]
pub struct Controllers {
    servers: Vec<Server>,
}

// === impl Controllers ===

impl Controllers {
    /// Starts both; they work as a user who may do everything.
    ///
    /// # Errors
    ///
    /// Says in words for people why there are none here.
    pub fn start(control_plane: &ControlPlane) -> Result<Self, String> {
        let [manager, scheduler] = programs::find(&["kube-controller-manager", "kube-scheduler"])?
            .try_into()
            .map_err(|found| format!("two programs were to be found, not {found:?}"))?;
        let kubeconfig = format!("--kubeconfig={}", control_plane.admin_kubeconfig().display());
        // There is one of each, and nobody asks them anything.
        let common = [kubeconfig.as_str(), "--leader-elect=false", "--secure-port=0"];
        let janitor = control_plane.janitor();
        let manager =
            Server::start(janitor, "kube-controller-manager", Command::new(manager).args(common).arg(CONTROLLERS))?;
        let scheduler = Server::start(janitor, "kube-scheduler", Command::new(scheduler).args(common))?;
        Ok(Self { servers: vec![manager, scheduler] })
    }

    /// The last that both said: for people who wonder why there are no pods.
    pub fn last_words(&self) -> String {
        self.servers.iter().map(Server::last_words).collect::<Vec<_>>().join("\n")
    }
}
