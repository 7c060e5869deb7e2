//! Connections that are made only to see whether they can be: to each address, and with one that
//! speaks TLS through the handshake. Nothing is asked there.
//!
//! ```text
//! connecting ──no TLS──▶ done
//!     └──TLS──▶ handshaking ──agreed, or failed──▶ done      each: too late ──▶ done
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::check::milliseconds;
use crate::config::Address;
use crate::limits::{CHECK_DIALS, CHECK_READ_BYTES};
use crate::reactor::{Event, Reactor};
use crate::sys::{clock, socket};
use crate::tls::config::Config;
use crate::tls::session::Session;

/// Whom to dial.
pub(super) struct Peer<'a> {
    pub(super) address: &'a Address,
    /// Whom its certificate has to be for; empty where it does not speak TLS.
    pub(super) server_name: String,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dialled {
    /// How long connecting took, in microseconds, or why it failed.
    pub(super) connected: Result<u64, String>,
    /// What was agreed on by TLS, where that is spoken, or why nothing was.
    pub(super) agreed: Result<Option<String>, String>,
}

/// A connection that is being made.
struct Dial {
    fd: OwnedFd,
    began_us: u64,
    /// How long connecting took, in microseconds, once it has.
    took_us: Option<u64>,
    /// The handshake, once it has begun.
    session: Option<Session>,
}

