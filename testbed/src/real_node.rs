//! A node with a kubelet and a container runtime.

use std::ffi::OsStr;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};

use crate::fault_proxy::loopback_port;
use crate::processes::Server;
use crate::{ControlPlane, FaultProxy, programs};

/// What the first process of a node runs.
const INIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/runtime/node");

/// Where containerd listens, inside the node.
const SOCKET: &str = "/run/containerd/containerd.sock";

/// A machine inside the machine, with namespaces for its processes, mounts, network and name: `/var/lib`, `/var/log` and
/// `/run` are its own, so every program on it has its usual places to itself. On it run containerd and a kubelet. Its
/// only way out is a [`FaultProxy`] before the API server, on its loopback. Everything on it ends when it is dropped, and
/// when the process ends in whatever way.
#[derive(Debug)]
pub struct RealNode {
    /// The name of its Node, which is its host's name too.
    pub name: String,
    /// Its way to the API server.
    pub proxy: FaultProxy,
    address: Ipv4Addr,
    folder: PathBuf,
    /// By which its namespaces are found.
    pid: u32,
    runtime: PathBuf,
    kubelet_program: PathBuf,
    kubelet: Option<Server>,
    containerd: Option<Server>,
    /// Its first process, with which all others end.
    init: Server,
}

// === impl RealNode ===

impl RealNode {
    /// The image that is there, a program that waits. No other one can be had.
    pub const IMAGE: &str = "registry.k8s.io/pause:3.6";

