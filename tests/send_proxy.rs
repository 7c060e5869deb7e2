//! Connections to backends that begin with a PROXY header (`--send-proxy`).

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use crate::support::{
    Backend, Balancer, Directory, Front, Mode, Pair, Peer, Protocol, Way, Wire, command, listen, modes, pairs,
    response, wait_until,
};
use zzz_lb::http::proxy_header::{Addresses, Version, read, write};

/// A connection that began with a PROXY header.
#[derive(Clone, Copy, Debug)]
struct Arrived {
    /// `None`: a connection without a client.
    addresses: Option<Addresses>,
    version: Version,
    open: bool,
}

/// A server before a backend that takes the PROXY header from each connection, and refuses those without one.
struct Reader {
    address: SocketAddr,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

impl Reader {
    fn before(target: SocketAddr) -> Reader {
        let arrived: Arc<Mutex<Vec<Arrived>>> = Arc::default();
        let seen = arrived.clone();
        let address = listen(move |mut socket| {
            let mut bytes = Vec::new();
            let header = loop {
                let mut byte = [0];
                if socket.read(&mut byte).ok() != Some(1) {
                    return;
                }
                bytes.push(byte[0]);
                match read(&bytes) {
                    Ok(None) => {}
                    Ok(Some(header)) => break header,
                    Err(_) => return,
                }
            };
            let version = if bytes[0] == b'P' { Version::V1 } else { Version::V2 };
            let at = {
                let mut seen = seen.lock().unwrap();
                seen.push(Arrived { addresses: header.addresses, version, open: true });
                seen.len() - 1
            };
            if let Ok(inside) = TcpStream::connect(target) {
                splice(socket, inside);
            }
            seen.lock().unwrap()[at].open = false;
        });
        Reader { address, arrived }
    }

    fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }

    /// The clients of the connections that are open.
    fn clients(&self) -> Vec<SocketAddr> {
        let open = self.arrived().into_iter().filter(|one| one.open);
        open.filter_map(|one| one.addresses).map(|addresses| addresses.source).collect()
    }
}

/// Passes bytes on in both directions until one of them ends.
fn splice(outside: TcpStream, inside: TcpStream) {
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        move || {
            let mut block = [0; 16 * 1024];
            while let Ok(n @ 1..) = from.read(&mut block) {
                if to.write_all(&block[..n]).is_err() {
                    break;
                }
            }
            let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
        }
    };
    let again = |socket: &TcpStream| socket.try_clone().expect("a second handle");
    let back = std::thread::spawn(copy(again(&inside), again(&outside)));
    copy(outside, inside)();
    back.join().expect("it ends");
}

/// A reader before the way to a backend, and the way's `-b` argument with the reader's port.
fn through(way: &Way) -> (Reader, String) {
    let (prefix, port) = way.spec().rsplit_once(':').expect("a port");
    let reader = Reader::before(SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port"))));
    let spec = format!("{prefix}:{}", reader.address.port());
    (reader, spec)
}

/// Starts a balancer whose backend connections begin with a header.
fn start(pair: Pair, version: &str, way: &Way, front: &Front) -> (Balancer, Reader) {
    let (reader, spec) = through(way);
    let way_args: Vec<&str> = way.args().into_iter().skip(2).collect();
    let own = ["-b", &spec, "--send-proxy", version, "--health-check", "off"];
    let balancer = Balancer::start(pair.mode, &[&own[..], &way_args, &front.args()].concat());
    (balancer, reader)
}

#[test]
fn over_every_pair_of_protocols_a_connection_belongs_to_the_client_in_its_header() {
    for (nth, pair) in pairs().into_iter().enumerate() {
        let backend = Backend::named("a");
        let (way, front) = (Way::to(&backend, pair.back), Front::new(pair.front));
        let (name, version) = [("v1", Version::V1), ("v2", Version::V2)][nth % 2];
        let (balancer, reader) = start(pair, name, &way, &front);
        let own = balancer.address();
        let balancer = balancer.behind(&front);
        let ask = |client: &mut Wire| assert_eq!(client.get("/").text(), "a", "{pair:?} {}", balancer.log());
        let (mut one, mut two) = (balancer.connect(), balancer.connect());
        ask(&mut one);
        ask(&mut one);
        let [first] = reader.clients()[..] else { panic!("{pair:?}: {:?}", reader.arrived()) };
        ask(&mut two);
        let [_, second] = reader.clients()[..] else { panic!("{pair:?}: {:?}", reader.arrived()) };
        ask(&mut one);
        ask(&mut two);
        let arrived = reader.arrived();
        assert_eq!(arrived.len(), 2, "{pair:?}: {arrived:?}");
        for one in arrived {
            let addresses = one.addresses.expect("a client");
            assert_eq!((one.version, addresses.destination), (version, own), "{pair:?}");
        }
        assert!(first.port() != second.port() && first.ip() == second.ip(), "{pair:?}: {first} {second}");
        // A connection ends with its client.
        drop(one);
        wait_until("one is closed", || reader.clients() == [second]);
        ask(&mut two);
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0, "{pair:?}");
    }
}

#[test]
fn requests_at_the_same_time_share_the_address_of_their_connection() {
    for pair in pairs().into_iter().filter(|pair| pair.mode == Mode::Sp) {
        let backend = Backend::named("a");
        let (way, front) = (Way::to(&backend, pair.back), Front::new(pair.front));
        let (balancer, reader) = start(pair, "v2", &way, &front);
        let balancer = balancer.behind_one(&front);
        let clients: Vec<Wire> = (0..8).map(|_| balancer.connect()).collect();
        std::thread::scope(|scope| {
            for mut client in clients {
                scope.spawn(move || (0..5).for_each(|_| assert_eq!(client.get("/").text(), "a")));
            }
        });
        let mut sources: Vec<SocketAddr> =
            reader.arrived().iter().filter_map(|one| one.addresses).map(|one| one.source).collect();
        sources.sort();
        sources.dedup();
        let is_mux = matches!(pair.front, Protocol::H2c | Protocol::H2Tls);
        assert_eq!(sources.len(), if is_mux { 1 } else { 8 }, "{pair:?}");
    }
}

