//! A web server that is slow, truncates responses, fails, or changes files.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data::{DataConfig, Dataset, open};

/// What is wrong with the server. A count is the number of faulty responses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    /// Answers with 503.
    Busy(usize),
    /// Answers this many requests, and with 503 from then on.
    BusyAfter(usize),
    /// Closes the connection in the middle of the body.
    Cut(usize),
    /// Sends the beginning of a body, but never the rest.
    Slow(usize),
    /// Answers with 403 instead of 404, as S3 does for users without the right to list objects.
    Secretive,
    /// Sends the whole file, whatever range is requested.
    NoRanges,
}

/// How the server treats ETags.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tags {
    Strong,
    /// Marked as weak, and thus never matching an `If-Match`.
    Weak,
    /// Strong, but the server ignores `If-Match`.
    Unasked,
    /// The server sends no ETag.
    Absent,
}

/// A server on this machine, at `address`.
pub struct Server {
    pub address: String,
    pub tags: Arc<Mutex<Tags>>,
    pub files: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    pub fault: Arc<Mutex<Fault>>,
    pub requests: Arc<AtomicUsize>,
}

impl Server {
    pub fn start(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = Self {
            address,
            tags: Arc::new(Mutex::new(Tags::Strong)),
            files: Arc::default(),
            fault: Arc::new(Mutex::new(Fault::None)),
            requests: Arc::default(),
        };
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            let name = format!("/data/{}", entry.file_name().to_string_lossy());
            server.files.lock().unwrap().insert(name, std::fs::read(entry.path()).unwrap());
        }
        let (files, fault) = (server.files.clone(), server.fault.clone());
        let tags = server.tags.clone();
        let requests = server.requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, fault, tags) = (files.clone(), fault.clone(), tags.clone());
                requests.fetch_add(1, Ordering::Relaxed);
                // The client may hang up early, so errors are ignored.
                std::thread::spawn(move || {
                    let tags = *tags.lock().unwrap();
                    answer(stream, &files, &fault, tags).ok()
                });
            }
        });
        server
    }

    pub fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    pub fn config(&self, path: &str) -> DataConfig {
        DataConfig {
            path: Some(format!("{}{path}", self.address)),
            remote_retries: 2,
            remote_timeout_s: 20.0,
            ..DataConfig::default()
        }
    }

    /// Opens `path` with a time limit that is shorter than a slow response.
    pub fn open_impatient(&self, path: &str) -> data::Result<Dataset> {
        open(&DataConfig { remote_timeout_s: 1.0, ..self.config(path) })
    }

    pub fn open(&self, path: &str) -> data::Result<Dataset> {
        open(&self.config(path))
    }
}

/// A request, with the names of its headers in lower case.
struct Request {
    method: String,
    path: String,
    headers: HashMap<String, String>,
}

impl Request {
    fn read(stream: &TcpStream) -> std::io::Result<Self> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
        let mut headers = HashMap::new();
        for line in lines {
            let line = line?;
            match line.split_once(": ") {
                Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
                None => break,
            };
        }
        let mut parts = first.split(' ');
        let (method, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let path = target.split('?').next().unwrap_or_default();
        Ok(Self { method: method.to_owned(), path: path.to_owned(), headers })
    }

    fn range(&self) -> Option<Range<usize>> {
        let (first, last) =
            self.headers.get("range")?.trim_start_matches("bytes=").split_once('-').unwrap();
        Some(first.parse().unwrap()..last.parse::<usize>().unwrap() + 1)
    }
}

/// Returns the fault of this response, and counts it.
fn next_fault(fault: &Mutex<Fault>) -> Fault {
    let mut fault = fault.lock().unwrap();
    let now = *fault;
    match &mut *fault {
        Fault::Busy(left) | Fault::Cut(left) | Fault::Slow(left) => {
            *left = left.saturating_sub(1);
            if *left == 0 {
                *fault = Fault::None;
            }
        }
        Fault::BusyAfter(left) => *left = left.saturating_sub(1),
        Fault::None | Fault::NoRanges | Fault::Secretive => {}
    }
    now
}

/// Answers the one request of a connection.
fn answer(
    mut stream: TcpStream,
    files: &Mutex<HashMap<String, Vec<u8>>>,
    fault: &Mutex<Fault>,
    tags: Tags,
) -> std::io::Result<()> {
    let request = Request::read(&stream)?;
    let fault = next_fault(fault);
    let refuse = |mut stream: TcpStream, status: &str| {
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    };
    let Some(bytes) = files.lock().unwrap().get(&request.path).cloned() else {
        let secretive = fault == Fault::Secretive;
        return refuse(stream, if secretive { "403 Forbidden" } else { "404 Not Found" });
    };
    let mark = if tags == Tags::Weak { "W/" } else { "" };
    let tag = format!("{mark}\"{}\"", crc32fast::hash(&bytes));
    let differs = |wanted: &String| *wanted != tag || tags == Tags::Weak;
    if request.headers.get("if-match").is_some_and(differs) && tags != Tags::Unasked {
        return refuse(stream, "412 Precondition Failed");
    }
    if matches!(fault, Fault::Busy(_) | Fault::BusyAfter(0)) {
        return refuse(stream, "503 Service Unavailable");
    }
    let tag = if tags == Tags::Absent { String::new() } else { format!("ETag: {tag}\r\n") };
    let range = request.range().filter(|_| fault != Fault::NoRanges);
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    let range = range.unwrap_or(0..bytes.len());
    let body = &bytes[range.clone()];
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Range: bytes {}-{}/{}\r\n\
         {tag}Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT\r\nConnection: close\r\n\r\n",
        body.len(),
        range.start,
        range.end.max(1) - 1,
        bytes.len(),
    )?;
    if request.method == "HEAD" { Ok(()) } else { send(stream, body, fault) }
}

fn send(mut stream: TcpStream, body: &[u8], fault: Fault) -> std::io::Result<()> {
    match fault {
        Fault::Cut(_) => stream.write_all(&body[..body.len() / 2]),
        Fault::Slow(_) => {
            stream.write_all(&body[..body.len() / 2])?;
            stream.flush()?;
            // Wait until the client gives up and hangs up.
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            stream.read(&mut [0]).map(drop)
        }
        _ => stream.write_all(body),
    }
}
