//! HTTP clients: one for the proxy, and one for those who cannot go on before they have an answer.

use std::error::Error;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::http::request::Builder;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::runtime::Runtime;

/// Speaks HTTP/1.1, with TLS to an address that begins with `https`.
pub(crate) type Client = HyperClient<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Asks and waits.
#[derive(Debug)]
pub(crate) struct Asker {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    client: Client,
}

/// A client that trusts this authority and no other.
pub(crate) fn client(ca: Option<&Path>) -> Result<Client, String> {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = ca {
        let in_words = |error: &dyn std::fmt::Display| format!("{}: {error}", ca.display());
        for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| in_words(&error))? {
            let certificate = certificate.map_err(|error| in_words(&error))?;
            roots.add(certificate).map_err(|error| in_words(&error))?;
        }
    }
    // Named, because another crate of the same build may bring another provider.
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().wrap_connector(tcp);
    Ok(HyperClient::builder(TokioExecutor::new()).build(connector))
}

/// A server's side of TLS, for HTTP/1.1.
pub(crate) fn server_config(certificate: &Path, key: &Path) -> Result<ServerConfig, String> {
    let in_words = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).map_err(|error| in_words(certificate, &error))?.collect();
    let chain = chain.map_err(|error| in_words(certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| in_words(key, &error))?;
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| in_words(certificate, &error))
}

/// A runtime of one thread. The tests have one of their own, or none.
pub(crate) fn runtime(name: &str) -> Result<Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))
}

// === impl Asker ===

impl Asker {
    pub(crate) fn new(ca: &Path) -> Result<Self, String> {
        Ok(Self { runtime: Some(runtime("asker")?), client: client(Some(ca))? })
    }

    /// Status and body of the answer to a request without a body, if it comes within `time_limit`.
    pub(crate) fn get(&self, url: &str, token: Option<&str>, time_limit: Duration) -> Result<(u16, String), String> {
        self.ask(request("GET", url, token).body(Full::default()), time_limit)
    }

    /// The same for a request with a JSON body. Its content type is that of a merge patch for PATCH.
    pub(crate) fn send(
        &self,
        method: &str,
        url: &str,
        token: &str,
        body: String,
        time_limit: Duration,
    ) -> Result<(u16, String), String> {
        let content = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = request(method, url, Some(token)).header(CONTENT_TYPE, content);
        self.ask(request.body(Full::from(body)), time_limit)
    }

    fn ask(
        &self,
        request: hyper::http::Result<Request<Full<Bytes>>>,
        time_limit: Duration,
    ) -> Result<(u16, String), String> {
        let request = request.map_err(|error| error.to_string())?;
        let in_words = format!("{} {}", request.method(), request.uri());
        let response = self.client.request(request);
        let asking = async move {
            let response = response.await.map_err(|error| chain(&error))?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.map_err(|error| chain(&error))?;
            Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
        };
        let (answer, answered) = mpsc::sync_channel(1);
        // Not block_on, which panics in a test that has a runtime of its own.
        self.runtime.as_ref().expect("a runtime until the end").spawn(async move {
            let result = tokio::time::timeout(time_limit, asking).await;
            let _ = answer.send(result.unwrap_or_else(|_| Err(format!("no answer within {time_limit:?}"))));
        });
        let answer = answered.recv().map_err(|error| error.to_string())?;
        answer.map_err(|error: String| format!("{in_words}: {error}"))
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        // Not by waiting, which panics in a test that has a runtime of its own.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn request(method: &str, url: &str, token: Option<&str>) -> Builder {
    let request = Request::builder().method(method).uri(url);
    match token {
        Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
        None => request,
    }
}

/// An error with its causes: the client's own words leave them out.
fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(&format!(": {error}"));
        cause = error.source();
    }
    words
}
