//! The key of session tickets in a file: machines share it, and another one is used by all workers at once. The keys that
//! follow from it change with time.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use zzz_lb::limits::TICKET_PERIOD_S;
use zzz_lb::tls::pair::Pair;
use zzz_lb::tls::session::Session;
use zzz_lb::tls::tickets::{self, Keys};
use zzz_lb::tls::{self, server};

use crate::support::certificate::{Authority, Spec};
use crate::support::traffic::{Dial, Link, Target};
use crate::support::{Backend, Balancer, Directory, modes, wait_until};

/// Sends a request on a connection of its own, after which there is a ticket. Returns true if a session was resumed.
fn resumes(dial: &mut Dial) -> bool {
    let before = dial.resumed;
    let mut wire = dial.connect().expect("the handshake succeeds");
    assert_eq!(wire.get("/").text(), "backend");
    dial.resumed > before
}

#[test]
fn machines_with_one_file_resume_the_sessions_of_each_other_and_all_workers_follow_another_file() {
    for mode in modes() {
        let (directory, authority) = (Directory::new(), Authority::new("authority"));
        let issued = authority.issue(&Spec { names: &["localhost"], ..Spec::new("localhost") });
        let pair = directory.put("both.pem", &format!("{}{}", issued.pem(), issued.key_pem()));
        let file = directory.put("tickets", &[7; 80]);
        let backend = Backend::named("backend");
        let [pair, file] = [&pair, &file].map(|path| path.to_str().expect("text"));
        let machines =
            [(); 2].map(|()| Balancer::before(mode, &[&backend], &["--tls-cert", pair, "--tls-ticket-key", file]));
        let mut roots = RootCertStore::empty();
        roots.add(authority.der.clone().into()).expect("a CA");
        let [first, second] = [&machines[0], &machines[1]].map(|machine| {
            let address = machine.address();
            Arc::new(Target { plain: address, secure: Some(address), roots: roots.clone(), own: None })
        });
        for link in [Link::Resumed, Link::Resumed12] {
            let mut dial = Dial::new(first.clone(), link, b"http/1.1");
            assert!(!resumes(&mut dial), "there is no session yet");
            for nth in 0..12 {
                dial.turn_to(if nth % 2 == 0 { second.clone() } else { first.clone() });
                assert!(resumes(&mut dial), "{mode:?}, {link:?}: connection {nth}");
            }
            dial.turn_to(first.clone());
            // Another file ends all sessions, so a key that was stolen is of no use any more.
            let changes =
                |machine: &Balancer| machine.log().matches("the keys of session tickets have changed").count();
            let before = machines.each_ref().map(changes);
            directory.put("tickets", &[if link == Link::Resumed { 8 } else { 9 }; 80]);
            wait_until("both have read it", || {
                machines.iter().zip(before).all(|(machine, before)| changes(machine) > before)
            });
            // A worker may accept a client in the turn in which it has not seen the key yet.
            wait_until("a session ends", || !resumes(&mut dial));
            wait_until("all workers have the key", || (0..8).all(|_| resumes(&mut dial)));
            dial.turn_to(second.clone());
            wait_until("the other machine has it, too", || (0..8).all(|_| resumes(&mut dial)));
        }
    }
}

/// A machine whose time is `now_s`: it has the same certificate and the same file, and serves sessions that end after one
/// request.
fn machine_at(now_s: u64, pair: &Path, file: &[u8]) -> SocketAddr {
    let pair = Arc::new(Pair::from_pem(&std::fs::read(pair).expect("a file"), None).expect("a pair"));
    let config = server::Config::new(&server::Settings {
        pairs: &[pair],
        clients: None,
        strict_sni: false,
        minimum: server::Version::Tls12,
        alpn: &[tls::HTTP_1],
        keys: &Keys::derived(&tickets::seed(file).expect("long enough"), now_s),
        key_log: None,
    });
    let config = config.expect("a configuration");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for socket in listener.incoming() {
            let _ = socket.map(|socket| serve_once(&config, socket));
        }
    });
    address
}

/// Serves one request of a session.
fn serve_once(config: &server::Config, mut socket: TcpStream) -> io::Result<()> {
    let (mut session, mut request) = (Session::accept(config), Vec::new());
    let mut room = [0; 16 << 10];
    while !request.ends_with(b"\r\n\r\n") {
        let count = socket.read(&mut room)?;
        if count == 0 {
            return Ok(());
        }
        let mut rest = &room[..count];
        while !rest.is_empty() {
            let taken = session.received(rest).map_err(|failure| io::Error::other(failure.to_string()))?;
            rest = &rest[taken..];
            let mut plain = [0; 4 << 10];
            let count = session.read(&mut plain);
            request.extend_from_slice(&plain[..count]);
        }
        flush(&mut session, &mut socket)?;
    }
    session.write(&[IoSlice::new(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nbackend")]);
    session.close_notify();
    flush(&mut session, &mut socket)
}

fn flush(session: &mut Session, socket: &mut TcpStream) -> io::Result<()> {
    while session.wants_send() {
        session.send(|parts| socket.write_vectored(parts))?;
    }
    Ok(())
}

/// The key of a period encrypts for 12 hours, and decrypts for the next 12. A machine whose clock is late stands for the
/// time before the keys changed.
#[test]
fn tickets_of_the_last_period_resume_and_those_before_it_do_not() {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    // If the period ends within the minute, the current one counts as the last one already.
    let last_s = now_s + 60 - TICKET_PERIOD_S;
    for mode in modes() {
        let (directory, authority) = (Directory::new(), Authority::new("authority"));
        let issued = authority.issue(&Spec { names: &["localhost"], ..Spec::new("localhost") });
        let pair = directory.put("both.pem", &format!("{}{}", issued.pem(), issued.key_pem()));
        let file = directory.put("tickets", &[7; 80]);
        let args = ["--tls-cert", &pair.display().to_string(), "--tls-ticket-key", &file.display().to_string()];
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &args);
        let mut roots = RootCertStore::empty();
        roots.add(authority.der.clone().into()).expect("a CA");
        let target =
            |address| Arc::new(Target { plain: address, secure: Some(address), roots: roots.clone(), own: None });
        let [last, older] = [last_s, now_s - 2 * TICKET_PERIOD_S].map(|at_s| target(machine_at(at_s, &pair, &[7; 80])));
        for link in [Link::Resumed, Link::Resumed12] {
            for (machine, is_resumed) in [(&last, true), (&older, false), (&last, true)] {
                let mut dial = Dial::new(machine.clone(), link, b"http/1.1");
                assert!(!resumes(&mut dial) && resumes(&mut dial), "{link:?}: the machine resumes its own sessions");
                dial.turn_to(target(balancer.address()));
                assert_eq!(resumes(&mut dial), is_resumed, "{mode:?}, {link:?}");
                // The session goes on under the current key.
                assert!(resumes(&mut dial), "{mode:?}, {link:?}: the next connection");
            }
        }
    }
}
