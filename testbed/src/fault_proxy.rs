//! Faults between a client and the API server.
//!
//! The proxy speaks HTTP/1.1 to the client, with TLS or without, and hands the requests on to the server. Requests are
//! read to their end before they go on; replies flow through as they come, so a watch works. Upgraded connections (exec,
//! port forwarding) do not.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use fastrand::Rng;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderName, RETRY_AFTER, TRANSFER_ENCODING,
};
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, Scheme};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use parking_lot::{Condvar, Mutex};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use crate::ControlPlane;
use crate::http::{Client, client, runtime, server_config};

/// An HTTP server on a loopback port that hands requests on, but for the faults that its rules ask for. Rules may be
/// changed while it runs. What is under way when it is dropped is cut off, and what was to land late never does.
#[derive(Debug)]
pub struct FaultProxy {
    url: String,
    shared: Arc<Shared>,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// The server gets the request and answers; then the connection is cut, and the client never learns of it.
    DropReply,
    /// The connection is cut before the server gets anything.
    DropRequest,
    /// The request waits for so long, then it passes. A client that gives up meanwhile takes its request along.
    Delay(Duration),
    /// The connection is cut at once, and the server gets the request so much later.
    LandLate(Duration),
    /// The connection stays open and the client hears nothing, until it gives up.
    Silence {
        /// When the server gets the request, whether the client is still there or not; `None` is never.
        lands_after: Option<Duration>,
    },
    /// The server gets the request and answers to the end, which a watch never does; then the connection is cut in the
    /// middle of the reply's body.
    Cut,
    /// The server gets the request and answers; the client gets the status, and a body that says nothing.
    Garble,
    /// The client is told to come again later (429). The server gets nothing.
    TooManyRequests {
        /// What the header `Retry-After` says.
        retry_after_seconds: u64,
    },
    /// The client is answered with this status, and the server gets nothing.
    ServerError(u16),
    /// The client is answered as by an API server that has no such resource, an older one perhaps (404, and no object that
    /// says what is missing). The server gets nothing.
    Undefined,
}

/// Which requests a fault happens to. Of the rules that match, the first one that was added decides.
#[derive(Debug, Clone)]
pub struct Rule {
    method: Option<String>,
    path: Option<String>,
    body: Option<String>,
    /// Matches that still pass to later rules.
    skip: usize,
    /// Matches that are still decided here; `None` is all.
    left: Option<usize>,
    /// Each with its probability.
    faults: Vec<(f64, Fault)>,
    rng: Rng,
}

/// A request that reached the proxy.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When it was read to its end.
    pub at: Instant,
    /// In capitals.
    pub method: String,
    /// With the query.
    pub path: String,
    /// Of the request's body.
    pub bytes_up: u64,
    /// Of the reply's body, as far as it was given to the client.
    pub bytes_down: u64,
    /// What happened to it, if anything did.
    pub fault: Option<Fault>,
    /// Whether it was handed to the server. It may have done its work there although no answer came.
    pub handed_on: bool,
    /// The status by which the server answered. `None`: it did not answer, or has not yet.
    pub served: Option<u16>,
    /// The status that the client got. `None`: it was cut off, or waits.
    pub status: Option<u16>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    scheme: Scheme,
    authority: Authority,
    state: Mutex<State>,
    /// Whenever a request was seen or something became known of one.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    seen: Vec<Seen>,
    /// How many were seen before those of `seen` and are forgotten.
    forgotten: usize,
}

/// A request's place among all that were ever seen.
#[derive(Debug, Clone, Copy)]
struct Ticket(usize);

/// The reason for which a connection is cut.
#[derive(Debug)]
struct CutOff;

type AnyError = Box<dyn Error + Send + Sync>;
type Reply = Response<UnsyncBoxBody<Bytes, AnyError>>;

/// The first half of a body; then the connection is cut.
#[derive(Debug)]
struct Half {
    bytes: Option<Bytes>,
    sent: bool,
}

// === impl FaultProxy ===

impl FaultProxy {
    /// A proxy before the API server, which clients reach with TLS: it shows them the certificate of the API server.
    ///
    /// # Errors
    ///
    /// Says in words for people why nobody can listen here.
    pub fn before(control_plane: &ControlPlane) -> Result<Self, String> {
        Self::before_on(control_plane, loopback_port()?)
    }

    /// The same on a socket of 127.0.0.1 that somebody has made: one in another network namespace serves who is there.
    pub(crate) fn before_on(control_plane: &ControlPlane, listener: StdListener) -> Result<Self, String> {
        let (certificate, key) = control_plane.serving_certificate();
        let tls = TlsAcceptor::from(Arc::new(server_config(certificate, key)?));
        Self::listen(&control_plane.url(), Some(control_plane.ca()), Some(tls), listener)
    }

