//! Backends with TLS: verified by name, complete, cut, or faulty.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;

use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{OutboundChunks, OutboundPlainMessage};
use rustls::crypto::ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 as SUITE;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{
    ConnectionTrafficSecrets, ContentType, ProtocolVersion, ServerConfig, ServerConnection, StreamOwned,
    SupportedCipherSuite,
};

use crate::support::certificate::{Authority, Issued, Spec, self_signed};
use crate::support::{
    Backend, Balancer, DEADLINE, Directory, Fault, Gate, Mode, Socket, Wire, is_asleep, modes, send_signal,
    shrink_room, unread, wait_until,
};

/// A server with a thread for each connection. Returns its port.
fn server(issued: &Issued) -> u16 {
    server_on(TcpListener::bind("127.0.0.1:0").expect("loopback has a free port"), issued, &Gate::shut())
}

/// Like `server`, on a listener. In a tunnel it reads nothing before the gate is open.
pub(crate) fn server_on(listener: TcpListener, issued: &Issued, gate: &Gate) -> u16 {
    let verifier = rustls::server::NoClientAuth;
    server_with(listener, issued, gate, Arc::new(verifier))
}

/// Like `server_on`, with a verifier of client certificates.
fn server_with(listener: TcpListener, issued: &Issued, gate: &Gate, clients: Arc<dyn ClientCertVerifier>) -> u16 {
    let gate = gate.clone();
    let key = PrivatePkcs8KeyDer::from(issued.key.clone()).into();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = config.with_client_cert_verifier(clients).with_single_cert(vec![issued.der.clone().into()], key);
    let config = Arc::new(config.expect("a certificate and its key"));
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let (config, gate) = (config.clone(), gate.clone());
            std::thread::spawn(move || {
                let session = ServerConnection::new(config).expect("a session");
                serve(StreamOwned::new(session, socket), &gate);
            });
        }
    });
    port
}

fn serve(mut stream: StreamOwned<ServerConnection, TcpStream>, gate: &Gate) {
    loop {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                // Reads to the end, so that a reset does not destroy the response.
                _ => {
                    return drop(
                        stream.sock.shutdown(Shutdown::Write).and_then(|()| stream.sock.read_to_end(&mut head)),
                    );
                }
            }
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let host = text.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap_or_default().to_owned();
        let answer = match text.split(' ').nth(1).unwrap_or_default() {
            "/large" => {
                [b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n".to_vec(), vec![b'l'; 3_000_000]].concat()
            }
            "/garbled" => return garble(stream),
            "/hold" => [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'h'; 100_000]].concat(),
            "/tunnel" | "/ended" => {
                let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: count\r\n\r\n";
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.flush());
                return count(stream, gate, text.starts_with("GET /ended"));
            }
            "/cut" | "/end" => b"HTTP/1.1 200 OK\r\n\r\nas far as it goes".to_vec(),
            _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{host}", host.len()).into_bytes(),
        };
        if stream.write_all(&answer).and_then(|()| stream.flush()).is_err() {
            return;
        }
        if text.starts_with("GET /end") || text.starts_with("GET /hold") {
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
        if text.starts_with("GET /hold") {
            // The server's direction has ended, and it waits for the other.
            let _ = stream.sock.read(&mut [0; 100]);
            return;
        }
        if text.starts_with("GET /cut") || text.starts_with("GET /end") {
            return;
        }
    }
}

/// Answers, and then sends bytes that are not a TLS record.
fn garble(mut stream: StreamOwned<ServerConnection, TcpStream>) {
    let answer = [b"HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n".to_vec(), vec![b'g'; 30_000]].concat();
    let mut bytes = Vec::new();
    stream.conn.writer().write_all(&answer).expect("there is room");
    while stream.conn.wants_write() {
        stream.conn.write_tls(&mut bytes).expect("a vector takes all");
    }
    bytes.extend([23, 3, 3, 0, 32]);
    bytes.extend([0; 32]);
    let _ = stream.sock.write_all(&bytes);
    let _ = stream.sock.read_to_end(&mut bytes);
}

