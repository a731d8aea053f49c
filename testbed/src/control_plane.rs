//! A real kube-apiserver over a real etcd, and their outages.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::certificates::Certificates;
use crate::http::Asker;
use crate::processes::{BETWEEN_QUESTIONS, Janitor, Server};
use crate::programs;

/// How many simulated nodes have a token of their own, from number 0.
pub const NODE_TOKENS: usize = 64;

/// How long the answer to one question after a server's health is waited for: a stopped one never gives it.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the answer to a test's own request is waited for: half of the time after which the API server gives up.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Below the ports from which Linux takes those of outgoing connections: one of these could take the port of a server
/// that is to be started again.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// How often ports that were free a moment ago may turn out not to be.
const ATTEMPTS: usize = 3;

/// kube-apiserver and etcd on loopback ports of their own, with nothing in them. They end when it is dropped, and when
/// the process ends in whatever way.
#[derive(Debug)]
pub struct ControlPlane {
    servers: Mutex<Servers>,
    apiserver_program: PathBuf,
    etcd_program: PathBuf,
    kubectl: PathBuf,
    apiserver_port: u16,
    etcd_port: u16,
    etcd_peer_port: u16,
    certificates: Certificates,
    admin_token: String,
    node_tokens: Vec<String>,
    asker: Asker,
    janitor: Arc<Janitor>,
}

/// What runs: `None` is a server that was killed.
#[derive(Debug, Default)]
struct Servers {
    apiserver: Option<Server>,
    etcd: Option<Server>,
    snapshots: usize,
}

/// All that etcd held at one moment. It goes with its control plane.
#[derive(Debug, Clone)]
pub struct Snapshot {
    folder: PathBuf,
}