    /// A proxy before an HTTP server, with TLS (`https://…`, vouched for by the authority `ca`) or without. Clients reach
    /// the proxy without; some of them, kubectl among them, then keep their tokens to themselves.
    ///
    /// # Errors
    ///
    /// Says in words for people what is wrong with the address or the authority, or why nobody can listen here.
    pub fn start(server_url: &str, ca: Option<&Path>) -> Result<Self, String> {
        Self::listen(server_url, ca, None, loopback_port()?)
    }

    fn listen(
        server_url: &str,
        ca: Option<&Path>,
        tls: Option<TlsAcceptor>,
        listener: StdListener,
    ) -> Result<Self, String> {
        let server: Uri = server_url.parse().map_err(|error| format!("{server_url}: {error}"))?;
        let parts = server.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(format!("{server_url} is not the address of a server"));
        };
        let (client, state, changed) = (client(ca)?, Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { client, scheme, authority, state, changed });
        let address = listener.local_addr().map_err(|error| nobody_listens(&error))?;
        listener.set_nonblocking(true).map_err(|error| nobody_listens(&error))?;
        let url = format!("{}://{address}", if tls.is_some() { "https" } else { "http" });
        let runtime = runtime("fault-proxy")?;
        runtime.spawn(listen(listener, tls, Arc::clone(&shared)));
        Ok(Self { url, shared, runtime: Some(runtime) })
    }

    /// Where it is, for a kubeconfig.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Adds a rule behind those that are there.
    pub fn add(&self, rule: Rule) {
        self.shared.state.lock().rules.push(rule);
    }

    /// Puts these rules in place of those that are there.
    pub fn set(&self, rules: impl IntoIterator<Item = Rule>) {
        self.shared.state.lock().rules = rules.into_iter().collect();
    }

    /// All requests so far, in the order in which they came.
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.state.lock().seen.clone()
    }

    /// How many requests there were so far of this method, in capitals, with this part of the path.
    pub fn count(&self, method: &str, path: &str) -> usize {
        self.shared.state.lock().seen.iter().filter(|seen| seen.method == method && seen.path.contains(path)).count()
    }

    /// Forgets the requests, and keeps the rules. What is under way goes on.
    pub fn clear_requests(&self) {
        self.shared.state.lock().forget();
    }

    /// Forgets the rules and the requests. What is under way goes on.
    pub fn clear(&self) {
        let mut state = self.shared.state.lock();
        state.rules.clear();
        state.forget();
    }

    /// Waits until something is true of the requests, for as long as `time_limit`. Says whether it is.
    #[must_use]
    pub fn wait_until(&self, time_limit: Duration, mut is_true: impl FnMut(&[Seen]) -> bool) -> bool {
        let mut state = self.shared.state.lock();
        !self.shared.changed.wait_while_for(&mut state, |state| !is_true(&state.seen), time_limit).timed_out()
    }
}

/// What an API server says of a resource that it does not know.
pub const UNDEFINED: &str = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the server could not find the requested resource","reason":"NotFound","details":{},"code":404}"#;

/// A socket on which a proxy can listen.
pub(crate) fn loopback_port() -> Result<StdListener, String> {
    StdListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| nobody_listens(&error))
}

