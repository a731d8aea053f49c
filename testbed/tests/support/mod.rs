//! An HTTP server and an HTTP client that show what happens to a connection, byte by byte.

#![allow(unreachable_pub, reason = "a module of test binaries")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a driver of tests that cannot go on ends the test"
)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a client waits for an answer that will come.
const PATIENCE: Duration = Duration::from_secs(20);

/// What `/large` answers.
pub const LARGE: usize = 16 << 20;

/// Answers every request by 200 and a body: its own path, or so much for `/large`. For `/watch` it sends a part, and
/// the next one when the next request of another connection comes.
pub struct Server {
    pub url: String,
    seen: Arc<Inside>,
}

#[derive(Default)]
struct Inside {
    requests: Mutex<Vec<String>>,
    connections: AtomicUsize,
}

/// One connection.
pub struct Client {
    reader: BufReader<TcpStream>,
}

/// What a client learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// All of it.
    Whole { status: u16, head: String, body: Vec<u8> },
    /// The connection ended when so much of the body was there.
    CutAfter { of: usize, body: Vec<u8> },
    /// The connection ended before anything came.
    Nothing,
    /// Nothing came, and the connection stayed open.
    Silence,
}

// === impl Server ===

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::<Inside>::default();
        let inside = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, inside) = (stream.unwrap(), Arc::clone(&inside));
                inside.connections.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || serve(stream, &inside));
            }
        });
        Self { url, seen }
    }

    /// Every request that came, as `METHOD path body`.
    pub fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }
}

fn serve(stream: TcpStream, inside: &Inside) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let head = read_head(&mut reader)?;
        let mut body = vec![0; content_length(&head).unwrap_or(0)];
        reader.read_exact(&mut body).ok()?;
        let mut words = head.split(' ');
        let (method, path) = (words.next()?, words.next()?);
        inside.requests.lock().unwrap().push(format!("{method} {path} {}", String::from_utf8_lossy(&body)));
        if path == "/watch" {
            let before = inside.requests.lock().unwrap().len();
            write!(writer, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").ok()?;
            while inside.requests.lock().unwrap().len() == before {
                std::thread::yield_now();
            }
            write!(writer, "6\r\nsecond\r\n0\r\n\r\n").ok()?;
            continue;
        }
        let body = if path == "/large" { large() } else { path.as_bytes().to_vec() };
        write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).ok()?;
        writer.write_all(&body).ok()?;
    }
}

pub fn large() -> Vec<u8> {
    (0..LARGE).map(|place| (place % 251) as u8).collect()
}

// === impl Client ===

impl Client {
    pub fn connect(url: &str) -> Self {
        let stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    pub fn send(&mut self, method: &str, path: &str, body: &str) {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        // A connection that was cut shows when the answer is read.
        let _ = self.reader.get_mut().write_all(request.as_bytes());
    }

    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> Answer {
        self.send(method, path, body);
        self.answer(PATIENCE)
    }

    pub fn answer(&mut self, patience: Duration) -> Answer {
        self.reader.get_mut().set_read_timeout(Some(patience)).unwrap();
        match self.reader.fill_buf() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Answer::Silence,
            Ok([]) | Err(_) => return Answer::Nothing,
            Ok(_) => {}
        }
        let head = read_head(&mut self.reader).expect("a whole head");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let of = content_length(&head).expect("a length");
        let mut body = Vec::new();
        let _ = (&mut self.reader).take(of as u64).read_to_end(&mut body);
        if body.len() == of { Answer::Whole { status, head, body } } else { Answer::CutAfter { of, body } }
    }

    /// What comes next, byte by byte, until these words.
    pub fn read_until(&mut self, words: &str) -> String {
        self.reader.get_mut().set_read_timeout(Some(PATIENCE)).unwrap();
        let mut read = Vec::new();
        while !read.ends_with(words.as_bytes()) {
            let mut byte = [0];
            self.reader.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error} after {read:?}"));
            read.push(byte[0]);
        }
        String::from_utf8(read).unwrap()
    }
}

// === impl Answer ===

impl Answer {
    #[track_caller]
    pub fn status(&self) -> u16 {
        match self {
            Self::Whole { status, .. } => *status,
            other => panic!("no whole answer: {other:?}"),
        }
    }

    /// The value of a header, named in small letters.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<String> {
        match self {
            Self::Whole { head, .. } => header(head, name),
            other => panic!("no whole answer: {other:?}"),
        }
    }
}

/// `None` when the connection ends.
fn read_head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then(|| value.to_owned())
    })
}

fn content_length(head: &str) -> Option<usize> {
    header(head, "content-length")?.parse().ok()
}