/// Connects to each peer and closes the connection, so many at once, each within a time; what became
/// of each. Without `tls` there are no handshakes. The error is the poller's.
pub(super) fn dial(peers: &[Peer<'_>], tls: Option<&Config>, timeout_us: u64) -> io::Result<Vec<Dialled>> {
    let mut reactor = Reactor::new()?;
    let mut outcomes: Vec<Option<Dialled>> = vec![None; peers.len()];
    let mut waiting: VecDeque<usize> = (0..peers.len()).collect();
    let mut dialling: BTreeMap<usize, Dial> = BTreeMap::new();
    while !waiting.is_empty() || !dialling.is_empty() {
        while dialling.len() < CHECK_DIALS
            && let Some(at) = waiting.pop_front()
        {
            match begin(peers[at].address, &reactor, at) {
                Ok(dial) => drop(dialling.insert(at, dial)),
                Err(error) => outcomes[at] = Some(unreachable(reason(&error))),
            }
        }
        let Some(oldest_us) = dialling.values().map(|dial| dial.began_us).min() else { continue };
        reactor.poll((oldest_us + timeout_us).saturating_sub(clock::monotonic_us()))?;
        let now_us = clock::monotonic_us();
        for event in (0..).map_while(|at| reactor.event(at)) {
            let at = event.token as usize;
            let Some(dial) = dialling.get_mut(&at) else { continue };
            outcomes[at] = dial.heed(event, &peers[at], tls, now_us);
            if outcomes[at].is_some() {
                dialling.remove(&at);
            }
        }
        dialling.retain(|&at, dial| {
            let late = now_us >= dial.began_us + timeout_us;
            if late {
                outcomes[at] = Some(dial.is_late(timeout_us));
            }
            !late
        });
    }
    Ok(outcomes.into_iter().flatten().collect())
}

fn begin(address: &Address, reactor: &Reactor, at: usize) -> io::Result<Dial> {
    let began_us = clock::monotonic_us();
    let fd = match address {
        Address::Tcp(address) => socket::connect_tcp(*address),
        Address::Unix(path) => socket::connect_unix(path),
    }?;
    reactor.register(fd.as_fd(), at as u64)?;
    Ok(Dial { fd, began_us, took_us: None, session: None })
}

impl Dial {
    /// Goes on after an event; what became of it in all, once that is known.
    fn heed(&mut self, event: Event, peer: &Peer<'_>, tls: Option<&Config>, now_us: u64) -> Option<Dialled> {
        if self.took_us.is_none() {
            if !event.writable && !event.broken {
                return None;
            }
            match socket::take_error(self.fd.as_fd()) {
                0 => self.took_us = Some(now_us - self.began_us),
                error => return Some(unreachable(reason(&io::Error::from_raw_os_error(error)))),
            }
            match tls.filter(|_| !peer.server_name.is_empty()) {
                None => return self.ends(Ok(None)),
                Some(tls) => match Session::new(tls, &peer.server_name) {
                    Ok(session) => self.session = Some(session),
                    Err(failure) => return self.ends(Err(failure.to_string())),
                },
            }
        }
        let agreed = self.shake_hands()?;
        self.ends(agreed.map(Some))
    }

    fn ends(&self, agreed: Result<Option<String>, String>) -> Option<Dialled> {
        Some(Dialled { connected: Ok(self.took_us?), agreed })
    }

    /// What there is to say of one that takes too long.
    fn is_late(&self, timeout_us: u64) -> Dialled {
        let limit = milliseconds(timeout_us);
        let late = self.ends(Err(format!("no handshake within {limit}")));
        late.unwrap_or_else(|| unreachable(format!("no answer within {limit}")))
    }

    /// Goes on with the handshake as far as the socket goes: what was agreed on, or why nothing was,
    /// once that is known.
    fn shake_hands(&mut self) -> Option<Result<String, String>> {
        let session = self.session.as_mut()?;
        let mut bytes = [0; CHECK_READ_BYTES];
        loop {
            if let Err(error) = send(session, &self.fd) {
                return Some(Err(reason(&error)));
            }
            if !session.is_handshaking() {
                let protocol = session.alpn().map_or("no ALPN".into(), |name| name.escape_ascii().to_string());
                let agreed = format!("{}, {protocol}", session.version().unwrap_or("TLS"));
                // Nobody minds if this is not heard.
                session.close_notify();
                let _ = send(session, &self.fd);
                return Some(Ok(agreed));
            }
            let taken = match socket::receive(self.fd.as_fd(), &mut bytes) {
                Ok(0) => session.ended(),
                // All of it is taken, as there is no plaintext before the handshake's end.
                Ok(n) => session.received(&bytes[..n]).map(drop),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                Err(error) => return Some(Err(reason(&error))),
            };
            if let Err(failure) = taken {
                // An alert may tell the peer why.
                let _ = send(session, &self.fd);
                return Some(Err(failure.to_string()));
            }
        }
    }
}

/// Sends what a session has to say, as far as the socket takes it; where that is not all, an event
/// comes when it takes more.
fn send(session: &mut Session, fd: &OwnedFd) -> io::Result<()> {
    while session.wants_send() {
        match session.send(|slices| socket::send(fd.as_fd(), slices.iter().map(|slice| &**slice), false)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn unreachable(reason: String) -> Dialled {
    Dialled { connected: Err(reason), agreed: Ok(None) }
}

/// What the system says, without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.as_str(), |(reason, _)| reason).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn more_addresses_are_dialled_than_at_once_and_each_has_its_outcome() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = Address::Tcp(listener.local_addr().unwrap());
        let shut = Address::Tcp("127.0.0.1:1".parse().unwrap());
        let absent = Address::Unix("/nonexistent/socket".into());
        let all = [&open, &shut, &absent].map(|address| Peer { address, server_name: String::new() });
        let all: Vec<Peer<'_>> =
            all.iter().cycle().take(3 * CHECK_DIALS).map(|peer| Peer { server_name: String::new(), ..*peer }).collect();
        let outcomes = dial(&all, None, 10_000_000).unwrap();
        assert_eq!(outcomes.len(), all.len());
        for three in outcomes.chunks(3) {
            assert!(three[0].connected.is_ok() && three[0].agreed == Ok(None), "{three:?}");
            assert_eq!(three[1], unreachable("Connection refused".into()));
            assert_eq!(three[2], unreachable("No such file or directory".into()));
        }
        assert_eq!(dial(&[], None, 1).unwrap(), []);
    }
}
