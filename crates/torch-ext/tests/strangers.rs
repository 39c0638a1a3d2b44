//! Tests addresses at which no store responds: with each kind of real socket, the wait ends in time
//! and with a clear message.

#![allow(clippy::unwrap_used)]

#[path = "support/processes.rs"]
mod processes;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use processes::free_port;
use torch_ext::{ProcessGroup, Rendezvous};

const SHORT: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(60);

/// Returns the error of process 1 of 2 at an address, and how long it took.
fn said(host: &str, port: u16, timeout: Duration) -> (String, Duration) {
    let start = Instant::now();
    let error =
        ProcessGroup::join(Rendezvous::new(host, port, 1, 2, timeout)).unwrap_err().to_string();
    let words =
        format!("process 1 of 2 at {host}:{port}: the rendezvous of all processes failed: ");
    assert!(error.starts_with(&words) && !error.contains('\n'), "{error}");
    (error[words.len()..].to_owned(), start.elapsed())
}

/// Starts a listener that handles each connection with `treat` until the test program ends, and
/// returns its port.
fn listener(treat: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.incoming().flatten().for_each(treat));
    port
}

#[test]
fn an_http_server_is_found_out_at_once() {
    let port = listener(|mut stream| {
        let _ = stream.read(&mut [0; 512]);
        let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
    });
    let (error, took) = said("127.0.0.1", port, LONG);
    assert_eq!(
        error,
        "the program listening there is not a torch store: its reply begins with 'HTTP' (does \
         another program use this port? choose another MASTER_PORT)"
    );
    assert!(took < LONG / 2, "{took:?}");
}

#[test]
fn so_is_one_that_repeats_what_it_hears_and_one_that_says_little() {
    let echo = listener(|mut stream| {
        let mut heard = [0; 10];
        let _ = stream.read_exact(&mut heard);
        let _ = stream.write_all(&heard);
    });
    let brief = listener(|mut stream| {
        let _ = stream.read_exact(&mut [0; 10]);
        let _ = stream.write_all(b"hm");
    });
    for (port, begins) in [(echo, "'\\x00"), (brief, "'hm'")] {
        let (error, took) = said("127.0.0.1", port, LONG);
        let words = "the program listening there is not a torch store: its reply begins with ";
        assert!(error.starts_with(&format!("{words}{begins}")), "{error}");
        assert!(took < LONG / 2, "{took:?}");
    }
}

#[test]
fn a_listener_that_never_answers_is_left_in_time() {
    // The system accepts connections, but no program reads from them.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (error, took) = said("127.0.0.1", listener.local_addr().unwrap().port(), SHORT);
    assert!(error.starts_with("the program listening there does not reply ("), "{error}");
    assert!(SHORT / 2 < took && took < 2 * SHORT, "{took:?}");
}

#[test]
fn a_listener_that_closes_is_left_in_time() {
    let (error, took) = said("127.0.0.1", listener(drop), SHORT);
    assert!(error.starts_with("the program listening there closes the connection ("), "{error}");
    assert!(SHORT / 2 < took && took < 2 * SHORT, "{took:?}");
}

#[test]
fn nobody_is_waited_for_as_long_as_one_may_come() {
    let port = free_port();
    let (error, took) = said("127.0.0.1", port, SHORT);
    assert!(error.starts_with("cannot connect: Connection refused"), "{error}");
    assert!(error.ends_with("(is process 0 running, and is MASTER_ADDR its machine?)"), "{error}");
    assert!(SHORT / 2 < took && took < 2 * SHORT, "{took:?}");
}

#[test]
fn a_host_without_an_address_is_named() {
    let (error, took) = said("no host", free_port(), SHORT);
    assert!(error.starts_with("no host has no address: "), "{error}");
    assert!(took < 2 * SHORT, "{took:?}");
}

#[test]
fn process_0_says_that_its_port_is_taken() {
    for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
        let Ok(taken) = TcpListener::bind(address) else { continue }; // the machine has no IPv6
        let port = taken.local_addr().unwrap().port();
        let start = Instant::now();
        let error = ProcessGroup::join(Rendezvous::new("127.0.0.1", port, 0, 2, LONG)).unwrap_err();
        let error = error.to_string();
        let words = format!(
            "process 0 of 2 at 127.0.0.1:{port}: the rendezvous of all processes failed: another \
             program is already listening on this port ("
        );
        assert!(error.starts_with(&words) && !error.contains('\n'), "{error}");
        assert!(start.elapsed() < LONG / 2);
    }
}

#[test]
fn process_0_says_that_the_others_will_not_find_it() {
    let port = listener(drop);
    let rendezvous =
        Rendezvous { store_is_external: true, ..Rendezvous::new("127.0.0.1", port, 0, 2, SHORT) };
    let error = ProcessGroup::join(rendezvous).unwrap_err().to_string();
    assert!(error.contains("the program listening there closes the connection ("), "{error}");
    let rendezvous = Rendezvous::new("no host", free_port(), 0, 2, SHORT);
    let error = ProcessGroup::join(rendezvous).unwrap_err().to_string();
    assert!(error.contains("no host has no address"), "{error}");
}