fn nobody_listens(error: &std::io::Error) -> String {
    format!("nobody can listen on a loopback port: {error}")
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        // Not by waiting, which panics in a test that has a runtime of its own.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

// === impl Rule ===

impl Rule {
    /// This fault for every request.
    pub fn new(fault: Fault) -> Self {
        Self::random(0, [(1.0, fault)])
    }

    /// One of these faults for every request, each with its probability (0 to 1, together at most 1); else the request
    /// passes, and no later rule is asked. The same seed draws the same for the same order of requests.
    ///
    /// # Panics
    ///
    /// When the probabilities are more than 1.
    #[track_caller]
    pub fn random(seed: u64, faults: impl IntoIterator<Item = (f64, Fault)>) -> Self {
        let faults: Vec<_> = faults.into_iter().collect();
        let sum: f64 = faults.iter().map(|(probability, _)| probability).sum();
        assert!(sum <= 1.0 + f64::EPSILON, "probabilities add up to at most 1: {faults:?}");
        Self { method: None, path: None, body: None, skip: 0, left: None, faults, rng: Rng::with_seed(seed) }
    }

    /// Only for this method, in capitals.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only where this is a part of the path with its query.
    #[must_use]
    pub fn path(mut self, part: &str) -> Self {
        self.path = Some(part.to_owned());
        self
    }

    /// Only where this is a part of the request's body: of a POST, the body alone names the object.
    #[must_use]
    pub fn body(mut self, part: &str) -> Self {
        self.body = Some(part.to_owned());
        self
    }

    /// Not for the first so many that match.
    #[must_use]
    pub fn after(mut self, matches: usize) -> Self {
        self.skip = matches;
        self
    }

    /// Only for so many that match.
    #[must_use]
    pub fn times(mut self, matches: usize) -> Self {
        self.left = Some(matches);
        self
    }

    /// What this rule says of a request: `None` when nothing, else what happens to it, if anything.
    fn judge(&mut self, method: &str, path: &str, body: &[u8]) -> Option<Option<Fault>> {
        let matches = self.method.as_deref().is_none_or(|wanted| wanted == method)
            && self.path.as_deref().is_none_or(|wanted| path.contains(wanted))
            && self.body.as_deref().is_none_or(|wanted| String::from_utf8_lossy(body).contains(wanted));
        if !matches || self.left == Some(0) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.left = self.left.map(|left| left - 1);
        let mut drawn = self.rng.f64();
        let hit = self.faults.iter().find(|(probability, _)| {
            drawn -= probability;
            drawn < 0.0
        });
        Some(hit.map(|(_, fault)| fault.clone()))
    }
}

// === impl State ===

impl State {
    fn forget(&mut self) {
        self.forgotten += self.seen.len();
        self.seen.clear();
    }
}

// === impl Shared ===

impl Shared {
    /// Notes a request, and says what happens to it.
    fn see(&self, head: &Parts, body: &[u8]) -> (Ticket, Option<Fault>) {
        let method = head.method.as_str().to_owned();
        let path = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
        let mut state = self.state.lock();
        let fault = state.rules.iter_mut().find_map(|rule| rule.judge(&method, &path, body)).flatten();
        let ticket = Ticket(state.forgotten + state.seen.len());
        state.seen.push(Seen {
            at: Instant::now(),
            method,
            path,
            bytes_up: body.len() as u64,
            bytes_down: 0,
            fault: fault.clone(),
            handed_on: false,
            served: None,
            status: None,
        });
        drop(state);
        self.changed.notify_all();
        (ticket, fault)
    }

    /// Notes what became of a request, unless it is forgotten.
    fn note(&self, ticket: Ticket, change: impl FnOnce(&mut Seen)) {
        let mut state = self.state.lock();
        if let Some(place) = ticket.0.checked_sub(state.forgotten)
            && let Some(seen) = state.seen.get_mut(place)
        {
            change(seen);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Hands a request to the server.
    async fn hand_on(&self, ticket: Ticket, mut head: Parts, body: Bytes) -> Result<Response<Incoming>, CutOff> {
        let mut to = head.uri.into_parts();
        (to.scheme, to.authority) = (Some(self.scheme.clone()), Some(self.authority.clone()));
        head.uri = Uri::from_parts(to).map_err(|_| CutOff)?;
        // What concerns one connection is for the client of the other to say.
        for name in [HOST, CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH, EXPECT] {
            head.headers.remove(name);
        }
        self.note(ticket, |seen| seen.handed_on = true);
        let reply = self.client.request(Request::from_parts(head, Full::new(body))).await;
        let mut reply = reply.map_err(|error| {
            // A server that is not there cuts nobody off, it lets nobody in; from behind a proxy that looks alike.
            self.note(ticket, |seen| seen.handed_on = !error.is_connect());
            CutOff
        })?;
        for name in [CONNECTION, TRANSFER_ENCODING, HeaderName::from_static("keep-alive")] {
            reply.headers_mut().remove(name);
        }
        Ok(reply)
    }

    /// Hands a request to the server and waits for the end of its reply, whatever becomes of the client.
    async fn hand_on_alone(
        self: &Arc<Self>,
        delay: Duration,
        ticket: Ticket,
        head: Parts,
        body: Bytes,
    ) -> Result<Response<Bytes>, CutOff> {
        let shared = Arc::clone(self);
        let alone = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let (head, body) = shared.hand_on(ticket, head, body).await?.into_parts();
            let body = body.collect().await.map_err(|_| CutOff)?.to_bytes();
            shared.note(ticket, |seen| seen.served = Some(head.status.as_u16()));
            Ok(Response::from_parts(head, body))
        });
        alone.await.map_err(|_| CutOff)?
    }

    async fn pass(self: Arc<Self>, ticket: Ticket, head: Parts, body: Bytes) -> Result<Reply, CutOff> {
        let reply = self.hand_on(ticket, head, body).await?;
        let status = reply.status().as_u16();
        self.note(ticket, |seen| (seen.served, seen.status) = (Some(status), Some(status)));
        let count = move |frame: Frame<Bytes>| {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            self.note(ticket, |seen| seen.bytes_down += bytes as u64);
            frame
        };
        Ok(reply.map(|body| body.map_frame(count).map_err(AnyError::from).boxed_unsync()))
    }

    /// An answer as the API server gives it, by one that is no API server.
    fn refuse(
        &self,
        ticket: Ticket,
        code: u16,
        reason: &str,
        retry_after_seconds: Option<u64>,
    ) -> Result<Reply, CutOff> {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
            "message": "the proxy of a test answers this by itself",
            "details": { "retryAfterSeconds": retry_after_seconds.unwrap_or(0) },
        });
        let body = Bytes::from(status.to_string());
        self.note(ticket, |seen| (seen.status, seen.bytes_down) = (Some(code), body.len() as u64));
        let mut reply = Response::builder()
            .status(StatusCode::from_u16(code).map_err(|_| CutOff)?)
            .header(CONTENT_TYPE, "application/json");
        if let Some(seconds) = retry_after_seconds {
            reply = reply.header(RETRY_AFTER, seconds);
        }
        reply.body(whole(body)).map_err(|_| CutOff)
    }
}

