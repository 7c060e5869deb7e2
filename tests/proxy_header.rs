//! Clients whose address a proxy in front sends in a PROXY header.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::support::{Backend, Balancer, DEADLINE, Front, Protocol, VACANT, Wire, modes, processor_ticks, wait_until};
use zzz_lb::http::proxy_header::{Addresses, Version, write};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// The address of the listener for PROXY headers.
pub fn proxied(balancer: &Balancer) -> SocketAddr {
    let log = balancer.wait_for_log(" (PROXY header");
    let line = log.lines().find(|line| line.contains(" (PROXY header")).expect("the log has it");
    let (_, rest) = line.split_once("listening on ").expect("it names the address");
    rest.split(' ').next().and_then(|word| word.parse().ok()).expect("an address")
}

/// A header of the client 192.0.2.1:1000.
fn header(version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    let [source, destination] = ["192.0.2.1:1000", "198.51.100.2:443"].map(|text| text.parse().unwrap());
    write(&mut bytes, version, Some(Addresses { source, destination }));
    bytes
}

/// The value of X-Forwarded-Port that the backend got last.
fn port_of(backend: &Backend) -> String {
    backend.requests().last().and_then(|request| request.value("x-forwarded-port")).unwrap_or_default().to_owned()
}

/// The value of X-Forwarded-For that the backend got for these bytes.
fn forwarded(backend: &Backend, address: SocketAddr, pieces: &[&[u8]]) -> String {
    let before = backend.requests().len();
    let mut client = Wire::tcp(address);
    pieces.iter().for_each(|piece| client.send(piece));
    assert_eq!(client.response("GET").status(), 200);
    backend.requests()[before].value("x-forwarded-for").unwrap_or_default().to_owned()
}

#[test]
fn the_address_in_a_header_is_the_client() {
    for mode in modes() {
        let backend = Backend::named("a");
        let args = ["--listen", "127.0.0.1:0,proxy", "--trust", "127.0.0.1"];
        let balancer = Balancer::before(mode, &[&backend], &args);
        let address = proxied(&balancer);
        for version in [Version::V1, Version::V2] {
            let whole = [header(version), REQUEST.to_vec()].concat();
            assert_eq!(forwarded(&backend, address, &[&whole]), "192.0.2.1", "{mode:?}");
            assert_eq!(port_of(&backend), "443", "{mode:?}: the port that the client has connected to");
            let pieces: Vec<&[u8]> = whole.chunks(1).collect();
            assert_eq!(forwarded(&backend, address, &pieces), "192.0.2.1", "{mode:?}");
            let mut local = Vec::new();
            write(&mut local, version, None);
            assert_eq!(forwarded(&backend, address, &[&local, REQUEST]), "127.0.0.1", "{mode:?}");
            assert_eq!(port_of(&backend), address.port().to_string(), "{mode:?}");
        }
        // A client in the header is not trusted, although its proxy is.
        let claim = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";
        assert_eq!(forwarded(&backend, address, &[&header(Version::V1), claim]), "192.0.2.1", "{mode:?}");
        // A header is never guessed on another listener.
        let mut client = balancer.connect();
        client.send(header(Version::V1));
        client.send(REQUEST);
        assert_eq!(client.response("GET").status(), 400);
        balancer.wait_for_log(": the bytes look like a PROXY header, which ,proxy on --listen reads\"");
    }
}

/// The bytes of a client with TLS, up to its request, in pieces: `split` makes them of the header with the first message.
fn secured(
    config: Arc<ClientConfig>,
    address: SocketAddr,
    version: Version,
    split: impl Fn(&[u8]) -> Vec<Vec<u8>>,
) -> String {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session = ClientConnection::new(config, name).expect("a session");
    let mut bytes = header(version);
    session.write_tls(&mut bytes).expect("a Vec takes all");
    let mut socket = TcpStream::connect(address).expect("it listens");
    socket.set_nodelay(true).expect("a socket");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
    for piece in split(&bytes) {
        socket.write_all(&piece).expect("it is open");
    }
    let mut stream = StreamOwned::new(session, socket);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("a session");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a response and its end");
    text
}

#[test]
fn a_header_precedes_tls_however_both_are_split() {
    for mode in modes() {
        let backend = Backend::named("a");
        let front = Front::new(Protocol::H1Tls);
        let args = [front.args(), vec!["--listen", "127.0.0.1:0,tls,proxy", "--trust", "127.0.0.1"]].concat();
        let balancer = Balancer::before(mode, &[&backend], &args);
        let (config, address) = (front.client_config().expect("it has TLS"), proxied(&balancer));
        let mut asked = 0;
        let mut ask = |version, split: &dyn Fn(&[u8]) -> Vec<Vec<u8>>| {
            let text = secured(config.clone(), address, version, split);
            assert!(text.starts_with("HTTP/1.1 200") && text.ends_with('a'), "{mode:?}: {text}");
            let request = backend.requests().into_iter().nth(asked).expect("a request");
            asked += 1;
            assert_eq!(request.value("x-forwarded-for"), Some("192.0.2.1"), "{mode:?}");
            assert_eq!(request.value("x-forwarded-proto"), Some("https"), "{mode:?}");
        };
        for version in [Version::V1, Version::V2] {
            let length = header(version).len();
            ask(version, &|bytes| vec![bytes.to_vec()]);
            ask(version, &|bytes| bytes.chunks(1).map(<[u8]>::to_vec).collect());
            for at in [1, length - 1, length, length + 1, length + 4, length + 5, length + 6, length + 60] {
                ask(version, &|bytes| vec![bytes[..at].to_vec(), bytes[at..].to_vec()]);
            }
        }
    }
}

