//! Connections of `--check`: one to each address, with the handshake if the backend speaks TLS, and with the
//! request of a probe if probes are sent.
//!
//! ```text
//! connecting ──TLS──▶ handshaking ──probed──▶ asking ──▶ done      each: too late, failed ──▶ done
//!     └──no TLS, probed──▶ asking
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};

use crate::config::{Address, Health};
use crate::http::grpc::Unhealthy;
use crate::http::proxy_header::{self, Version};
use crate::limits::{CHECK_DIALS, CHECK_READ_BYTES};
use crate::process::check::ask::{Answer, Ask, Request};
use crate::proxy::Failure;
use crate::proxy::probe::{Cause, Explained};
use crate::reactor::{Event, Reactor};
use crate::sys::{Hangup, clock, socket};
use crate::tls::HTTP_2;
use crate::tls::client::Config;
use crate::tls::session::Session;

/// A peer to dial.
pub(super) struct Peer<'a> {
    pub(super) address: &'a Address,
    /// The name that its certificate has to be for; empty if it does not speak TLS.
    pub(super) server_name: String,
    /// True if it speaks HTTP/2 without TLS.
    pub(super) h2c: bool,
    /// The request of its probe, if probes ask for something.
    pub(super) request: Option<Request<'a>>,
}

/// The settings of all dials.
pub(super) struct Rules<'a> {
    /// Without it there are no handshakes.
    pub(super) tls: Option<&'a Config>,
    /// The time for a connection and its handshake.
    pub(super) connect_us: u64,
    pub(super) health: &'a Health,
    /// The version of the PROXY header with which connections begin.
    pub(super) send_proxy: Option<Version>,
}

/// The outcome of a dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dialled {
    /// The time of the connect in microseconds, or the reason of its failure.
    pub(super) connected: Result<u64, String>,
    /// The result of the TLS handshake, if TLS is spoken, or the reason of its failure.
    pub(super) agreed: Result<Option<String>, String>,
    /// The request of the probe with the status of its response, if there was one, or why the probe failed.
    pub(super) probed: Result<Option<String>, String>,
}

/// A connection in progress.
struct Dial {
    fd: OwnedFd,
    began_us: u64,
    /// The time of the connect in microseconds, once it has succeeded.
    took_us: Option<u64>,
    /// The TLS session, once its handshake has begun.
    session: Option<Session>,
    /// The result of the TLS handshake.
    agreed: Option<String>,
    /// The probe, once its request was written.
    ask: Option<Ask>,
}

