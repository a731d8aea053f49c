//! The least that a client can do to ask an API server: one connection with TLS, one request after the other, nothing
//! shared and nothing in the background. It is part of a floor, so it must not be slower than any plugin's.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// More than any object has.
const MOST_BYTES: u64 = 16 << 20;

/// A server that does not answer for so long is not measured.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to an API server.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
    address: String,
    token: String,
}

/// Status and body of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

// === impl Connection ===

impl Connection {
    /// Connects to `HOST:PORT`, whose certificate the authority in the PEM file `ca` vouches for, as the bearer of a token.
    ///
    /// # Errors
    ///
    /// When there is nobody, or somebody else.
    pub fn open(address: &str, ca: &Path, token: String) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&fs::read(ca)?).context("no certificate")?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (host, _) = address.rsplit_once(':').context("an address is HOST:PORT")?;
        let tls = ClientConnection::new(Arc::new(config), ServerName::try_from(host.to_owned())?)?;
        let tcp = TcpStream::connect(address)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(StreamOwned::new(tls, tcp)), address: address.to_owned(), token })
    }

    /// Sends a request and waits for the answer.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn ask(&mut self, method: &str, path: &str, body: Option<&[u8]>) -> Result<Answer> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nAccept: application/json\r\n",
            self.address, self.token
        );
        if let Some(body) = body {
            request.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body.unwrap_or_default());
        let stream = self.stream.get_mut();
        stream.write_all(&bytes)?;
        stream.flush()?;
        read_answer(&mut self.stream)
    }
}

/// Reads an answer whose length is known, or that comes in chunks; others end with their connection.
fn read_answer(from: &mut impl BufRead) -> Result<Answer> {
    let status = line(from)?;
    let code = status.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = code.with_context(|| format!("no answer in HTTP/1.1: {status}"))?;
    let (mut length, mut in_chunks) = (None, false);
    loop {
        let header = line(from)?.to_ascii_lowercase();
        match header.split_once(':').map(|(name, value)| (name, value.trim())) {
            Some(("content-length", value)) => length = Some(value.parse().context("a length")?),
            Some(("transfer-encoding", value)) => in_chunks = value.ends_with("chunked"),
            Some(_) => {}
            None if header.is_empty() => break,
            None => bail!("no header: {header}"),
        }
    }
    let mut body = Vec::new();
    match length {
        Some(length) => read_exactly(from, length, &mut body)?,
        None if in_chunks => loop {
            let size = line(from)?;
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).context("the size of a chunk")?;
            read_exactly(from, size, &mut body)?;
            // Behind the last chunk, of size 0, stand no trailers that anybody asked for.
            ensure!(line(from)?.is_empty(), "a chunk is longer than it says");
            if size == 0 {
                break;
            }
        },
        None => bail!("an answer whose length nobody knows"),
    }
    Ok(Answer { status, body })
}

/// A line without its end.
fn line(from: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    from.take(64 << 10).read_line(&mut line)?;
    let whole = line.strip_suffix('\n').context("the answer was cut off")?;
    Ok(whole.strip_suffix('\r').unwrap_or(whole).to_owned())
}

fn read_exactly(from: &mut impl BufRead, count: u64, body: &mut Vec<u8>) -> Result<()> {
    ensure!(count <= MOST_BYTES && body.len() as u64 <= MOST_BYTES, "the answer is too long");
    let read = from.take(count).read_to_end(body)?;
    ensure!(read as u64 == count, "the answer was cut off");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Answer> {
        read_answer(&mut text.as_bytes())
    }

    #[test]
    fn answers_of_known_length_and_in_chunks_are_read() {
        let expected = Answer { status: 200, body: b"hello".to_vec() };
        assert_eq!(read("HTTP/1.1 200 OK\r\nDate: today\r\nContent-Length: 5\r\n\r\nhello").unwrap(), expected);
        let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n";
        assert_eq!(read(chunks).unwrap(), expected);
        assert_eq!(read("HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n").unwrap().status, 409);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for wrong in [
            "",
            "HTTP/1.0 200 OK\r\n\r\n",
            "HTTP/1.1 \u{e9}\r\n\r\n",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nno header\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nhello",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