/// What etcd has counted since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EtcdBytes {
    /// Size of the database file.
    pub database: u64,
    /// What of it is in use; the rest is free for what comes.
    pub database_in_use: u64,
    /// Bytes that clients (the API server) sent to it.
    pub received: u64,
    /// Bytes that it sent to clients.
    pub sent: u64,
    /// Bytes of the keys and values that were written.
    pub put: u64,
    /// How many keys were written.
    pub puts: u64,
    /// Bytes that went into the write-ahead log.
    pub logged: u64,
    /// Syncs of the write-ahead log.
    pub syncs: u64,
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Starts both servers; returns when they answer.
    ///
    /// # Errors
    ///
    /// Says in words for people why there is none here: a program that is missing and cannot be built, or a server that
    /// does not start.
    pub fn start() -> Result<Self, String> {
        let mut attempt = 1;
        loop {
            match Self::start_once() {
                Err(error) if attempt < ATTEMPTS && error.contains("address already in use") => attempt += 1,
                result => return result,
            }
        }
    }

    fn start_once() -> Result<Self, String> {
        let kubectl = programs::kubectl()?;
        let [etcd_program, apiserver_program] = programs::find(&["etcd", "kube-apiserver"])?
            .try_into()
            .map_err(|found| format!("two programs were to be found, not {found:?}"))?;
        let janitor = Janitor::new()?;
        let [apiserver_port, etcd_port, etcd_peer_port] = free_ports()?;
        let certificates = Certificates::new(janitor.folder())?;
        let asker = Asker::new(&certificates.ca)?;
        let control_plane = Self {
            servers: Mutex::default(),
            apiserver_program,
            etcd_program,
            kubectl,
            apiserver_port,
            etcd_port,
            etcd_peer_port,
            certificates,
            admin_token: random_hex(),
            node_tokens: (0..NODE_TOKENS).map(|_| random_hex()).collect(),
            asker,
            janitor,
        };
        control_plane.write_tokens().map_err(|error| format!("a new folder cannot be written: {error}"))?;
        let mut servers = control_plane.servers.lock();
        control_plane.run_etcd(&mut servers)?;
        control_plane.run_apiserver(&mut servers)?;
        drop(servers);
        Ok(control_plane)
    }

    /// Where the API server is.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.apiserver_port)
    }

    /// Where etcd is: without TLS, and open to whoever is on this machine.
    pub fn etcd_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.etcd_port)
    }

    /// The certificate of the authority that vouches for the API server, in PEM.
    pub fn ca(&self) -> &Path {
        &self.certificates.ca
    }

    /// The certificate of the API server and its key, in PEM.
    pub(crate) fn serving_certificate(&self) -> (&Path, &Path) {
        (&self.certificates.serving, &self.certificates.serving_key)
    }

    /// A folder that goes with the control plane. The servers' logs are in it.
    pub fn folder(&self) -> &Path {
        self.janitor.folder()
    }

    /// Who sees to the end of what works in the folder.
    pub(crate) fn janitor(&self) -> &Arc<Janitor> {
        &self.janitor
    }

    /// The token of a user who may do everything.
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// The token of the user `system:node:node-NUMBER`, who is in the group `system:nodes` and has no rights but those
    /// that manifests give.
    ///
    /// # Panics
    ///
    /// From [`NODE_TOKENS`] on: the API server learns all tokens when it starts.
    #[track_caller]
    pub fn node_token(&self, number: usize) -> &str {
        self.node_tokens.get(number).unwrap_or_else(|| panic!("there are tokens for {NODE_TOKENS} nodes"))
    }

    /// A kubeconfig of the user who may do everything.
    #[track_caller]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.kubeconfig("admin", &self.admin_token, "default", &self.url())
    }

    /// Writes a kubeconfig of this name (one that was there under it is replaced): for a bearer of `token`, who works in
    /// `namespace`, at `server_url`, which is the API server's or that of a proxy before it. With https, the certificate
    /// of the API server's authority is in it.
    #[track_caller]
    pub fn kubeconfig(&self, name: &str, token: &str, namespace: &str, server_url: &str) -> PathBuf {
        let folder = self.folder().join("kubeconfigs");
        let path = folder.join(format!("{name}.yaml"));
        let mut cluster = format!("server: {server_url}");
        if server_url.starts_with("https:") {
            let ca = std::fs::read(self.ca()).expect("a file that was written");
            cluster.push_str(&format!("\n    certificate-authority-data: {}", STANDARD.encode(ca)));
        }
        let text = format!(
            r#"apiVersion: v1
kind: Config
clusters:
- name: testbed
  cluster:
    {cluster}
users:
- name: testbed
  user:
    token: "{token}"
contexts:
- name: testbed
  context:
    cluster: testbed
    user: testbed
    namespace: {namespace}
current-context: testbed
"#
        );
        std::fs::create_dir_all(&folder).expect("a folder in a new folder");
        // Another test may be reading it: what is there under the name is always whole.
        let new = folder.join(format!("{name}-{}.new", random_hex()));
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &path))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// Runs kubectl as the user who may do everything.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        self.kubectl_with(&self.admin_kubeconfig(), arguments)
    }

    /// Runs kubectl with this kubeconfig.
    #[track_caller]
    pub fn kubectl_with(&self, kubeconfig: &Path, arguments: &[&str]) -> Output {
        Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            // What it remembers of a server must not outlive that server.
            .arg("--cache-dir")
            .arg(self.folder().join("kubectl"))
            .args(arguments)
            .output()
            .expect("kubectl ran a moment ago")
    }

    /// The stdout of a kubectl that must succeed.
    #[track_caller]
    pub fn kubectl_ok(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments:?} ended with {}: {stderr}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Applies the manifests of a file or a folder; returns when the custom resources among them are served.
    #[track_caller]
    pub fn apply(&self, manifests: &Path) {
        let manifests = manifests.to_str().expect("a path of UTF-8");
        let applied = self.kubectl_ok(&["apply", "-f", manifests, "-o", "name"]);
        let definitions: Vec<&str> =
            applied.lines().filter(|name| name.starts_with("customresourcedefinition.")).collect();
        if !definitions.is_empty() {
            let wait = ["wait", "--for=condition=Established", "--timeout=30s"];
            self.kubectl_ok(&[&wait[..], &definitions[..]].concat());
        }
    }

    /// Status and body of what the API server answers to the user who may do everything. A body that is not JSON is a
    /// string. That of a PATCH is a merge patch.
    ///
    /// # Errors
    ///
    /// There was no answer.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value), String> {
        self.request_as(&self.admin_token, method, path, body)
    }

    /// The same for the bearer of this token. A server that asks for a moment (429), as it does after it was started, is
    /// given it.
    ///
    /// # Errors
    ///
    /// There was no answer.
    pub fn request_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), String> {
        let body = body.map_or_else(String::new, ToString::to_string);
        let url = format!("{}{path}", self.url());
        let started = Instant::now();
        loop {
            match self.asker.send(method, &url, token, body.clone(), REQUEST_TIMEOUT) {
                Ok((429, _)) if started.elapsed() < REQUEST_TIMEOUT => std::thread::sleep(BETWEEN_QUESTIONS),
                Ok((status, body)) => return Ok((status, serde_json::from_str(&body).unwrap_or(Value::String(body)))),
                Err(error) => return Err(error),
            }
        }
    }

    /// The object or the list at this path, unless there is none.
    #[track_caller]
    pub fn get(&self, path: &str) -> Option<Value> {
        match self.request("GET", path, None) {
            Ok((200, object)) => Some(object),
            Ok((404, _)) => None,
            other => panic!("GET {path}: {other:?}"),
        }
    }

    /// Makes an object in the collection at this path (`/api/v1/nodes`). Returns it as it is stored, or as it was
    /// there already.
    #[track_caller]
    pub fn create(&self, collection: &str, object: &Value) -> Value {
        match self.request("POST", collection, Some(object)) {
            Ok((201, stored)) => stored,
            Ok((409, _)) => {
                let name = object["metadata"]["name"].as_str().expect("an object with a name");
                self.get(&format!("{collection}/{name}")).expect("what was there a moment ago")
            }
            other => panic!("POST {collection} {object}: {other:?}"),
        }
    }

    /// Deletes the object at this path, if it is there, at once: there is no kubelet to end a pod in its own time.
    #[track_caller]
    pub fn delete(&self, path: &str) {
        match self.request("DELETE", path, Some(&json!({ "gracePeriodSeconds": 0 }))) {
            Ok((200 | 202 | 404, _)) => {}
            other => panic!("DELETE {path}: {other:?}"),
        }
    }

    /// Makes a Node, unless it is there. Returns it.
    #[track_caller]
    pub fn create_node(&self, name: &str) -> Value {
        self.create("/api/v1/nodes", &json!({ "metadata": { "name": name } }))
    }

    /// Makes a Pod that is bound to a node, unless it is there. Returns it; `["metadata"]["uid"]` is its UID.
    #[track_caller]
    pub fn create_pod(&self, namespace: &str, name: &str, node: &str) -> Value {
        let spec = json!({ "nodeName": node, "containers": [{ "name": "pause", "image": "pause" }] });
        let pod = json!({ "metadata": { "name": name }, "spec": spec });
        self.create(&format!("/api/v1/namespaces/{namespace}/pods"), &pod)
    }

    /// Makes the service account, and its namespace, where they are missing.
    #[track_caller]
    pub fn ensure_service_account(&self, namespace: &str, name: &str) {
        self.create("/api/v1/namespaces", &json!({ "metadata": { "name": namespace } }));
        let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        self.create(&accounts, &json!({ "metadata": { "name": name } }));
    }

    /// A token of a service account, by the TokenRequest API, for a day. Every call makes another one.
    #[track_caller]
    pub fn service_account_token(&self, namespace: &str, name: &str) -> String {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        match self.request("POST", &path, Some(&json!({ "spec": { "expirationSeconds": 86_400 } }))) {
            Ok((201, answer)) => answer["status"]["token"].as_str().expect("a token").to_owned(),
            other => panic!("POST {path}: {other:?}"),
        }
    }

    /// Kills the API server (SIGKILL). Its address stays its own.
    pub fn kill_apiserver(&self) {
        self.servers.lock().apiserver = None;
    }

    /// Starts the API server that was killed, and waits until it answers. etcd must run.
    #[track_caller]
    pub fn start_apiserver(&self) {
        let started = self.run_apiserver(&mut self.servers.lock());
        started.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Stops the API server where it is (SIGSTOP): connections are accepted and nothing is answered.
    #[track_caller]
    pub fn pause_apiserver(&self) {
        self.servers.lock().apiserver.as_mut().expect("an API server that runs").pause();
    }

    /// Lets the API server go on.
    #[track_caller]
    pub fn resume_apiserver(&self) {
        self.servers.lock().apiserver.as_mut().expect("an API server that was paused").resume();
    }

    /// Kills etcd (SIGKILL).
    pub fn kill_etcd(&self) {
        self.servers.lock().etcd = None;
    }

    /// Starts the etcd that was killed, with what it held, and waits until it answers, and until the API server does if
    /// that runs.
    #[track_caller]
    pub fn start_etcd(&self) {
        let mut servers = self.servers.lock();
        let started = self.run_etcd(&mut servers).and_then(|()| self.wait_for_apiserver(&mut servers));
        started.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Stops etcd where it is (SIGSTOP).
    #[track_caller]
    pub fn pause_etcd(&self) {
        self.servers.lock().etcd.as_mut().expect("an etcd that runs").pause();
    }

    /// Lets etcd go on, and waits until the API server answers if that runs.
    #[track_caller]
    pub fn resume_etcd(&self) {
        let mut servers = self.servers.lock();
        servers.etcd.as_mut().expect("an etcd that was paused").resume();
        self.wait_for_apiserver(&mut servers).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Remembers all that etcd holds now: a moment's pause is all that the API server sees of it. The copy is what a
    /// power cut at this moment would have left, with all that was answered in it.
    #[track_caller]
    pub fn snapshot_etcd(&self) -> Snapshot {
        let mut servers = self.servers.lock();
        servers.snapshots += 1;
        let folder = self.folder().join(format!("snapshot-{}", servers.snapshots));
        let mut running = servers.etcd.as_mut().filter(|etcd| !etcd.is_paused());
        if let Some(etcd) = &mut running {
            etcd.pause();
        }
        let copied = copy_folder(&self.etcd_folder(), &folder);
        if let Some(etcd) = running {
            etcd.resume();
        }
        copied.unwrap_or_else(|error| panic!("etcd's folder cannot be copied: {error}"));
        Snapshot { folder }
    }

    /// Puts etcd back to what it held then, as when a backup is restored: both servers are killed and started, all that
    /// was written since is gone, and etcd counts its revisions again from there, so an object may get a version that
    /// another content of it had before. A snapshot can be restored more than once.
    #[track_caller]
    pub fn restore_etcd(&self, snapshot: &Snapshot) {
        let mut servers = self.servers.lock();
        servers.apiserver = None;
        servers.etcd = None;
        let folder = self.etcd_folder();
        std::fs::remove_dir_all(&folder)
            .and_then(|()| copy_folder(&snapshot.folder, &folder))
            .unwrap_or_else(|error| panic!("etcd's folder cannot be put back: {error}"));
        let started = self.run_etcd(&mut servers).and_then(|()| self.run_apiserver(&mut servers));
        started.unwrap_or_else(|error| panic!("{error}"));
    }

    /// What etcd has counted since it started.
    #[track_caller]
    pub fn etcd_bytes(&self) -> EtcdBytes {
        let metrics = match self.asker.get(&format!("{}/metrics", self.etcd_url()), None, QUESTION_TIMEOUT) {
            Ok((200, metrics)) => metrics,
            other => panic!("etcd shows no metrics: {other:?}"),
        };
        let value = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            let value = line.and_then(|value| value.parse::<f64>().ok());
            // Prometheus writes large numbers with an exponent; whole they are below 2^53.
            value.unwrap_or_else(|| panic!("etcd has no number named {name}")) as u64
        };
        EtcdBytes {
            database: value("etcd_mvcc_db_total_size_in_bytes"),
            database_in_use: value("etcd_mvcc_db_total_size_in_use_in_bytes"),
            received: value("etcd_network_client_grpc_received_bytes_total"),
            sent: value("etcd_network_client_grpc_sent_bytes_total"),
            put: value("etcd_debugging_mvcc_total_put_size_in_bytes"),
            puts: value("etcd_mvcc_put_total"),
            logged: value("etcd_disk_wal_write_bytes_total"),
            syncs: value("etcd_disk_wal_fsync_duration_seconds_count"),
        }
    }

    /// How many bytes etcd keeps of an object, its key among them; `None` where there is none. The key is the one that the
    /// API server gives it: `/registry/GROUP/RESOURCE/NAMESPACE/NAME` for a custom resource.
    #[track_caller]
    pub fn etcd_object_bytes(&self, key: &str) -> Option<usize> {
        let (url, question) = (format!("{}/v3/kv/range", self.etcd_url()), json!({ "key": STANDARD.encode(key) }));
        // etcd asks nobody for a token.
        let answer = match self.asker.send("POST", &url, "", question.to_string(), QUESTION_TIMEOUT) {
            Ok((200, answer)) => serde_json::from_str::<Value>(&answer).expect("etcd answers in JSON"),
            other => panic!("etcd does not say what it keeps under {key}: {other:?}"),
        };
        let object = answer["kvs"].as_array()?.first()?;
        let bytes = |field: &str| {
            let text = object[field].as_str().expect("a key and a value");
            STANDARD.decode(text).expect("base 64").len()
        };
        Some(bytes("key") + bytes("value"))
    }

    fn etcd_folder(&self) -> PathBuf {
        self.folder().join("etcd")
    }

    fn tokens(&self) -> PathBuf {
        self.folder().join("tokens.csv")
    }

    fn write_tokens(&self) -> std::io::Result<()> {
        let mut text = format!("{},admin,admin,\"system:masters\"\n", self.admin_token);
        for (number, token) in self.node_tokens.iter().enumerate() {
            text.push_str(&format!("{token},system:node:node-{number},node-{number},\"system:nodes\"\n"));
        }
        std::fs::write(self.tokens(), text)
    }

    fn run_etcd(&self, servers: &mut Servers) -> Result<(), String> {
        if servers.etcd.is_none() {
            let (clients, peers) = (self.etcd_url(), format!("http://127.0.0.1:{}", self.etcd_peer_port));
            let mut command = Command::new(&self.etcd_program);
            command.args([
                "--name=testbed",
                &format!("--data-dir={}", self.etcd_folder().display()),
                &format!("--listen-client-urls={clients}"),
                &format!("--advertise-client-urls={clients}"),
                &format!("--listen-peer-urls={peers}"),
                &format!("--initial-advertise-peer-urls={peers}"),
                &format!("--initial-cluster=testbed={peers}"),
                "--log-level=warn",
            ]);
            servers.etcd = Some(Server::start(&self.janitor, "etcd", &mut command)?);
        }
        let question = format!("{}/readyz", self.etcd_url());
        let etcd = servers.etcd.as_mut().ok_or("etcd was never started")?;
        etcd.wait_until_ready(|| good(self.asker.get(&question, None, QUESTION_TIMEOUT)))
    }

    fn run_apiserver(&self, servers: &mut Servers) -> Result<(), String> {
        if servers.apiserver.is_none() {
            let mut command = Command::new(&self.apiserver_program);
            command.args([
                &format!("--etcd-servers={}", self.etcd_url()),
                &format!("--secure-port={}", self.apiserver_port),
                "--bind-address=127.0.0.1",
                // Without these two it looks for a default route, and a machine of a test's own has none.
                "--advertise-address=127.0.0.1",
                "--endpoint-reconciler-type=none",
                "--service-cluster-ip-range=10.96.0.0/16",
                &format!("--cert-dir={}", self.folder().join("certificates").display()),
                &format!("--tls-cert-file={}", self.certificates.serving.display()),
                &format!("--tls-private-key-file={}", self.certificates.serving_key.display()),
                &format!("--service-account-key-file={}", self.certificates.accounts_public_key.display()),
                &format!("--service-account-signing-key-file={}", self.certificates.accounts_key.display()),
                "--service-account-issuer=https://kubernetes.default.svc",
                "--authorization-mode=RBAC",
                &format!("--token-auth-file={}", self.tokens().display()),
                // Pods that a test makes itself would wait for the default service account, which a controller makes.
                "--disable-admission-plugins=ServiceAccount",
            ]);
            servers.apiserver = Some(Server::start(&self.janitor, "kube-apiserver", &mut command)?);
        }
        self.wait_for_apiserver(servers)
    }

    /// Returns at once when it does not run or is paused.
    fn wait_for_apiserver(&self, servers: &mut Servers) -> Result<(), String> {
        let running = servers.apiserver.as_mut().filter(|apiserver| !apiserver.is_paused());
        let Some(apiserver) = running else { return Ok(()) };
        let (ready, read) = (format!("{}/readyz", self.url()), format!("{}/api/v1/namespaces/default", self.url()));
        let ask = |url: &str| good(self.asker.get(url, Some(&self.admin_token), QUESTION_TIMEOUT));
        // It calls itself ready by what it knew of etcd a moment ago. A read goes through to etcd.
        apiserver.wait_until_ready(|| ask(&ready).and_then(|()| ask(&read)))
    }
}

/// What is not 200 is an error.
fn good(answer: Result<(u16, String), String>) -> Result<(), String> {
    match answer? {
        (200, _) => Ok(()),
        (status, body) => Err(format!("{status}: {body}")),
    }
}

/// Ports on which nothing listens now.
fn free_ports<const N: usize>() -> Result<[u16; N], String> {
    let mut listeners = Vec::new();
    for _ in PORTS {
        if listeners.len() == N {
            break;
        }
        listeners.extend(TcpListener::bind(("127.0.0.1", fastrand::u16(PORTS))));
    }
    let ports: Result<Vec<u16>, std::io::Error> =
        listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect();
    let ports = ports.map_err(|error| error.to_string())?;
    ports.try_into().map_err(|_| format!("no free ports from {} to {}", PORTS.start, PORTS.end))
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &copy)?;
        } else {
            std::fs::copy(entry.path(), copy)?;
        }
    }
    Ok(())
}

/// 128 random bits: a secret from other users of the machine, or a name that nobody else has.
pub(crate) fn random_hex() -> String {
    let mut bytes = [0_u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).expect("the kernel has randomness");
    format!("{:032x}", u128::from_le_bytes(bytes))
}
