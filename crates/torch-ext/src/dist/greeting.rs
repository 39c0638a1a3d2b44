//! Checks whether the listener at an address is a store.
//!
//! c10d's client waits forever for a listener that is not a store, and prints pages of stack
//! frames if nothing listens. Therefore, this process first sends the greeting of that client over
//! its own connection, which has a deadline.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::ffi;

/// Pause between two rounds over the addresses of a host.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for a connection to one address, so that the others are tried, too.
const ONE_ADDRESS: Duration = Duration::from_secs(10);

/// Why no store was found, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoStore {
    /// A clause that describes the listener.
    pub what: String,
    /// A question that helps to find the cause.
    pub advice: &'static str,
}

/// The response of an address to the greeting.
enum Answer {
    Store,
    /// Nothing that responds yet; a store may come later.
    NotYet(NoStore),
    /// Something that is not a store.
    Stranger(NoStore),
}

/// Waits until a store responds at the address.
///
/// # Errors
/// Returns an error if something other than a store responds, or if nothing does before the
/// deadline.
pub(super) fn wait_for_store(host: &str, port: u16, deadline: Instant) -> Result<(), NoStore> {
    loop {
        let mut last = None;
        match addresses(host, port, deadline) {
            Err(reason) => last = Some(reason),
            Ok(addresses) => {
                for address in addresses {
                    match greet(address, deadline) {
                        Answer::Store => return Ok(()),
                        Answer::Stranger(reason) => return Err(reason),
                        Answer::NotYet(reason) => last = Some(reason),
                    }
                }
            }
        }
        if let Some(reason) = last.filter(|_| Instant::now() + PAUSE >= deadline) {
            return Err(reason);
        }
        thread::sleep(PAUSE);
    }
}

/// Checks whether this process can listen on a port.
///
/// # Errors
/// Returns the reason if it cannot.
pub(super) fn free_to_listen(port: u16) -> Result<(), NoStore> {
    // Bind as the store does: on IPv6 and IPv4 at once, or else on IPv4 alone.
    let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
    let listened = match both {
        Err(error) if error.kind() != ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        }
        listened => listened,
    };
    listened.map(drop).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => {
            stranger("another program is already listening on this port".into())
        }
        _ => NoStore {
            what: format!("this process cannot listen on port {port}: {error}"),
            advice: "choose another MASTER_PORT",
        },
    })
}

fn stranger(what: String) -> NoStore {
    NoStore { what, advice: "does another program use this port? choose another MASTER_PORT" }
}

fn absent(what: String) -> NoStore {
    NoStore { what, advice: "is process 0 running, and is MASTER_ADDR its machine?" }
}

/// Resolves the addresses of a host. The system resolver has no deadline, so it runs in a thread,
/// which is abandoned if it takes too long.
fn addresses(host: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, NoStore> {
    let (send, receive) = mpsc::channel();
    let name = host.to_owned();
    let resolve = move || {
        let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        let _ = send.send(found); // fails after the deadline, when the receiver is gone
    };
    let started = thread::Builder::new().name("resolve".into()).spawn(resolve);
    started.map_err(|error| absent(format!("cannot resolve {host}: {error}")))?;
    match receive.recv_timeout(left(deadline)) {
        Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Ok(Ok(_)) => Err(absent(format!("{host} has no address"))),
        Ok(Err(error)) => Err(absent(format!("{host} has no address: {error}"))),
        Err(_) => Err(absent(format!("resolving {host} takes too long"))),
    }
}

fn greet(address: SocketAddr, deadline: Instant) -> Answer {
    let stream = TcpStream::connect_timeout(&address, left(deadline).min(ONE_ADDRESS));
    let answered = stream.map_err(|error| absent(format!("cannot connect: {error}")));
    match answered.map(|stream| converse(stream, deadline)) {
        Ok(answer) => answer,
        Err(reason) => Answer::NotYet(reason),
    }
}

/// Sends the greeting of c10d's client, and reads the response.
fn converse(mut stream: TcpStream, deadline: Instant) -> Answer {
    let nonce = nonce();
    let mut heard = Vec::new();
    let mut talk = || -> std::io::Result<()> {
        stream.set_write_timeout(Some(left(deadline)))?;
        stream.write_all(&ffi::store_greeting(u32::from_ne_bytes(nonce)))?;
        while heard.len() < nonce.len() {
            stream.set_read_timeout(Some(left(deadline)))?;
            let mut bytes = [0; 4];
            match stream.read(&mut bytes[..nonce.len() - heard.len()])? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => heard.extend_from_slice(&bytes[..count]),
            }
        }
        Ok(())
    };
    let talked = talk();
    if heard == nonce {
        return Answer::Store;
    }
    match talked.map_err(|error| error.kind()) {
        _ if !heard.is_empty() => {
            let words = heard.escape_ascii();
            Answer::Stranger(stranger(format!(
                "the program listening there is not a torch store: its reply begins with '{words}'"
            )))
        }
        Err(ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Answer::NotYet(stranger("the program listening there does not reply".into()))
        }
        _ => Answer::NotYet(stranger("the program listening there closes the connection".into())),
    }
}

/// Returns four bytes that another program will not send by chance or by echoing its input.
fn nonce() -> [u8; 4] {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let [a, b, c, d] = (since.subsec_nanos() ^ std::process::id().rotate_left(16)).to_ne_bytes();
    [a | 0x80, b, c, d] // unlike the greeting, which begins with 0
}

/// Returns the time until the deadline; never 0, which sockets reject.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}
