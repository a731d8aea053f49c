//! A machine of its own for a test: network, mounts, `/run` and `/var/lib/cni` that nobody else sees.
//!
//! The test binary starts itself again inside fresh namespaces, so everything that a story does to the network is
//! gone with its process, however that ends. Ordinary users get the same inside a user namespace.

use std::fs::File;
use std::io::{Error, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Names the story that a copy of the test binary is there to tell.
const INSIDE: &str = "WHEREABOUTS_TEST_INSIDE";

/// Printed by the copy when the story was told to its end: a copy that ran no test must not look like a success.
const TOLD: &str = "the story was told to its end";

/// How long a connection between two containers may take: a lost first packet is sent again after a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The inside of the namespaces.
#[derive(Debug)]
pub struct Machine {
    folder: tempfile::TempDir,
}

/// A network namespace on a [`Machine`], as a container's.
#[derive(Debug)]
pub struct Container {
    /// Where it is mounted, as the runtime would hand it to CNI_NETNS.
    pub netns: PathBuf,
    name: String,
}

/// Tells `story` on a machine of its own. `test` is the full name of the calling test.
///
/// # Errors
///
/// When such a machine cannot be made here: in words for people, for [`super::skip::skip`].
///
/// # Panics
///
/// When the story fails.
#[track_caller]
pub fn on_own_machine(test: &str, story: impl FnOnce(&Machine)) -> Result<(), String> {
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == test) {
        let machine = Machine::set_up();
        story(&machine);
        drop(machine);
        writeln!(std::io::stdout(), "{TOLD}").expect("stdout is there");
        return Ok(());
    }
    possible_here()?;
    let itself = std::env::current_exe().expect("a program knows its path");
    let output = unshare()
        .arg(itself)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, test)
        .output()
        .expect("unshare was there a moment ago");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success() && stdout.contains(TOLD),
        "{test}, on a machine of its own, ended with {}:\n{stdout}\n{stderr}",
        output.status
    );
    Ok(())
}

/// Whether an overlay can be mounted on such a machine, as [`Machine::overlay`] does it.
///
/// # Errors
///
/// When it cannot: in words for people, for [`super::skip::skip`].
pub fn overlay_is_possible() -> Result<(), String> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let script = format!("mount -t tmpfs none /run && mkdir /run/overlay && {}", overlay_at("/run/overlay"));
    probe(&script, "an overlay cannot be mounted here")
}

/// The shell command that mounts an overlay in `folder`, at `folder`/merged. The folder is on a file system that an
/// overlay can stand on, as tmpfs is.
fn overlay_at(folder: &str) -> String {
    format!(
        "cd {folder} && mkdir lower upper work merged && \
         mount -t overlay none -o lowerdir=lower,upperdir=upper,workdir=work merged"
    )
}

/// Whether the namespaces and `ip` are to be had.
fn possible_here() -> Result<(), String> {
    let script = "mount -t tmpfs none /run && ip netns add probe && ip link add probe type veth peer p";
    probe(script, "network namespaces need root or user namespaces, and ip (iproute2)")
}

/// Whether a shell script succeeds inside the namespaces; else `need`, and what went wrong.
fn probe(script: &str, need: &str) -> Result<(), String> {
    let output = unshare()
        .args(["sh", "-c", script])
        .output()
        .map_err(|error| format!("unshare (util-linux) does not run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{need}: {}", String::from_utf8_lossy(&output.stderr).trim_end()))
}

/// New network and mount namespaces, and for an ordinary user a user namespace around them.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--"]);
    command
}

// === impl Machine ===

impl Machine {
    fn set_up() -> Self {
        let machine = Self { folder: tempfile::tempdir().expect("a folder for the test") };
        machine.run("mount", &["-t", "tmpfs", "none", "/run"]);
        // Runtimes and plugins keep what they remember below /var/lib/cni: here, in the test's own folder. An ordinary
        // user who has no such folder gets another /var/lib.
        let cni = Path::new("/var/lib/cni");
        let place = if std::fs::create_dir_all(cni).is_ok() { "/var/lib/cni" } else { "/var/lib" };
        machine.run("mount", &["--bind", machine.folder("var").to_str().expect("a folder of UTF-8"), place]);
        machine.run("ip", &["link", "set", "lo", "up"]);
        machine
    }