/// Connects to each peer and closes the connection again, a limited number at once; the outcome of each. The
/// error is the poller's.
pub(super) fn dial(peers: &[Peer<'_>], rules: &Rules<'_>) -> io::Result<Vec<Dialled>> {
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
        let Some(next_us) = dialling.values().map(|dial| dial.deadline_us(rules)).min() else { continue };
        reactor.poll(next_us.saturating_sub(clock::monotonic_us()))?;
        let now_us = clock::monotonic_us();
        for event in (0..).map_while(|at| reactor.event(at)) {
            let at = event.token as usize;
            let Some(dial) = dialling.get_mut(&at) else { continue };
            outcomes[at] = dial.on_event(event, &peers[at], rules, now_us);
            if outcomes[at].is_some() {
                dialling.remove(&at);
            }
        }
        dialling.retain(|&at, dial| {
            let late = now_us >= dial.deadline_us(rules);
            if late {
                outcomes[at] = Some(dial.is_late(rules));
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
    Ok(Dial { fd, began_us, took_us: None, session: None, agreed: None, ask: None })
}

impl Dial {
    /// When it is too late. A probe has one limit for all of it, from the beginning of its connection.
    fn deadline_us(&self, rules: &Rules<'_>) -> u64 {
        self.began_us + if self.ask.is_some() { rules.health.timeout_us } else { rules.connect_us }
    }

    /// Continues after an event; the outcome, once it is known.
    fn on_event(&mut self, event: Event, peer: &Peer<'_>, rules: &Rules<'_>, now_us: u64) -> Option<Dialled> {
        if self.took_us.is_none() {
            if !event.writable && event.hangup != Hangup::Failed {
                return None;
            }
            match socket::take_error(self.fd.as_fd()) {
                0 => self.took_us = Some(now_us - self.began_us),
                error => return Some(unreachable(reason(&io::Error::from_raw_os_error(error)))),
            }
            if let Some(version) = rules.send_proxy {
                let mut header = Vec::new();
                proxy_header::write(&mut header, version, None);
                // If the connection is broken, the next step reports it.
                let _ = socket::send(self.fd.as_fd(), std::iter::once(&header[..]), true);
            }
            if let Some(tls) = rules.tls.filter(|_| !peer.server_name.is_empty()) {
                match Session::connect(tls, &peer.server_name) {
                    Ok(session) => self.session = Some(session),
                    Err(failure) => return self.is_unusable(failure.to_string()),
                }
            }
        }
        if self.session.is_some() && self.agreed.is_none() {
            match self.shake_hands()? {
                Ok(agreed) => self.agreed = Some(agreed),
                Err(reason) => return self.is_unusable(reason),
            }
        }
        let http2 = self.session.as_ref().map_or(peer.h2c, |session| session.alpn() == Some(HTTP_2));
        let outcome = match &peer.request {
            None => Ok(None),
            Some(request) => {
                if request.service.is_some() && !http2 {
                    return self.ends(Err(explained(rules, Cause::Unhealthy(Unhealthy::Http1))));
                }
                self.ask.get_or_insert_with(|| Ask::begin(request, http2));
                match self.go_on_asking(now_us)? {
                    Ok(Answer::Status(status)) if rules.health.status.contains(status) => {
                        Ok(Some(format!("GET {} -> {status}", request.path)))
                    }
                    Ok(Answer::Status(status)) => Err(explained(rules, Cause::Status(status))),
                    Ok(Answer::Health(Ok(()))) => Ok(Some("grpc.health.v1 -> SERVING".into())),
                    Ok(Answer::Health(Err(unhealthy))) => Err(explained(rules, Cause::Unhealthy(unhealthy))),
                    Err(failure) => Err(explained(rules, Cause::Failed(failure))),
                }
            }
        };
        self.say_goodbye();
        self.ends(outcome)
    }

    fn ends(&self, probed: Result<Option<String>, String>) -> Option<Dialled> {
        Some(Dialled { connected: Ok(self.took_us?), agreed: Ok(self.agreed.clone()), probed })
    }

    /// Nothing can be sent to the backend.
    fn is_unusable(&self, reason: String) -> Option<Dialled> {
        Some(Dialled { connected: Ok(self.took_us?), agreed: Err(reason), probed: Ok(None) })
    }

    /// The outcome of a dial that takes too long.
    fn is_late(&self, rules: &Rules<'_>) -> Dialled {
        let limit = milliseconds(rules.connect_us);
        let late = match self.ask {
            Some(_) => self.ends(Err(explained(rules, Cause::Late))),
            None => self.is_unusable(format!("no handshake within {limit}")),
        };
        late.unwrap_or_else(|| unreachable(format!("no answer within {limit}")))
    }

    /// Continues with the handshake until the socket would block. Returns the negotiated parameters, or the
    /// reason for a failure, once it has ended.
    fn shake_hands(&mut self) -> Option<Result<String, String>> {
        let session = self.session.as_mut()?;
        let mut bytes = [0; CHECK_READ_BYTES];
        loop {
            if let Err(error) = send(session, &self.fd) {
                return Some(Err(reason(&error)));
            }
            if !session.is_handshaking() {
                let protocol = session.alpn().map_or("no ALPN".into(), |name| name.escape_ascii().to_string());
                return Some(Ok(format!("{}, {protocol}", session.version().unwrap_or("TLS"))));
            }
            let taken = match socket::receive(self.fd.as_fd(), &mut bytes) {
                Ok(0) => session.ended(),
                // The session takes all of it: before the end of the handshake it holds no plaintext, and
                // behind that fewer bytes than it has room for.
                Ok(n) => session.received(&bytes[..n]).map(drop),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                Err(error) => return Some(Err(reason(&error))),
            };
            if let Err(failure) = taken {
                // An alert may explain the reason to the peer.
                let _ = send(session, &self.fd);
                return Some(Err(failure.to_string()));
            }
        }
    }

    /// Continues with the probe until the socket would block: the status, or why there is none, once that is
    /// known.
    fn go_on_asking(&mut self, now_us: u64) -> Option<Result<Answer, Failure>> {
        let Dial { fd, session, ask, .. } = self;
        let ask = ask.as_mut()?;
        let mut bytes = [0; CHECK_READ_BYTES];
        loop {
            if let Err(error) = send_request(ask, session.as_mut(), fd) {
                return Some(Err(broken(&error)));
            }
            // A session may have decrypted some with the end of its handshake.
            if let Some(session) = session {
                let n = session.read(&mut bytes);
                if n > 0 {
                    match ask.received(&bytes[..n], now_us) {
                        None => continue,
                        outcome => return outcome,
                    }
                }
                if session.received_close_notify() {
                    return Some(Err(Failure::Closed));
                }
            }
            let n = match socket::receive(fd.as_fd(), &mut bytes) {
                Ok(0) => return Some(Err(Failure::Closed)),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Some(Err(broken(&error))),
            };
            match session {
                // All plaintext was read before, so the session has room for these.
                Some(session) => {
                    if let Err(failure) = session.received(&bytes[..n]) {
                        return Some(Err(Failure::Session(failure)));
                    }
                }
                None => match ask.received(&bytes[..n], now_us) {
                    None => {}
                    outcome => return outcome,
                },
            }
        }
    }

    /// Closes a TLS session. Errors are ignored.
    fn say_goodbye(&mut self) {
        if let Some(session) = &mut self.session {
            session.close_notify();
            let _ = send(session, &self.fd);
        }
    }
}

/// Sends the request of a probe, and HTTP/2's replies to frames, until the socket would block.
fn send_request(ask: &mut Ask, session: Option<&mut Session>, fd: &OwnedFd) -> io::Result<()> {
    let Some(session) = session else {
        while !ask.output.is_empty() {
            match socket::send(fd.as_fd(), [&ask.output[..]].into_iter(), false) {
                Ok(n) => drop(ask.output.drain(..n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        return Ok(());
    };
    loop {
        let taken = session.write(&[IoSlice::new(&ask.output)]);
        ask.output.drain(..taken);
        send(session, fd)?;
        if taken == 0 || ask.output.is_empty() {
            return Ok(());
        }
    }
}

/// The words of a worker for a probe that failed.
fn explained(rules: &Rules<'_>, cause: Cause) -> String {
    Explained { health: rules.health, has_asked: true, cause }.to_string()
}

fn broken(error: &io::Error) -> Failure {
    Failure::Broken(error.raw_os_error().unwrap_or(0))
}

/// Sends a session's output as far as the socket accepts it. For the rest, an event follows.
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
    Dialled { connected: Err(reason), agreed: Ok(None), probed: Ok(None) }
}

/// The text of a system error without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.as_str(), |(reason, _)| reason).to_owned()
}

pub(super) fn milliseconds(us: u64) -> String {
    if us.is_multiple_of(1000) { format!("{} ms", us / 1000) } else { format!("{:.1} ms", us as f64 / 1000.0) }
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
        let peer = |address| Peer { address, server_name: String::new(), h2c: false, request: None };
        let all: Vec<Peer<'_>> = [&open, &shut, &absent].into_iter().cycle().take(3 * CHECK_DIALS).map(peer).collect();
        let plan = crate::config::Plan::over([]);
        let rules = Rules { tls: None, connect_us: 10_000_000, health: &plan.health, send_proxy: None };
        let outcomes = dial(&all, &rules).unwrap();
        assert_eq!(outcomes.len(), all.len());
        for three in outcomes.chunks(3) {
            assert!(three[0].connected.is_ok() && three[0].agreed == Ok(None), "{three:?}");
            assert_eq!(three[1], unreachable("Connection refused".into()));
            assert_eq!(three[2], unreachable("No such file or directory".into()));
        }
        assert_eq!(dial(&[], &rules).unwrap(), []);
    }
}
