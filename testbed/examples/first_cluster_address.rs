//! A cluster's control plane on this machine, a simulated node, and the first address that the plugin gives to it.
//!
//! ```sh
//! cargo build --release -p whereabouts
//! cargo run --release -p whereabouts-testbed --example first_cluster_address -- target/release/whereabouts
//! ```

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use whereabouts_testbed::{ControlPlane, SimulatedNode};

fn main() -> Result<(), String> {
    let program = std::env::args().nth(1).ok_or("name the built plugin, such as target/release/whereabouts")?;
    let control_plane = ControlPlane::start()?;
    for manifest in ["crds.yaml", "rbac.yaml"] {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes").join(manifest);
        control_plane.apply(&manifest);
    }
    let account = ("kube-system", "whereabouts");
    let node = SimulatedNode::new(&control_plane, "node-1", account, &control_plane.url());
    let configuration = format!(
        r#"{{"cniVersion": "1.1.0", "name": "pods", "type": "bridge", "ipam": {{"type": "whereabouts",
            "ipRanges": [{{"range": "10.20.0.0/16"}}], "kubernetes": {{"kubeconfig": {:?}}}}}}}"#,
        node.kubeconfig
    );
    let mut plugin = Command::new(program)
        .env_clear()
        .envs(node.env())
        .envs([
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "first"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/opt/cni/bin"),
        ])
        .env("CNI_NETNS", "/var/run/netns/first")
        .env("CNI_ARGS", "K8S_POD_NAMESPACE=default;K8S_POD_NAME=first;K8S_POD_INFRA_CONTAINER_ID=first")
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let written = plugin.stdin.take().map(|mut stdin| stdin.write_all(configuration.as_bytes()));
    written.transpose().map_err(|error| error.to_string())?;
    let exit = plugin.wait().map_err(|error| error.to_string())?;
    if !exit.success() {
        return Err(format!("the plugin ended with {exit}"));
    }
    let objects = control_plane.kubectl_ok(&["get", "ipspaces,ipblocks", "--all-namespaces"]);
    std::io::stdout().write_all(format!("\n{objects}").as_bytes()).map_err(|error| error.to_string())
}