    /// A node of this name, with this address, on which nothing runs yet.
    ///
    /// # Errors
    ///
    /// Says in words for people why there is none here.
    pub fn boot(control_plane: &ControlPlane, name: &str, address: Ipv4Addr) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("containers of a node need root".to_owned());
        }
        let runtime = programs::runtime()?;
        let kubelet_program = programs::find(&["kubelet"])?.pop().ok_or("no kubelet")?;
        let folder = control_plane.folder().join("machines").join(name);
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut command = Command::new("unshare");
        command
            // When unshare is killed, the first process of the node is.
            .args(["--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--", "sh", INIT])
            .env("NAME", name)
            .env("ADDRESS", address.to_string())
            .env("FOLDER", &folder)
            .env("GROUP", format!("{}-{name}", control_plane.folder().file_name().unwrap_or_default().display()))
            .env("GROUPS_FILE", control_plane.janitor().control_groups());
        let mut init = Server::start(control_plane.janitor(), name, &mut command)?;
        let pid = init.wait_until_ready(|| process_in(&folder.join("pid")))?;
        let listener = in_network_of(pid, loopback_port)??;
        Ok(Self {
            name: name.to_owned(),
            proxy: FaultProxy::before_on(control_plane, listener)?,
            address,
            folder,
            pid,
            runtime,
            kubelet_program,
            kubelet: None,
            containerd: None,
            init,
        })
    }

    /// A kubeconfig that leads from this node to the API server, with a token of the service account `(namespace, name)`
    /// that this node alone has, into the account's namespace. The rights that it has are those that manifests gave it.
    #[track_caller]
    pub fn kubeconfig(&self, control_plane: &ControlPlane, account: (&str, &str)) -> PathBuf {
        let (namespace, account) = account;
        control_plane.ensure_service_account(namespace, account);
        let token = control_plane.service_account_token(namespace, account);
        control_plane.kubeconfig(&format!("{account}-on-{}", self.name), &token, namespace, self.proxy.url())
    }

    /// Starts containerd, with the CNI plugins of this folder and this network (a list of them, as a `.conflist` has
    /// it), and a kubelet, which makes the Node. The only image of the node is [`RealNode::IMAGE`].
    ///
    /// # Errors
    ///
    /// Says in words for people what does not start here.
    pub fn start(&mut self, control_plane: &ControlPlane, plugins: &Path, network: &Value) -> Result<(), String> {
        let networks = self.folder.join("net.d");
        let written = std::fs::create_dir(&networks)
            .and_then(|()| std::fs::write(networks.join("10-pods.conflist"), network.to_string()))
            .and_then(|()| std::fs::write(self.containerd_config(), self.containerd_settings(plugins, &networks)))
            .and_then(|()| std::fs::write(self.kubelet_config(), self.kubelet_settings().to_string()));
        written.map_err(|error| format!("{}: {error}", self.folder.display()))?;
        self.run_containerd()?;
        let imported = self.ctr(&["images", "import", &self.runtime.join("pause.tar").display().to_string()]);
        imported.map_err(|error| format!("an image cannot be imported: {error}"))?;
        // A kubelet has more rights than can be given by rules of RBAC.
        let name = format!("kubelet-on-{}", self.name);
        let kubeconfig = control_plane.kubeconfig(&name, control_plane.admin_token(), "default", self.proxy.url());
        let mut command = self.command(&self.kubelet_program);
        command
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--config={}", self.kubelet_config().display()))
            .arg(format!("--node-ip={}", self.address));
        self.kubelet = Some(Server::start(control_plane.janitor(), &name, &mut command)?);
        Ok(())
    }

    /// Kills containerd (SIGKILL). Containers go on, and so does what containerd had started and waits for.
    #[track_caller]
    pub fn kill_containerd(&mut self) {
        let mut containerd = self.containerd.take().expect("a containerd that runs");
        let kill = "kill -KILL $(cat /run/containerd.pid)";
        let status = self.command("sh").args(["-c", kill]).status().expect("sh runs");
        assert!(status.success(), "containerd cannot be killed: {status}");
        containerd.wait();
    }

    /// Starts the containerd that was killed, and waits until it answers.
    #[track_caller]
    pub fn start_containerd(&mut self) {
        self.run_containerd().unwrap_or_else(|error| panic!("{error}"));
    }

    /// A program that is to run on this node.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.pid)).args(["--mount", "--net", "--uts", "--ipc", "--pid", "--"]);
        command.arg(program);
        command
    }

    /// The ids of the sandboxes that run on this node: what its runtime would list as valid.
    #[track_caller]
    pub fn sandboxes(&self) -> Vec<String> {
        let list = |arguments: &[&str]| {
            let listed = self.ctr(arguments).unwrap_or_else(|error| panic!("{error}"));
            listed.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let sandbox = r#"labels."io.cri-containerd.kind"==sandbox"#;
        let mut sandboxes = list(&["containers", "list", "--quiet", sandbox]);
        // Of one that has ended it still knows the name.
        let tasks = list(&["tasks", "list"]);
        sandboxes.retain(|id| tasks.iter().any(|task| task.starts_with(id.as_str()) && task.contains("RUNNING")));
        sandboxes
    }

    /// The last that its programs said: for people who wonder why no pod runs.
    pub fn last_words(&self) -> String {
        let programs = [Some(&self.init), self.containerd.as_ref(), self.kubelet.as_ref()];
        programs.into_iter().flatten().map(Server::last_words).collect::<Vec<_>>().join("\n")
    }

    fn containerd_name(&self) -> String {
        format!("containerd-on-{}", self.name)
    }

    fn containerd_config(&self) -> PathBuf {
        self.folder.join("containerd.toml")
    }

    fn kubelet_config(&self) -> PathBuf {
        self.folder.join("kubelet.json")
    }

    fn run_containerd(&mut self) -> Result<(), String> {
        let containerd = self.runtime.join("containerd");
        let mut path = self.runtime.clone().into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut command = self.command("sh");
        // What this process was started with is not meant for the plugins, which inherit all of it. The id is that inside
        // the node: whoever kills nsenter kills nothing but that.
        command
            .env_clear()
            .env("PATH", path)
            .args(["-c", "echo $$ >/run/containerd.pid; exec \"$@\"", "sh"])
            .arg(containerd)
            .arg("--config")
            .arg(self.containerd_config());
        let mut server = Server::start(self.init.janitor(), &self.containerd_name(), &mut command)?;
        server.wait_until_ready(|| self.ctr(&["version"]))?;
        self.containerd = Some(server);
        Ok(())
    }

    /// stdout of containerd's own client, or what it said when it failed.
    fn ctr(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.command(self.runtime.join("ctr"));
        command.args(["--address", SOCKET, "--namespace", "k8s.io"]).args(arguments);
        let output = command.output().map_err(|error| format!("nsenter (util-linux) does not run: {error}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn containerd_settings(&self, plugins: &Path, networks: &Path) -> String {
        let [plugins, networks, runc] = [plugins, networks, &self.runtime.join("runc")].map(|path| json!(path));
        let image = json!(Self::IMAGE);
        // A machine may forbid to make a process less likely to be killed for memory, and may have no overlays in its
        // folder for temporary files. A string of JSON is one of TOML.
        format!(
            r#"version = 2
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {image}
  restrict_oom_score_adj = true
  disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = {plugins}
  conf_dir = {networks}
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  BinaryName = {runc}
"#
        )
    }

    fn kubelet_settings(&self) -> Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
            "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
            "authorization": { "mode": "AlwaysAllow" },
            "healthzPort": 0,
            // The limits of a container are those of the machine: nobody shares them out.
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": false,
            "enforceNodeAllocatable": [],
            "failCgroupV1": false,
            "failSwapOn": false,
            "localStorageCapacityIsolation": false,
            "oomScoreAdj": 0,
            // The disk is not the node's own, and the image cannot be had a second time.
            "evictionHard": {},
            "imageGCHighThresholdPercent": 100,
            "makeIPTablesUtilChains": false,
        })
    }
}

impl Drop for RealNode {
    fn drop(&mut self) {
        // All end with the first one. What is dropped later would else kill nothing but those who wait for them.
        self.init.kill();
        for mut server in [self.kubelet.take(), self.containerd.take()].into_iter().flatten() {
            server.wait();
        }
    }
}

/// The id that a process has left in a file.
fn process_in(file: &Path) -> Result<u32, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    text.trim().parse().map_err(|error| format!("{}: {error}", file.display()))
}

/// Runs `work` in the network of a process. Sockets stay where they were made.
fn in_network_of<T: Send + 'static>(pid: u32, work: fn() -> T) -> Result<T, String> {
    let network = File::open(format!("/proc/{pid}/ns/net")).map_err(|error| format!("a node's network: {error}"))?;
    let thread = std::thread::spawn(move || {
        let moved = move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network));
        moved.map(|()| work()).map_err(|error| format!("a node's network cannot be entered: {error}"))
    });
    thread.join().expect("work in another network does not panic")
}