async fn listen(listener: StdListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("a listener that does not block");
    loop {
        // What fails is one connection, or there are too many of them for a moment.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            match tls {
                None => serve(stream, shared).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => serve(stream, shared).await,
                    Err(_) => { /* A client that trusts another authority, and says so itself. */ }
                },
            }
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let service = service_fn(|request| answer(Arc::clone(&shared), request));
    // Its error is that of a fault, or the client's.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Reply, CutOff> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| CutOff)?.to_bytes();
    let (ticket, fault) = shared.see(&head, &body);
    let Some(fault) = fault else {
        return shared.pass(ticket, head, body).await;
    };
    match fault {
        Fault::DropReply => {
            shared.hand_on_alone(Duration::ZERO, ticket, head, body).await?;
            Err(CutOff)
        }
        Fault::DropRequest => Err(CutOff),
        Fault::Delay(delay) => {
            tokio::time::sleep(delay).await;
            shared.pass(ticket, head, body).await
        }
        Fault::LandLate(delay) => {
            tokio::spawn(async move { shared.hand_on_alone(delay, ticket, head, body).await });
            Err(CutOff)
        }
        Fault::Silence { lands_after } => {
            if let Some(delay) = lands_after {
                tokio::spawn(async move { shared.hand_on_alone(delay, ticket, head, body).await });
            }
            // Until the client's connection ends, and this with it.
            std::future::pending().await
        }
        Fault::Cut => {
            let (mut head, body) = shared.hand_on_alone(Duration::ZERO, ticket, head, body).await?.into_parts();
            let half = body.slice(..body.len() / 2);
            head.headers.insert(CONTENT_LENGTH, body.len().into());
            shared
                .note(ticket, |seen| (seen.status, seen.bytes_down) = (Some(head.status.as_u16()), half.len() as u64));
            Ok(Response::from_parts(head, Half { bytes: Some(half), sent: false }.boxed_unsync()))
        }
        Fault::Garble => {
            let (mut head, _) = shared.hand_on_alone(Duration::ZERO, ticket, head, body).await?.into_parts();
            let nothing = Bytes::from_static(b"{}");
            head.headers.insert(CONTENT_LENGTH, nothing.len().into());
            let bytes = nothing.len() as u64;
            shared.note(ticket, |seen| (seen.status, seen.bytes_down) = (Some(head.status.as_u16()), bytes));
            Ok(Response::from_parts(head, whole(nothing)))
        }
        Fault::TooManyRequests { retry_after_seconds } => {
            shared.refuse(ticket, 429, "TooManyRequests", Some(retry_after_seconds))
        }
        Fault::ServerError(code) => shared.refuse(ticket, code, "InternalError", None),
        Fault::Undefined => {
            let body = Bytes::from_static(UNDEFINED.as_bytes());
            shared.note(ticket, |seen| (seen.status, seen.bytes_down) = (Some(404), body.len() as u64));
            let reply = Response::builder().status(StatusCode::NOT_FOUND).header(CONTENT_TYPE, "application/json");
            reply.body(whole(body)).map_err(|_| CutOff)
        }
    }
}

fn whole(bytes: Bytes) -> UnsyncBoxBody<Bytes, AnyError> {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}

// === impl Half ===

impl Body for Half {
    type Data = Bytes;
    type Error = AnyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnyError>>> {
        if let Some(bytes) = self.bytes.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if !self.sent {
            // Nothing to send for now: the connection is flushed before it asks again.
            self.sent = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(CutOff.into())))
    }
}

// === impl CutOff ===

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is cut")
    }
}

impl Error for CutOff {}
