//! Requests to the API server, one at a time and each with an end.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Method, Request, StatusCode, header};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::Deserialize;
use tower::{BoxError, ServiceBuilder};
use whereabouts_engine::Environment;

use super::patience::Patience;

/// Where objects are if the kubeconfig's context names no namespace; the Go plugin's default.
const DEFAULT_NAMESPACE: &str = "kube-system";

/// How long one request may take. The API server itself gives up writes after 34 s, most of them within 2 s.
const LONGEST_REQUEST: Duration = Duration::from_secs(8);

/// How long a connection may take to come about.
const LONGEST_CONNECT: Duration = Duration::from_secs(3);

/// How long a kubeconfig that cannot be used is read again: it may be half written.
const HALF_WRITTEN: Duration = Duration::from_secs(2);

/// How long an API server that has just started may forbid everything, until it has read who may do what.
const RIGHTS_UNREAD: Duration = Duration::from_millis(2500);

/// The first and the longest pause before a read is repeated.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    /// Indexes.
    Spaces,
    /// Blocks.
    Blocks,
    /// The pools of the Go plugin.
    GoPools,
    /// The same in all namespaces.
    GoPoolsAnywhere,
    /// Its reservations, by which it keeps overlapping ranges apart.
    GoReservations,
    /// Which of its nodes has which slice of a range.
    GoSlices,
    /// The leases by which its calls, one after the other, are leader.
    Leases,
    /// What a migration remembers of itself.
    ConfigMaps,
    /// What denies writes to the Go plugin's objects.
    Policies,
    /// Where that applies.
    PolicyBindings,
    /// The pods of all namespaces.
    Pods,
    /// The namespace whose UID tells clusters apart.
    ClusterNamespace,
    /// The nodes of the cluster.
    Nodes,
    /// Who one is to the API server.
    SelfReviews,
}

/// A request, but for where it is sent.
#[derive(Clone, Debug)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) resource: Resource,
    /// The object; `None` for all.
    pub(super) name: Option<&'a str>,
    /// What comes behind the question mark.
    pub(super) query: &'a str,
    pub(super) body: Option<Vec<u8>>,
}

/// What the API server answered.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
    /// How long it wants to be left alone.
    pub(super) retry_after: Option<Duration>,
}

/// Why there is no answer, for people.
pub(super) type Silence = String;

/// The way to the API server that a kubeconfig describes.
#[derive(Debug)]
pub(super) struct Client<'a> {
    kubeconfig: PathBuf,
    /// In place of the one that the kubeconfig's context names.
    namespace: Option<String>,
    patience: &'a Patience,
    connected: RefCell<Option<Connected>>,
}

#[derive(Clone)]
struct Connected {
    client: kube::Client,
    namespace: String,
}

/// The part of a `Status` that is of use.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) message: String,
    pub(super) details: Option<StatusDetails>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StatusDetails {
    pub(super) name: String,
}

// === impl Resource ===

impl Resource {
    fn path(self, namespace: &str) -> String {
        match self {
            Self::Spaces => format!("/apis/{}/v1alpha1/namespaces/{namespace}/ipspaces", super::objects::GROUP),
            Self::Blocks => format!("/apis/{}/v1alpha1/namespaces/{namespace}/ipblocks", super::objects::GROUP),
            Self::GoPools | Self::GoReservations | Self::GoSlices => {
                let (plural, group) = self.plural().split_once('.').unwrap_or_default();
                format!("/apis/{group}/v1alpha1/namespaces/{namespace}/{plural}")
            }
            Self::GoPoolsAnywhere => "/apis/whereabouts.cni.cncf.io/v1alpha1/ippools".to_owned(),
            Self::Leases => format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"),
            Self::ConfigMaps => format!("/api/v1/namespaces/{namespace}/configmaps"),
            Self::Policies => "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies".to_owned(),
            Self::PolicyBindings => {
                "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings".to_owned()
            }
            Self::Pods => "/api/v1/pods".to_owned(),
            Self::ClusterNamespace => "/api/v1/namespaces".to_owned(),
            Self::Nodes => "/api/v1/nodes".to_owned(),
            Self::SelfReviews => "/apis/authentication.k8s.io/v1/selfsubjectreviews".to_owned(),
        }
    }