/// Reads everything once the gate is open, and reports its length: in the tunnel, or, if its own direction must
/// end before, to a client of the port that it sent there.
fn count(mut stream: StreamOwned<ServerConnection, TcpStream>, gate: &Gate, ended: bool) {
    let elsewhere = ended.then(|| TcpListener::bind("127.0.0.1:0").expect("loopback has a free port"));
    if let Some(elsewhere) = &elsewhere {
        let port = elsewhere.local_addr().expect("bound").port();
        stream.write_all(format!("{port}\n").as_bytes()).expect("the balancer reads");
        stream.conn.send_close_notify();
        stream.flush().expect("the balancer reads");
        stream.sock.shutdown(Shutdown::Write).expect("connected");
    }
    gate.pass();
    let (mut sum, mut block) = (0, vec![0; 64 * 1024]);
    let how = loop {
        match stream.read(&mut block) {
            Ok(0) => break "to the end".to_owned(),
            Ok(n) => sum += n,
            Err(error) => break error.to_string(),
        }
    };
    let said = format!("{sum} {how}");
    let _ = match elsewhere {
        Some(elsewhere) => elsewhere.accept().and_then(|(mut socket, _)| socket.write_all(said.as_bytes())),
        None => stream.write_all(said.as_bytes()),
    };
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

pub(crate) fn authority() -> (Authority, Directory, PathBuf) {
    let authority = Authority::new("root");
    let directory = Directory::new();
    let path = directory.put("ca.pem", &authority.pem());
    (authority, directory, path)
}

pub(crate) fn named<'a>(names: &'a [&'a str]) -> Spec<'a> {
    Spec { names, ..Spec::new("backend") }
}

#[test]
fn requests_and_bodies_pass_over_tls() {
    for mode in modes() {
        let (authority, _directory, roots) = authority();
        let port = server(&authority.issue(&named(&["localhost"])));
        let spec = format!("https://localhost:{port}");
        let balancer = Balancer::start(mode, &["-b", &spec, "--ca-file", roots.to_str().expect("text")]);
        let mut client = balancer.connect();
        // A TLS backend that is configured by name gets its own Host.
        assert_eq!(client.get("/").text(), format!("localhost:{port}"), "{mode:?}\n{}", balancer.log());
        for _ in 0..3 {
            assert_eq!(client.get("/large").text().len(), 3_000_000);
        }
        assert_eq!(client.get("/").status(), 200);
        assert!(balancer.metric("zzz_lb_pool_reuses_total", "") > 0);
        assert!(balancer.metric("zzz_lb_handshakes_total", "full") > 0);
        assert_eq!(balancer.metric("zzz_lb_handshakes_total", "failed"), 0);
        assert_eq!(balancer.metric("zzz_lb_insecure", ""), 0);
        // 2120-01-01.
        assert_eq!(balancer.metric("zzz_lb_certificate_expiry_timestamp_seconds", ""), 4_733_510_400);
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0);
    }
}

#[test]
fn an_invalid_certificate_is_refused_with_its_reason() {
    for mode in modes() {
        let (authority, _directory, roots) = authority();
        let roots = roots.to_str().expect("text");
        let expired = Spec { not_after: "20210101000000", ..named(&["localhost"]) };
        let stranger = Authority::new("stranger");
        for (issued, words) in [
            (authority.issue(&named(&["other.test"])), "another name"),
            (authority.issue(&expired), "expired"),
            (stranger.issue(&named(&["localhost"])), "unknown issuer"),
            (self_signed(&named(&["localhost"])), "self-signed"),
        ] {
            let spec = format!("https://localhost:{}", server(&issued));
            let balancer = Balancer::start(mode, &["-b", &spec, "--ca-file", roots]);
            let answer = balancer.connect().get("/");
            assert_eq!(answer.status(), 502);
            assert_eq!(
                answer.value("Proxy-Status"),
                Some("load_balancer; error=tls_certificate_error"),
                "{mode:?}: {words}"
            );
            balancer.wait_for_log(words);
            let insecure = Balancer::start(mode, &["-b", &spec, "-k"]);
            assert_eq!(insecure.connect().get("/").status(), 200, "{mode:?}: {words}");
            assert_eq!(insecure.metric("zzz_lb_insecure", ""), 1);
            assert!(balancer.metric("zzz_lb_handshakes_total", "failed") > 0);
        }
    }
}

#[test]
fn a_check_makes_handshakes_and_looks_at_the_authorities() {
    let (authority, directory, roots) = authority();
    let roots = roots.to_str().expect("text");
    let expired = Spec { not_after: "20210101000000", ..named(&["localhost"]) };
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let plain = Backend::serve(|mut peer| {
        let _ = peer.try_send("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        peer.request();
    });
    let good = server(&authority.issue(&named(&["localhost"])));
    let ports = [
        (good, "TLSv1.3, no ALPN"),
        (server(&authority.issue(&named(&["other.test"]))), "unusable (certificate is for another name)"),
        (server(&authority.issue(&expired)), "unusable (certificate expired)"),
        (plain.spec().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port"), "unusable (not TLS: "),
        (silent.local_addr().expect("bound").port(), "unusable (no handshake within 2000 ms)"),
    ];
    let specs: Vec<String> = ports.iter().map(|(port, _)| format!("https://localhost:{port}")).collect();
    let backends: Vec<&str> = specs.iter().flat_map(|spec| ["-b", spec]).collect();
    let check = |more: &[&str]| {
        let output = crate::support::run(&[&["--check", "-p", "0"], &backends[..], more].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr), output.status.code())
    };
    let (plan, warnings, status) = check(&["--ca-file", roots]);
    assert_eq!((status, warnings.lines().count()), (Some(0), 4), "{plan}{warnings}");
    for (port, words) in ports {
        let told = plan.lines().find(|line| line.contains(&format!("  127.0.0.1:{port} ")));
        assert!(told.is_some_and(|line| line.contains(words)), "{words}: {plan}");
    }
    // An error that would prevent a start is a problem, and the backends are dialled nevertheless.
    let absent = directory.file("absent.pem");
    let (plan, problems, status) = check(&["--ca-file", absent.to_str().expect("text")]);
    assert_eq!(status, Some(2), "{problems}");
    assert!(problems.contains("absent.pem") && plan.contains(&format!("127.0.0.1:{good} reachable")), "{problems}");
}

#[test]
fn hup_reads_the_authorities_again() {
    for mode in modes() {
        let (old, directory, roots) = authority();
        let fresh = Authority::new("fresh");
        let ports = [server(&old.issue(&named(&["localhost"]))), server(&fresh.issue(&named(&["localhost"])))];
        let specs = ports.map(|port| format!("\"https://localhost:{port}\""));
        let path = directory.put("lb.json", &format!("{{\"backends\": [{}]}}", specs[1]));
        let mut balancer = Balancer::with_file(mode, &path, &["--ca-file", roots.to_str().expect("text")]);
        assert_eq!(balancer.connect().get("/").status(), 502, "{mode:?}");
        // A file without a certificate changes nothing.
        directory.put("ca.pem", "none");
        balancer.signal(libc::SIGHUP);
        balancer.wait_for_log("the authorities before stay");
        directory.put("ca.pem", &fresh.pem());
        balancer.signal(libc::SIGHUP);
        wait_until("the fresh authority is believed", || balancer.connect().get("/").status() == 200);
        // The old certificate is no longer trusted, not even by workers that started later.
        if mode == Mode::Mp {
            balancer.workers().into_iter().for_each(|pid| assert!(send_signal(pid, libc::SIGKILL)));
            balancer.wait_for_log("respawned");
            wait_until("it is believed still", || balancer.connect().get("/").status() == 200);
        }
        directory.put("lb.json", &format!("{{\"backends\": [{}]}}", specs[0]));
        balancer.wait_for_log("+1 -1 ~0 backends");
        wait_until("all follow", || balancer.connect().get("/").status() == 502);
        assert!(balancer.runs());
    }
}

#[test]
fn a_backend_without_tls_is_reported_and_another_serves() {
    for mode in modes() {
        // The server sends first, like one that closes without reading a request.
        let plain = Backend::serve(|mut peer| {
            let _ = peer.try_send("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
            peer.request();
        });
        let good = Backend::named("good");
        let spec = format!("https://{}", plain.spec());
        let balancer = Balancer::start(mode, &["-k", "-b", &spec, "-b", &good.spec()]);
        let mut client = balancer.connect();
        (0..10).for_each(|_| assert_eq!(client.get("/").text(), "good", "{mode:?}"));
        balancer.wait_for_log("not TLS");
        balancer.wait_for_log(&format!("backend {} down after 3 failures", plain.spec()));
    }
}

#[test]
fn an_end_that_was_not_announced_is_a_cut() {
    for mode in modes() {
        let (authority, _directory, roots) = authority();
        let port = server(&authority.issue(&named(&["localhost"])));
        let spec = format!("https://localhost:{port}");
        let balancer = Balancer::start(mode, &["-b", &spec, "--ca-file", roots.to_str().expect("text")]);
        assert_eq!(balancer.connect().get("/end").text(), "as far as it goes", "{mode:?}");
        assert_eq!(balancer.connect().get("/hold").text().len(), 100_000, "{mode:?}");
        let mut client = balancer.connect();
        client.send("GET /cut HTTP/1.1\r\nHost: x\r\n\r\n");
        let cut = client.try_response("GET");
        assert!(matches!(cut, Err((Fault::Fin | Fault::Reset, _))), "{mode:?}: {cut:?}");
    }
}

#[test]
fn sessions_and_secrets_are_logged_only_on_request() {
    for mode in modes() {
        let (authority, directory, roots) = authority();
        let roots = roots.to_str().expect("text");
        let port = server(&authority.issue(&named(&["localhost", "other.test"])));
        let spec = format!("https://localhost:{port}");
        let secrets = directory.path().join("secrets");
        let start = |args: &[&str]| {
            let mut command =
                crate::support::command(&["-p", "0", "--host", "127.0.0.1", "-b", &spec, "--ca-file", roots]);
            command.args(args).args(if mode == Mode::Sp { ["--mode", "sp"] } else { ["-w", "1"] });
            command.env("SSLKEYLOGFILE", &secrets).env("LB_HEALTH_INTERVAL", "off");
            Balancer::spawn(command)
        };
        let quiet = start(&[]);
        assert_eq!(quiet.connect().get("/").status(), 200);
        assert!(!quiet.log().contains("trace tls"), "{}", quiet.log());
        assert!(!secrets.exists(), "secrets are written only beside a trace");
        let told = start(&["--tls-trace"]);
        // The server ends the first connection, so that the second session is resumed.
        assert_eq!(told.connect().get("/end").status(), 200);
        assert_eq!(told.connect().get("/").status(), 200);
        let log = told.wait_for_log("resumed");
        for part in [
            "TCP connect begins",
            "TCP connected in ",
            "handshake begins: SNI localhost, ALPN offered h2, http/1.1",
            "handshake done in ",
            "TLS 1.3, cipher suite TLS13_AES_",
            "group X25519",
            "ALPN none, full",
            "certificate: subject O=Tests, CN=backend",
            "names localhost, other.test, valid ",
            ": verified",
            "alert received: close_notify",
        ] {
            assert!(log.contains(part), "{mode:?}: {part}: {log}");
        }
        let secrets = std::fs::read_to_string(&secrets).expect("secrets of the sessions");
        assert!(secrets.contains("CLIENT_TRAFFIC_SECRET_0 "), "{secrets}");
    }
}

#[test]
fn a_failed_handshake_is_logged() {
    let (authority, _directory, roots) = authority();
    let expired = Spec { not_after: "20210101000000", ..named(&["localhost"]) };
    let spec = format!("https://localhost:{}", server(&authority.issue(&expired)));
    let roots = roots.to_str().expect("text");
    let balancer = Balancer::start(Mode::Sp, &["-b", &spec, "--ca-file", roots, "--tls-trace"]);
    assert_eq!(balancer.connect().get("/").status(), 502);
    let log = balancer.wait_for_log("handshake ended after ");
    for part in ["certificate expired", "alert sent: certificate_expired", "to 2021-01-01T00:00:00Z"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    let insecure = Balancer::start(Mode::Sp, &["-b", &spec, "-k", "--tls-trace"]);
    assert_eq!(insecure.connect().get("/").status(), 200);
    insecure.wait_for_log("not verified (--insecure): certificate of unknown issuer");
}

#[test]
fn a_secrets_file_that_cannot_be_written_is_an_error_at_the_start() {
    let mut command = crate::support::command(&["-p", "0", "-k", "-b", "https://localhost:1", "--tls-trace"]);
    let output = command.env("SSLKEYLOGFILE", "/nonexistent/secrets").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("SSLKEYLOGFILE /nonexistent/secrets"), "{said}");
}

#[test]
fn a_trace_shows_decrypted_content() {
    let (authority, _directory, roots) = authority();
    let port = server(&authority.issue(&named(&["localhost"])));
    let spec = format!("https://localhost:{port}");
    let args = ["-b", &spec, "--ca-file", roots.to_str().expect("text"), "-t"];
    let balancer = Balancer::start(Mode::Sp, &args);
    assert_eq!(balancer.connect().get("/path").status(), 200);
    let log = balancer.wait_for_log("response head");
    assert!(log.contains("to backend localhost") && log.contains("GET /path HTTP/1"), "{log}");
}

/// Waits until a balancer reads no more: it sleeps although it has unread data, and sends nothing more to its
/// backends. Returns the number of bytes sent.
fn wait_until_full(balancer: &Balancer, sent: impl Fn() -> u64, has_unread: impl Fn() -> bool) -> u64 {
    let (mut value, mut samples) = (sent(), 0);
    wait_until("it takes no more", || {
        samples += usize::from(has_unread() && balancer.serving().into_iter().all(is_asleep));
        let now = sent();
        if now != value {
            (value, samples) = (now, 0);
        }
        samples >= 10
    });
    value
}

/// A client in a tunnel. At `/ended` the backend's direction has ended, and it reports the received length on
/// that port.
pub(crate) fn tunnel(balancer: &Balancer, target: &str) -> (Wire, Option<u16>) {
    let mut client = balancer.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: count\r\n\r\n"));
    assert_eq!(client.response("GET").status(), 101);
    let elsewhere = (target == "/ended").then(|| client.until(b"\n").expect("a port"));
    let port = elsewhere.map(|port| String::from_utf8_lossy(&port).trim().parse().expect("a port"));
    (client, port)
}

/// The number of bytes that socket and session of a tunnel hold while the backend reads nothing.
fn fill_tunnel(balancer: &Balancer, target: &str) -> usize {
    let (full, _) = tunnel(balancer, target);
    let sender = Wire::shared(full.socket().clone());
    let stuck = std::thread::spawn(move || sender.try_send(vec![b'x'; 32 << 20]));
    let Socket::Tcp(socket) = &**full.socket() else { unreachable!("clients come over TCP") };
    let port = socket.local_addr().expect("it is connected").port();
    let sent = || balancer.metric("zzz_lb_sent_bytes_total", "");
    let most = wait_until_full(balancer, sent, || unread(balancer.address().port(), port) > 0) as usize;
    full.socket().shutdown(Shutdown::Both);
    assert!(stuck.join().expect("it sends").is_err(), "{most} bytes are all that is taken");
    most
}

/// The session's data at the end of an upload is not lost, even if the socket is full when the direction or the
/// connection ends.
#[test]
fn the_end_of_a_tunnel_waits_for_earlier_data() {
    let (authority, _directory, roots) = authority();
    let issued = authority.issue(&named(&["localhost"]));
    for (mode, target) in modes().into_iter().flat_map(|mode| [(mode, "/tunnel"), (mode, "/ended")]) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        shrink_room(listener.as_fd(), 16 * 1024);
        let gate = Gate::shut();
        let spec = format!("https://localhost:{}", server_on(listener, &issued, &gate));
        let balancer = Balancer::start(mode, &["-b", &spec, "--ca-file", roots.to_str().expect("text")]);
        let sent = || balancer.metric("zzz_lb_sent_bytes_total", "");
        let open = || tunnel(&balancer, target);
        let most = fill_tunnel(&balancer, target);
        // Somewhat below and above that capacity: some fill the socket and part of the session.
        let lengths: Vec<usize> = (0..20).map(|n| most - 48 * 1024 + n * 3072).collect();
        let clients: Vec<(Wire, Option<u16>)> = lengths.iter().map(|_| open()).collect();
        std::thread::scope(|scope| {
            for ((client, _), &length) in clients.iter().zip(&lengths) {
                scope.spawn(move || {
                    client.send(vec![b'x'; length]);
                    client.shutdown_write();
                });
            }
        });
        wait_until_full(&balancer, sent, || true);
        gate.open();
        for ((mut client, elsewhere), length) in clients.into_iter().zip(lengths) {
            let (said, _) = match elsewhere {
                Some(port) => Wire::tcp(([127, 0, 0, 1], port).into()).rest(),
                None => client.rest(),
            };
            let said = String::from_utf8_lossy(&said).into_owned();
            assert_eq!(said, format!("{length} to the end"), "{mode:?}, {target}");
        }
    }
}

/// In TLS 1.3, a server that requires a certificate reports it only after its client considers the handshake
/// complete.
#[test]
fn a_backend_that_requires_a_certificate_is_reported_and_another_serves() {
    let (authority, _directory, roots) = authority();
    let roots = roots.to_str().expect("text");
    let issued = authority.issue(&named(&["localhost"]));
    let mut trusted = rustls::RootCertStore::empty();
    trusted.add(authority.der.clone().into()).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(trusted), provider).build().expect("roots");
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let spec = format!("https://localhost:{}", server_with(listener, &issued, &Gate::shut(), verifier));
    for mode in modes() {
        let balancer = Balancer::start(mode, &["-b", &spec, "--ca-file", roots]);
        let answer = balancer.connect().get("/");
        assert_eq!(answer.status(), 502, "{mode:?}");
        assert_eq!(answer.value("Proxy-Status"), Some("load_balancer; error=tls_alert_received"), "{mode:?}");
        balancer.wait_for_log("handshake failed: alert certificate_required");
        let good = Backend::named("good");
        let balancer = Balancer::start(mode, &["-b", &spec, "-b", &good.spec(), "--ca-file", roots]);
        for _ in 0..8 {
            assert_eq!(balancer.connect().post("/", b"").text(), "good", "{mode:?}\n{}", balancer.log());
        }
        balancer.wait_for_log("down after 3 failures");
    }
}

#[test]
fn a_complete_response_counts_in_spite_of_later_faults() {
    let (authority, _directory, roots) = authority();
    let port = server(&authority.issue(&named(&["localhost"])));
    let spec = format!("https://localhost:{port}");
    for mode in modes() {
        let balancer = Balancer::start(mode, &["-b", &spec, "--ca-file", roots.to_str().expect("text")]);
        for _ in 0..4 {
            let answer = balancer.connect().post("/garbled", b"");
            assert_eq!((answer.status(), answer.text().len()), (200, 30_000), "{mode:?}\n{}", balancer.log());
        }
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0);
    }
}

/// Serves one request, then asks for a renegotiation (RFC 5246, 7.4.1.1). Returns the type of the next record.
fn ask_to_renegotiate(socket: TcpStream, config: Arc<ServerConfig>) -> Option<u8> {
    let session = ServerConnection::new(config).expect("a session");
    let mut stream = StreamOwned::new(session, socket);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood").and_then(|()| stream.flush()).ok()?;
    let StreamOwned { conn, mut sock } = stream;
    let (number, secrets) = conn.dangerous_extract_secrets().expect("the session stands").tx;
    let (SupportedCipherSuite::Tls12(suite), ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = (SUITE, secrets)
    else {
        panic!("no other is offered");
    };
    let payload = OutboundChunks::Single(&[0; 4]);
    let asks = OutboundPlainMessage { typ: ContentType::Handshake, version: ProtocolVersion::TLSv1_2, payload };
    let record = suite.aead_alg.encrypter(key, iv.as_ref(), &[]).encrypt(asks, number).expect("it is encrypted");
    sock.write_all(&record.encode()).ok()?;
    let mut kind = [0];
    sock.read_exact(&mut kind).ok()?;
    Some(kind[0])
}

#[test]
fn a_backend_that_asks_for_renegotiation_is_refused_at_once() {
    for mode in modes() {
        let (authority, _directory, roots) = authority();
        let issued = authority.issue(&named(&["localhost"]));
        let provider = CryptoProvider { cipher_suites: vec![SUITE], ..rustls::crypto::ring::default_provider() };
        let config = ServerConfig::builder_with_provider(Arc::new(provider));
        let config =
            config.with_protocol_versions(&[&rustls::version::TLS12]).expect("a version").with_no_client_auth();
        let key = PrivatePkcs8KeyDer::from(issued.key).into();
        let mut config = config.with_single_cert(vec![issued.der.into()], key).expect("a certificate and its key");
        config.enable_secret_extraction = true;
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let spec = format!("https://localhost:{}", listener.local_addr().expect("bound").port());
        let balancer = Balancer::start(mode, &["-b", &spec, "--ca-file", roots.to_str().expect("text")]);
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let (socket, _) = listener.accept().expect("a connection");
            let _ = sender.send(ask_to_renegotiate(socket, Arc::new(config)));
        });
        let mut client = balancer.connect();
        assert_eq!(client.get("/").text(), "good", "{mode:?}\n{}", balancer.log());
        // An alert record. The connection is idle, so no other record is sent on it.
        assert_eq!(receiver.recv_timeout(DEADLINE).expect("an answer"), Some(21), "{mode:?}");
    }
}