/// A backend over HTTP/1.1 that answers with the PROXY header of the connection, which is one of version 1.
fn echo(mut peer: Peer) {
    let Ok(line) = peer.until(b"\r\n") else { return };
    while peer.request().is_some() {
        if peer.try_send(response("", line.trim_ascii_end())).is_err() {
            return;
        }
    }
}

#[test]
fn the_header_has_the_address_that_a_trusted_proxy_has_sent() {
    for mode in modes() {
        let backend = Backend::serve(echo);
        let args = ["--send-proxy", "v1", "--listen", "127.0.0.1:0,proxy", "--trust", "127.0.0.1"];
        let balancer = Balancer::before(mode, &[&backend], &args);
        let mut client = Wire::tcp(crate::proxy_header::proxied(&balancer));
        let [source, destination] = ["192.0.2.1:1000", "[2001:db8::2]:443"].map(|text| text.parse().unwrap());
        let mut header = Vec::new();
        write(&mut header, Version::V2, Some(Addresses { source, destination }));
        client.send(header);
        // Fields say nothing about the connection.
        client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n");
        let expected = "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1000 443";
        assert_eq!(client.response("GET").text(), expected, "{mode:?}");
        assert_eq!(client.get("/").text(), expected, "{mode:?}");
    }
}

#[test]
fn unix_sockets_probes_and_tunnels_get_a_header() {
    for mode in modes() {
        let directory = Directory::new();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = lines.clone();
        let backend = Backend::serve_unix(&directory.file("s"), move |mut peer| {
            let Ok(line) = peer.until(b"\r\n") else { return };
            seen.lock().unwrap().push(String::from_utf8(line).unwrap());
            while let Some(request) = peer.request() {
                if request.has("upgrade") {
                    peer.send("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
                    let Ok(bytes) = peer.exactly(4) else { return };
                    peer.send(bytes);
                    return;
                }
                if peer.try_send(response("", b"")).is_err() {
                    return;
                }
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &["--send-proxy", "v1", "--health-interval", "50ms"]);
        wait_until("a probe passes", || balancer.metric("zzz_lb_probes_total", "passed") > 0);
        assert_eq!(lines.lock().unwrap()[0], "PROXY UNKNOWN\r\n");
        let mut client = balancer.connect();
        assert_eq!(client.get("/").status(), 200);
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
        assert_eq!(client.head().expect("a head").status(), 101);
        client.send("ping");
        assert_eq!(client.exactly(4).as_deref(), Ok(&b"ping"[..]));
        let lines = lines.lock().unwrap();
        let port = balancer.address().port();
        let own = lines.iter().filter(|line| line.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "));
        let own: Vec<_> = own.filter(|line| line.ends_with(&format!(" {port}\r\n"))).collect();
        assert_eq!(own.len(), 1, "the tunnel uses the connection of the request: {lines:?}");
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0);
    }
}

#[test]
fn a_reload_of_the_option_applies_to_new_connections_and_retires_others() {
    for mode in modes() {
        let directory = Directory::new();
        let plain = Backend::named("plain");
        let reader = Reader::before(plain.spec().parse().unwrap());
        let text = |backend: &str, option: &str| format!("{{\"backends\": [\"{backend}\"]{option}}}");
        let off = ", \"health_check\": \"off\"";
        let on = format!("{off}, \"send_proxy\": \"v2\"");
        let file = directory.put("lb.json", &text(&plain.spec(), off));
        let balancer = Balancer::with_file(mode, &file, &[]);
        let mut client = balancer.connect();
        assert_eq!(client.get("/").text(), "plain");
        assert_eq!(plain.open(), 1);
        // The same backend gets headers from now on, so a connection without one is not used again.
        directory.put("lb.json", &text(&plain.spec(), &on));
        wait_until("the pooled connection is closed", || plain.open() == 0);
        directory.put("lb.json", &text(&reader.address.to_string(), &on));
        wait_until("it is reloaded", || balancer.metric("zzz_lb_reloads_total", "done") == 2);
        assert_eq!(client.get("/").text(), "plain");
        assert_eq!(reader.clients().len(), 1, "{mode:?} {}", balancer.log());
        // Nobody may share a connection that belongs to a client.
        directory.put("lb.json", &text(&reader.address.to_string(), off));
        wait_until("the connection with the header is closed", || reader.clients().is_empty());
    }
}

#[test]
fn check_sends_the_header_too_and_the_demo_reads_none() {
    let backend = Backend::named("a");
    let reader = Reader::before(backend.spec().parse().unwrap());
    let spec = reader.address.to_string();
    let checked =
        command(&["--check", "-b", &spec, "--send-proxy", "v2", "--health-interval", "1s"]).output().expect("it runs");
    assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stderr));
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(text.contains("GET / -> 200"), "{text}");
    let [one] = reader.arrived()[..] else { panic!("{:?}", reader.arrived()) };
    assert!(one.addresses.is_none() && one.version == Version::V2);
    let demo = command(&["--demo", "--send-proxy", "v1"]).output().expect("it runs");
    assert_eq!(demo.status.code(), Some(2));
    let text = String::from_utf8_lossy(&demo.stderr).into_owned();
    assert!(text.contains("--send-proxy: the demo's backends read no PROXY headers"), "{text}");
}