    /// A folder that lives as long as the machine; made when it is not there yet.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).expect("a folder in a new folder");
        folder
    }

    /// Runs a program that must succeed; its stdout.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        succeeded(Command::new(program).args(arguments))
    }

    /// A folder on an overlay, as in a container image, where that [is possible](overlay_is_possible).
    #[track_caller]
    pub fn overlay(&self, name: &str) -> PathBuf {
        let folder = self.folder(name);
        let text = folder.to_str().expect("a folder of UTF-8");
        self.run("mount", &["-t", "tmpfs", "none", text]);
        self.run("sh", &["-c", &overlay_at(text)]);
        folder.join("merged")
    }

    /// A bridge, and the keys of a network configuration that uses it. It has a link address of its own: one without
    /// takes that of a port, and CHECK of an earlier port finds it changed.
    #[track_caller]
    pub fn bridge(&self, name: &str) -> serde_json::Value {
        self.run("ip", &["link", "add", name, "address", "02:00:00:00:77:01", "type", "bridge"]);
        serde_json::json!({ "type": "bridge", "bridge": name })
    }

    /// A network namespace with its loopback up.
    #[track_caller]
    pub fn container(&self, name: &str) -> Container {
        self.run("ip", &["netns", "add", name]);
        let container = Container { netns: Path::new("/run/netns").join(name), name: name.to_owned() };
        container.run("ip", &["link", "set", "lo", "up"]);
        // Nobody else can have an address here, and one that is still being asked after cannot be used yet.
        container.inside(|| {
            for scope in ["all", "default"] {
                let path = format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad");
                std::fs::write(&path, "0").unwrap_or_else(|error| panic!("{path}: {error}"));
            }
        });
        container
    }
}

// === impl Container ===

impl Container {
    /// Runs a program inside, which must succeed; its stdout.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        succeeded(Command::new("ip").args(["netns", "exec", &self.name, program]).args(arguments))
    }

    /// The addresses that the interface has, without the link-local ones.
    #[track_caller]
    pub fn addresses(&self, ifname: &str) -> Vec<String> {
        let json = self.run("ip", &["-json", "address", "show", "dev", ifname]);
        let json: serde_json::Value = serde_json::from_str(&json).expect("ip prints JSON");
        let of_interface = json[0]["addr_info"].as_array().expect("an interface has addresses");
        of_interface
            .iter()
            .filter(|address| address["scope"] == "global")
            .map(|address| format!("{}/{}", address["local"].as_str().expect("text"), address["prefixlen"]))
            .collect()
    }

    /// Whether there is such an interface.
    pub fn has_interface(&self, ifname: &str) -> bool {
        self.run("ip", &["-brief", "link"]).lines().any(|line| line.split(['@', ' ']).next() == Some(ifname))
    }

    /// A question over TCP from here to `address`, which `other` must have, and the answer back: both ways work, and
    /// the other side sees `from` as who asks.
    #[track_caller]
    pub fn reaches(&self, from: IpAddr, other: &Container, address: IpAddr) {
        let listener = other.inside(move || TcpListener::bind((address, 0)));
        let listener = listener.unwrap_or_else(|error| panic!("{} does not have {address}: {error}", other.name));
        let to = listener.local_addr().expect("a bound socket has an address");
        let answering = thread::spawn(move || answer_once(&listener));
        let asked = self.inside(move || ask(from, to));
        assert!(asked.is_ok(), "{} does not reach {} at {address}: {asked:?}", self.name, other.name);
        let seen = answering.join().expect("the answering thread ends").expect("a connection that was made");
        assert_eq!(seen.ip(), from, "{} sees {} under another address", other.name, self.name);
    }

    /// Takes the namespace away behind everybody's back.
    #[track_caller]
    pub fn tear_down(self) {
        succeeded(Command::new("ip").args(["netns", "delete", &self.name]));
    }

    /// Runs `work` in a thread that is inside the namespace. Sockets stay where they were made.
    fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let netns = File::open(&self.netns).expect("the container's namespace is there");
        let thread = thread::spawn(move || {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).expect("root enters it");
            work()
        });
        thread.join().expect("work inside a container does not panic")
    }
}

fn ask(from: IpAddr, to: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, CONNECT_TIMEOUT)?;
    if stream.local_addr()?.ip() != from {
        return Err(Error::other(format!("asked from {} and not from {from}", stream.local_addr()?)));
    }
    stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
    stream.write_all(b"ping")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    if &answer == b"pong" { Ok(()) } else { Err(Error::other("another answer")) }
}

fn answer_once(listener: &TcpListener) -> std::io::Result<SocketAddr> {
    let (mut stream, from) = listener.accept()?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
    let mut question = [0; 4];
    stream.read_exact(&mut question)?;
    stream.write_all(b"pong")?;
    Ok(from)
}

/// stdout of a command that must succeed.
#[track_caller]
pub fn succeeded(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?} ended with {status}:\n{stdout}\n{stderr}");
    stdout.into_owned()
}