#[test]
fn a_connection_without_a_valid_header_is_closed_and_counted() {
    for mode in modes() {
        let args = ["-b", VACANT, "--listen", "127.0.0.1:0,proxy", "--trust", "127.0.0.1"];
        let balancer = Balancer::start(mode, &args);
        let address = proxied(&balancer);
        let count = |reason: &str| balancer.metric("zzz_lb_proxy_header_failures_total", reason);
        let mut client = Wire::tcp(address);
        client.send(REQUEST);
        assert!(client.exactly(1).is_err());
        wait_until("it is counted", || count("malformed") == 1);
        let mut client = Wire::tcp(address);
        client.send(b"PROXY TCP4 192.0.2.1");
        client.shutdown_write();
        assert!(client.exactly(1).is_err());
        wait_until("it is counted", || count("closed") == 1);
        // A health checker that only connects is no fault.
        drop(Wire::tcp(address));
        let mut client = Wire::tcp(address);
        client.send(b"PROXY TCP4 192.0.2.1");
        wait_until("it is late", || count("timeout") == 1);
        assert!(client.exactly(1).is_err());
        assert_eq!(balancer.metric("zzz_lb_proxy_header_failures_total", ""), 3, "{mode:?}");
        assert!(balancer.log().contains("client: 127.0.0.1:"), "{}", balancer.log());
    }
}

#[test]
fn a_worker_sleeps_until_more_of_a_header_arrives() {
    for mode in modes() {
        let args = ["-b", VACANT, "--listen", "127.0.0.1:0,proxy", "--trust", "127.0.0.1"];
        let balancer = Balancer::start(mode, &args);
        let used = || balancer.serving().into_iter().map(processor_ticks).sum::<u64>();
        let mut client = Wire::tcp(proxied(&balancer));
        client.send("P");
        let before = used();
        // The byte stays in the socket, which is readable all the time.
        assert!(client.silent_for(Duration::from_secs(1)));
        let ticks = used() - before;
        assert!(ticks < 10, "{mode:?}: {ticks} ticks of 100 in a second");
        client.send(b"ROXY UNKNOWN\r\n");
        client.send(REQUEST);
        assert_eq!(client.response("GET").status(), 502);
    }
}

#[test]
fn only_a_trusted_peer_may_send_a_header() {
    for mode in modes() {
        let balancer = Balancer::start(mode, &["-b", VACANT, "--listen", "127.0.0.1:0,proxy", "--trust", "10.0.0.0/8"]);
        let mut client = Wire::tcp(proxied(&balancer));
        // The connection may be reset while this is sent.
        let _ = client.try_send([header(Version::V2), REQUEST.to_vec()].concat());
        assert!(client.exactly(1).is_err());
        wait_until("it is counted", || balancer.metric("zzz_lb_proxy_header_failures_total", "untrusted") == 1);
        balancer.wait_for_log("a PROXY header is only accepted from peers in --trust");
    }
}

#[test]
fn every_request_to_the_redirecting_port_gets_its_url_under_https() {
    for mode in modes() {
        let balancer = Balancer::start(mode, &["-b", VACANT, "--tls-dev", "--http-redirect", "0", "--admin", "0"]);
        let log = balancer.wait_for_log(", redirecting to https");
        let line = log.lines().find(|line| line.contains(", redirecting to https")).expect("the log has it");
        let (_, rest) = line.split_once("listening on ").expect("it names the address");
        let address: SocketAddr = rest.split(',').next().and_then(|word| word.parse().ok()).expect("an address");
        let https = balancer.address().port();
        let ask = |request: &str| {
            let mut client = Wire::tcp(SocketAddr::from(([127, 0, 0, 1], address.port())));
            client.send(request.as_bytes());
            let response = client.response("GET");
            (response.status(), response.value("location").unwrap_or_default().to_owned())
        };
        let location = |host: &str, path: &str| (308, format!("https://{host}:{https}{path}"));
        assert_eq!(ask("GET /a?b=c HTTP/1.1\r\nHost: a.test:80\r\n\r\n"), location("a.test", "/a?b=c"));
        assert_eq!(ask("GET /metrics HTTP/1.1\r\nHost: [::1]\r\n\r\n"), location("[::1]", "/metrics"));
        let post = "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\npart";
        assert_eq!(ask(post), location("a", "/p"));
        assert_eq!(ask("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), location("a", "/"));
        assert_eq!(ask("GET http://b.test HTTP/1.1\r\nHost: b.test\r\n\r\n"), location("b.test", "/"));
        for bad in ["GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"] {
            assert_eq!(ask(bad).0, 400, "{bad:?}");
        }
        let counted = "zzz_lb_own_responses_total{code=\"308\"} 5\n";
        wait_until("they are counted", || Wire::tcp(balancer.admin()).get("/metrics").text().contains(counted));
    }
}