    /// As `kubectl get` takes it.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Spaces => "ipspaces.ipam.whereabouts.dev",
            Self::Blocks => "ipblocks.ipam.whereabouts.dev",
            Self::GoPools | Self::GoPoolsAnywhere => "ippools.whereabouts.cni.cncf.io",
            Self::GoReservations => "overlappingrangeipreservations.whereabouts.cni.cncf.io",
            Self::GoSlices => "nodeslicepools.whereabouts.cni.cncf.io",
            Self::Leases => "leases.coordination.k8s.io",
            Self::ConfigMaps => "configmaps",
            Self::Policies => "validatingadmissionpolicies.admissionregistration.k8s.io",
            Self::PolicyBindings => "validatingadmissionpolicybindings.admissionregistration.k8s.io",
            Self::Pods => "pods",
            Self::ClusterNamespace => "namespaces",
            Self::Nodes => "nodes",
            Self::SelfReviews => "selfsubjectreviews.authentication.k8s.io",
        }
    }
}

// === impl Reply ===

impl Reply {
    /// What the server says of a request that failed.
    pub(super) fn status(&self) -> Status {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// What went wrong, for people.
    pub(super) fn reason(&self) -> String {
        let message = self.status().message;
        let text = self.status.canonical_reason().unwrap_or_default();
        let code = self.status.as_u16();
        if message.is_empty() {
            format!("the API server answered {code} {text}")
        } else {
            format!("the API server answered {code} {text}: {message}")
        }
    }

    /// Whether the same request would be answered in the same way, for all that this host can tell.
    fn is_final(&self) -> bool {
        !self.is_passing() && self.status != StatusCode::UNAUTHORIZED
    }

    /// Whether the same request may be answered otherwise in a moment.
    pub(super) fn is_passing(&self) -> bool {
        let status = self.status;
        status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT
    }
}

// === impl Client ===

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connected").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl<'a> Client<'a> {
    pub(super) fn new(kubeconfig: &Path, namespace: Option<&str>, patience: &'a Patience) -> Self {
        let (kubeconfig, namespace) = (kubeconfig.to_owned(), namespace.map(str::to_owned));
        Self { kubeconfig, namespace, patience, connected: RefCell::new(None) }
    }

    /// The namespace that requests go to.
    pub(super) async fn namespace(&self) -> Result<String, Silence> {
        Ok(self.connected().await?.namespace)
    }

    /// Sends a request once. A token that is no longer accepted is read again first, for another may be there by now; and
    /// what is forbidden was not done, so for a moment it is asked again.
    pub(super) async fn send(&self, call: &Call<'_>) -> Result<Reply, Silence> {
        loop {
            let mut reply = self.send_once(call).await?;
            if reply.status == StatusCode::UNAUTHORIZED {
                self.connected.replace(None);
                reply = self.send_once(call).await?;
            }
            if reply.status != StatusCode::FORBIDDEN || !self.patience.note_forbidden(RIGHTS_UNREAD) {
                return Ok(reply);
            }
            self.patience.pause(PAUSES.1 / 5).await;
        }
    }

    /// Sends a request that changes nothing, until it is answered for good or time is up.
    pub(super) async fn read(&self, call: &Call<'_>) -> Result<Reply, Silence> {
        let (mut pause, longest) = PAUSES;
        let mut answered = None;
        loop {
            let reply = self.send(call).await;
            let (reason, wait) = match reply {
                Ok(reply) if reply.is_final() => return Ok(reply),
                Ok(reply) => (answered.insert(reply.reason()).clone(), reply.retry_after),
                // The last request is cut off by the deadline: what the server has said before tells more.
                Err(reason) if self.patience.is_past_deadline() => return Err(answered.unwrap_or(reason)),
                Err(reason) => (reason, None),
            };
            self.patience.pause(wait.unwrap_or_else(|| self.jittered(pause))).await;
            pause = pause.saturating_mul(2).min(longest);
            if self.patience.is_past_deadline() {
                return Err(reason);
            }
        }
    }

    /// Between half and all of it, so that those who failed together do not come back together.
    fn jittered(&self, pause: Duration) -> Duration {
        let half = pause / 2;
        let micros = u64::try_from(half.as_micros()).unwrap_or(0);
        half.saturating_add(Duration::from_micros(self.patience.random() % micros.saturating_add(1)))
    }

