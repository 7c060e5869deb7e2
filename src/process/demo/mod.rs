//! `--demo`: two small HTTP/1 servers as backends, so that the balancer can be tried without other software.
//! Each is a process of its own and answers every request with a JSON description of the request.
//!
//! Their memory has no keys. They are simple: blocking, with a thread for each connection, and a limited number of
//! threads. They die with the process that forked them. A killed one is not replaced, which shows the reaction of the balancer.

mod account;
mod request;

use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::config;
use crate::limits::{DEMO_CONNECTIONS, DEMO_IDLE_US};
use crate::log::Level;
use crate::process::child::begin_child;
use crate::process::exit::{FAILED, Failure};
use crate::process::journal::Journal;
use crate::process::start::account::Account;
use crate::sys::fork::{self, Fork, Pid};
use crate::sys::{signal, user};
use request::Request;

/// The stack of a demo backend's thread: far more than it needs.
const STACK_BYTES: usize = 256 * 1024;

/// The backends before they are processes: they have their ports.
pub(super) struct Backends {
    backends: Vec<Backend>,
}

/// One backend.
pub(super) struct Backend {
    name: &'static str,
    listener: TcpListener,
    address: SocketAddr,
    parent: Pid,
}

impl Backends {
    /// Takes a free loopback port for each.
    pub(super) fn open() -> Result<Backends, Failure> {
        let parent = fork::current();
        let open = |name| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = listener.local_addr()?;
            Ok(Backend { name, listener, address, parent })
        };
        let backends = ["one", "two"].into_iter().map(open).collect::<io::Result<Vec<Backend>>>();
        Ok(Backends { backends: backends.map_err(Failure::of("listen for the demo's backends"))? })
    }

    /// The backends for the balancer's configuration.
    pub(super) fn configured(&self) -> Vec<config::Backend> {
        self.backends.iter().map(|backend| config::Backend::at(backend.address)).collect()
    }

    /// Forks a process for each. In such a child: the backend that it is.
    pub(super) fn start(self, journal: &mut Journal) -> io::Result<Option<Backend>> {
        for backend in self.backends {
            match fork::fork()? {
                Fork::Child => return Ok(Some(backend)),
                Fork::Parent(pid) => {
                    let Backend { name, address, .. } = backend;
                    journal.line(Level::Info, "demo", format_args!("backend {name} is {address} (pid {pid})"));
                }
            }
        }
        Ok(None)
    }
}

impl Backend {
    /// Serves until it is killed, as this account if there is one. Returns an exit status if it could not start.
    pub(super) fn serve(self, account: Option<Account>) -> u8 {
        // A change of the account forgets that the process dies with its parent.
        let changed = account.map_or(Ok(()), |account| user::become_account(account.uid, account.gid));
        let begun = changed.and_then(|()| begin_child(self.parent, &format!("lb demo {}", self.name)));
        if begun.and_then(|()| signal::end_on_terminate()).is_err() {
            return FAILED;
        }
        let seats = Arc::new(Seats::default());
        loop {
            let seat = seats.take();
            let Ok((stream, _)) = self.listener.accept() else {
                // Out of descriptors, or a client that left: neither calls for haste.
                thread::sleep(Duration::from_millis(10));
                continue;
            };
            let name = self.name;
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            // Without a thread the connection is closed, and its seat free again, right here.
            let _ = thread.spawn(move || {
                let _ = converse(name, &stream, &seat);
                // Later data of the client must not reset the connection before it has read the response.
                let _ = stream.shutdown(Shutdown::Write);
                let _ = io::copy(&mut io::Read::take(&stream, 64 * 1024), &mut io::sink());
            });
        }
    }
}

/// Answers requests on a connection until either side is done with it.
fn converse(name: &str, stream: &TcpStream, seat: &Seat) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_micros(DEMO_IDLE_US)))?;
    stream.set_write_timeout(Some(Duration::from_micros(DEMO_IDLE_US)))?;
    stream.set_nodelay(true)?;
    let mut input = BufReader::new(stream);
    let mut output = stream;
    loop {
        let answer = match Request::read(&mut input, &mut output) {
            Ok(Some(request)) => {
                let keep = request.keep_alive() && !seat.is_scarce();
                let body = account::json(name, &request);
                answer("200 OK", "application/json", keep, request.method != "HEAD", &body)
            }
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                answer("400 Bad Request", "text/plain", false, true, &format!("{error}\n"))
            }
            Err(error) => return Err(error),
        };
        output.write_all(answer.text.as_bytes())?;
        if !answer.keep {
            return Ok(());
        }
    }
}

struct Answer {
    text: String,
    keep: bool,
}

fn answer(status: &str, kind: &str, keep: bool, with_body: bool, body: &str) -> Answer {
    let connection = if keep { "keep-alive" } else { "close" };
    let length = body.len();
    let mut text = format!(
        "HTTP/1.1 {status}\r\nServer: demo\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Connection: {connection}\r\n\r\n"
    );
    if with_body {
        text.push_str(body);
    }
    Answer { text, keep }
}

/// Counts connections, so that there are at most `DEMO_CONNECTIONS`.
#[derive(Default)]
struct Seats {
    taken: Mutex<usize>,
    freed: Condvar,
}

/// One of them, until it is dropped.
struct Seat {
    seats: Arc<Seats>,
}

impl Seats {
    /// Waits for a free seat.
    fn take(self: &Arc<Seats>) -> Seat {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken >= DEMO_CONNECTIONS {
            taken = self.freed.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        *taken += 1;
        Seat { seats: self.clone() }
    }
}

impl Seat {
    /// True if connections must end after one response, so that others get a turn: otherwise idle connections
    /// could soon occupy all threads.
    fn is_scarce(&self) -> bool {
        *self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner) > DEMO_CONNECTIONS / 2
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        *self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.seats.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// The response of a backend to `sent`, after which the client closes its side.
    fn exchange(sent: &[u8]) -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        client.write_all(sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let seats = Arc::new(Seats::default());
        let _ = converse("one", &stream, &seats.take());
        drop(stream);
        let mut received = String::new();
        client.read_to_string(&mut received).unwrap();
        received
    }

    #[test]
    fn answers_one_request_after_the_other() {
        let received = exchange(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(received.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{received}");
        assert_eq!(received.matches("Connection: keep-alive\r\n").count(), 2);
        assert!(received.contains("\"target\": \"/a\""));
        assert!(received.contains("\"text\": \"hi\""));
    }

    #[test]
    fn an_answer_to_head_has_a_length_and_no_body() {
        let received = exchange(b"HEAD /a HTTP/1.1\r\nConnection: close\r\n\r\nGET /never HTTP/1.1\r\n\r\n");
        assert!(received.ends_with("Connection: close\r\n\r\n"), "{received}");
        assert!(!received.contains("Content-Length: 0\r\n"));
    }

    #[test]
    fn nonsense_is_answered_400() {
        assert!(exchange(b"nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
    }

    #[test]
    fn a_dropped_seat_is_free_again() {
        let seats = Arc::new(Seats::default());
        let held: Vec<Seat> = (0..DEMO_CONNECTIONS).map(|_| seats.take()).collect();
        assert!(held[0].is_scarce());
        drop(held);
        assert!(!seats.take().is_scarce());
    }
}
