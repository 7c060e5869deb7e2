//! Streams of clients over HTTP/2 that outlive the drain: each gets an end that its client cannot take for success.

use std::sync::Arc;

use rustls::RootCertStore;
use zzz_lb::base64::{Alphabet, encode};
use zzz_lb::digest::sha1;

use crate::support::certificate::{Authority, Spec};
use crate::support::traffic::{Dial, Link, Session, State, Stream, Target};
use crate::support::{Backend, Balancer, Directory, Exit, Gate, Mode, Peer, children, modes, wait_until};

/// The ways to the end of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Upgrade,
    Term,
    SecondTerm,
}

/// Sends half of a response, or nothing of it, as the path says, and waits for the gate.
fn serve(peer: &mut Peer, gate: &Gate) -> Option<()> {
    let head = peer.request_head()?;
    if head.target() == "/tunnel" {
        let key = head.value("Sec-WebSocket-Key").expect("the balancer has made a key").as_bytes();
        let accept = encode(Alphabet::Standard, &sha1(&[key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"]));
        let lines = format!("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
        peer.try_send(format!("HTTP/1.1 101 Switching Protocols\r\n{lines}")).ok()?;
    } else if head.target().ends_with("begun") {
        peer.try_send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").ok()?;
    }
    gate.pass().then_some(())
}

const GRPC: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

/// A client with five streams that do not end by themselves.
struct Client {
    session: Session,
    streams: Vec<u32>,
}

impl Client {
    fn new(mut dial: Dial, backend: &Backend) -> Client {
        let scheme = if dial.is_secure() { "https" } else { "http" };
        let mut session = Session::new(dial.connect().expect("the balancer accepts"));
        session.wait_for_settings();
        let mut open = |method, path, rest: &[(&str, &str)], end| {
            let first = [(":method", method), (":scheme", scheme), (":authority", "localhost"), (":path", path)];
            session.open(&[&first[..], rest].concat(), end)
        };
        let streams = vec![
            open("GET", "/waits", &[], true),
            open("GET", "/begun", &[], true),
            open("POST", "/call-waits", &GRPC, false),
            open("POST", "/call-begun", &GRPC, false),
            open("CONNECT", "/tunnel", &[(":protocol", "websocket")], false),
        ];
        backend.wait_for_requests(streams.len());
        for &id in &[streams[1], streams[3]] {
            session.read_while(id, |stream| stream.content.len() < 4);
        }
        session.read_while(streams[4], |stream| stream.status() == 0);
        Client { session, streams }
    }

    /// The streams, once all of them have ended.
    fn ends(mut self) -> Vec<Stream> {
        self.streams.iter().for_each(|&id| self.session.read_while(id, |_| true));
        self.streams.iter().map(|&id| self.session.take(id)).collect()
    }
}

/// A balancer that drains for a moment, and the way of a client to it.
fn scene(mode: Mode, link: Link, backend: &Backend, end: End) -> (Balancer, Dial, Directory) {
    let (directory, authority) = (Directory::new(), Authority::new("authority"));
    let issued = authority.issue(&Spec { names: &["localhost"], ..Spec::new("localhost") });
    let file = directory.put("both.pem", &format!("{}{}", issued.pem(), issued.key_pem()));
    let drain = if end == End::SecondTerm { "1h" } else { "300ms" };
    let mut args = vec!["--drain-timeout", drain, "--listen", "0"];
    if link != Link::Plain {
        args.extend(["--tls-cert", file.to_str().expect("text")]);
    }
    let balancer = Balancer::before(mode, &[backend], &args);
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.into()).expect("a CA");
    let [secure, plain] = [0, 1].map(|nth| balancer.listener(nth));
    let target = Target { plain, secure: Some(secure), roots, own: None };
    (balancer.through(plain), Dial::new(Arc::new(target), link, b"h2"), directory)
}

#[test]
fn a_stream_that_outlives_the_drain_gets_a_reset_or_a_status() {
    for mode in modes() {
        for (link, end) in [
            (Link::Plain, End::Upgrade),
            (Link::Fresh, End::Upgrade),
            (Link::Plain, End::Term),
            (Link::Fresh, End::Term),
            (Link::Fresh, End::SecondTerm),
        ] {
            let story = format!("{mode:?}, {link:?}, {end:?}");
            let gate = Gate::shut();
            let held = gate.clone();
            let backend = Backend::serve(move |mut peer| while serve(&mut peer, &held).is_some() {});
            let (mut balancer, dial, _directory) = scene(mode, link, &backend, end);
            let client = Client::new(dial, &backend);
            balancer.signal(if end == End::Upgrade { libc::SIGUSR2 } else { libc::SIGTERM });
            if end == End::SecondTerm {
                balancer.wait_for_log("process: draining");
                balancer.signal(libc::SIGTERM);
            }
            let [waits, begun, call_waits, call_begun, tunnel] = &client.ends()[..] else { panic!("five streams") };
            let lost = |stream: &Stream, code: &str| match &stream.state {
                State::Lost(story) => story.contains(&format!("RST_STREAM {code}")),
                _ => false,
            };
            for (stream, length) in [(waits, 0), (begun, 4)] {
                assert!(lost(stream, "INTERNAL_ERROR"), "{story}: {:?}", stream.state);
                assert_eq!(stream.content.len(), length, "{story}");
            }
            assert!(lost(tunnel, "CANCEL"), "{story}: {:?}", tunnel.state);
            for call in [call_waits, call_begun] {
                assert_eq!((call.status(), &call.state), (200, &State::Complete), "{story}");
            }
            assert_eq!(call_begun.trailer("grpc-status"), Some("14"), "{story}");
            assert_eq!(call_begun.trailer("grpc-message"), Some("the program stopped"), "{story}");
            assert!(call_waits.head.contains(&("grpc-status".into(), "14".into())), "{story}: {:?}", call_waits.head);
            if end == End::Upgrade {
                balancer.wait_for_log("cut 5 requests off");
                assert_eq!(balancer.metric("zzz_lb_requests_cut_total", ""), 5, "{story}");
                let workers = if mode == Mode::Mp { 2 } else { 0 };
                wait_until("those of before have ended", || children(balancer.pid()).len() == workers);
                gate.open();
                assert_eq!(balancer.stop(), Exit::Status(0), "{story}");
                continue;
            }
            assert_eq!(balancer.wait(), Exit::Status(1), "{story}");
            let log = balancer.whole_log();
            assert!(log.contains("cut 5 requests off"), "{story}: {log}");
            // Three of the lines are counted only. The end of a tunnel is no failure.
            let others = format!("... and 3 more in 0 ms backend={} cause=\"the program stopped\"", backend.spec());
            assert!(log.contains(&others), "{story}: {log}");
            gate.open();
        }
    }
}