    async fn send_once(&self, call: &Call<'_>) -> Result<Reply, Silence> {
        let answered = tokio::time::timeout(self.patience.left().min(LONGEST_REQUEST), self.exchange(call)).await;
        let answered = answered.unwrap_or_else(|_| Err("the API server did not answer in time".to_owned()));
        match &answered {
            Ok(reply) if reply.is_final() => self.patience.note_answer(),
            // A server that only says that it cannot answer is not waited for any longer than a silent one.
            Ok(_) => self.patience.note_silence(),
            Err(reason) => {
                tracing::debug!(%reason, method = %call.method, name = call.name, "no answer");
                self.patience.note_silence();
            }
        }
        answered
    }

    async fn exchange(&self, call: &Call<'_>) -> Result<Reply, Silence> {
        let Connected { client, namespace } = self.connected().await?;
        let mut uri = call.resource.path(&namespace);
        if let Some(name) = call.name {
            uri.push('/');
            uri.push_str(name);
        }
        if !call.query.is_empty() {
            uri.push('?');
            uri.push_str(call.query);
        }
        let mut request = Request::builder().method(call.method.clone()).uri(uri);
        request = request.header(header::ACCEPT, "application/json");
        let body = match &call.body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.clone())
            }
            None => Body::empty(),
        };
        let request = request.body(body).map_err(|error| error.to_string())?;
        let response = client.send(request).await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let retry_after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let body = response.into_body().collect_bytes().await.map_err(|error| self.unreachable(&error))?;
        Ok(Reply { status, body: body.to_vec(), retry_after })
    }

    /// The error with its causes, which say what it is.
    fn unreachable(&self, error: &dyn std::error::Error) -> Silence {
        let mut text = format!("the API server of {} cannot be reached: {error}", self.kubeconfig.display());
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        text
    }

    async fn connected(&self) -> Result<Connected, Silence> {
        if let Some(connected) = self.connected.borrow().clone() {
            return Ok(connected);
        }
        let connected = self.connect().await.map_err(|problem| {
            self.patience.wait_at_most(HALF_WRITTEN);
            format!(
                "kubernetes.kubeconfig = {}: {problem}; it is written by whoever deploys this plugin",
                self.kubeconfig.display()
            )
        })?;
        self.connected.replace(Some(connected.clone()));
        Ok(connected)
    }

    async fn connect(&self) -> Result<Connected, String> {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).map_err(|error| with_source(&error))?;
        let current = kubeconfig.current_context.clone().unwrap_or_default();
        let namespace = kubeconfig
            .contexts
            .iter()
            .find(|context| context.name == current)
            .and_then(|context| context.context.as_ref()?.namespace.clone())
            .filter(|namespace| !namespace.is_empty());
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let mut config = config.map_err(|error| with_source(&error))?;
        // Whether and when a request is repeated is decided where its outcome is understood.
        config.default_retry = false;
        config.connect_timeout = Some(LONGEST_CONNECT);
        config.read_timeout = Some(LONGEST_REQUEST);
        config.write_timeout = Some(LONGEST_REQUEST);
        let client = client(config).map_err(|error| with_source(&error))?;
        let namespace = self.namespace.clone().or(namespace).unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        Ok(Connected { client, namespace })
    }
}

/// What the builder of the library makes, but for the connection, which sends at once, and the library's log.
///
/// # Errors
/// What the configuration asks for cannot be had.
fn client(config: kube::Config) -> Result<kube::Client, kube::Error> {
    if config.proxy_url.is_some() {
        return Ok(ClientBuilder::try_from(config)?.build());
    }
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp())?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    let sender = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(sender);
    Ok(kube::Client::new(service, config.default_namespace))
}

/// Connections that send at once what is given to them. Otherwise the first request waits until the server has confirmed
/// the end of the TLS handshake, which it puts off for 40 ms because it has nothing to say to that.
fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp
}

fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) if !error.to_string().contains(&source.to_string()) => format!("{error}: {source}"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tower::Service;

    use super::*;

    #[test]
    fn a_connection_sends_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let stream = runtime.block_on(tcp().call(uri)).unwrap();
        assert!(stream.inner().nodelay().unwrap());
    }
}
