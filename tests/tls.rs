//! Backends that speak TLS: verified by name, whole, cut, or not what they should be.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::certificate::{Authority, Issued, Spec};
use crate::support::{Backend, Balancer, Directory, Fault, Mode, modes};

/// A server whose every connection runs in a thread of its own; its port.
fn server(issued: &Issued) -> u16 {
    let key = PrivatePkcs8KeyDer::from(issued.key.clone()).into();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = config.with_no_client_auth().with_single_cert(vec![issued.der.clone().into()], key);
    let config = Arc::new(config.expect("a certificate and its key"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let config = config.clone();
            std::thread::spawn(move || {
                let session = ServerConnection::new(config).expect("a session");
                serve(StreamOwned::new(session, socket));
            });
        }
    });
    port
}

fn serve(mut stream: StreamOwned<ServerConnection, TcpStream>) {
    loop {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let host = text.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap_or_default().to_owned();
        let answer = match text.split(' ').nth(1).unwrap_or_default() {
            "/large" => {
                [b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n".to_vec(), vec![b'l'; 3_000_000]].concat()
            }
            "/hold" => [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'h'; 100_000]].concat(),
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
            // Its own direction has ended, and it waits for the other.
            let _ = stream.sock.read(&mut [0; 100]);
            return;
        }
        if text.starts_with("GET /cut") || text.starts_with("GET /end") {
            return;
        }
    }
}

fn authority() -> (Authority, Directory, PathBuf) {
    let authority = Authority::new("root");
    let directory = Directory::new();
    let path = directory.put("ca.pem", &authority.pem());
    (authority, directory, path)
}

fn named<'a>(names: &'a [&'a str]) -> Spec<'a> {
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
        // A backend that is given by name, and has TLS, gets its own Host.
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
        assert_eq!(balancer.metric("zzz_lb_certificate_expiry_seconds", ""), 4_733_510_400);
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0);
    }
}

#[test]
fn a_certificate_that_is_not_right_is_refused_by_name() {
    for mode in modes() {
        let (authority, _directory, roots) = authority();
        let roots = roots.to_str().expect("text");
        let expired = Spec { not_after: "20210101000000", ..named(&["localhost"]) };
        let stranger = Authority::new("stranger");
        for (issued, words) in [
            (authority.issue(&named(&["other.test"])), "another name"),
            (authority.issue(&expired), "expired"),
            (stranger.issue(&named(&["localhost"])), "unknown issuer"),
        ] {
            let spec = format!("https://localhost:{}", server(&issued));
            let balancer = Balancer::start(mode, &["-b", &spec, "--ca-file", roots]);
            let answer = balancer.connect().get("/");
            assert_eq!(answer.status(), 502);
            assert!(answer.text().contains(words), "{mode:?}: {} for {words}", answer.text());
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
    // What a start would be refused for is a problem, and the backends are dialled all the same.
    let absent = directory.file("absent.pem");
    let (plan, problems, status) = check(&["--ca-file", absent.to_str().expect("text")]);
    assert_eq!(status, Some(2), "{problems}");
    assert!(problems.contains("absent.pem") && plan.contains(&format!("127.0.0.1:{good} reachable")), "{problems}");
}

#[test]
fn what_is_no_tls_is_called_so_and_another_backend_serves() {
    for mode in modes() {
        // It speaks first, as one does that has read no request and closes.
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
fn sessions_are_told_of_where_that_is_wanted_and_secrets_only_then() {
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
        // The server ends the first connection, so that the second session is a resumed one.
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
fn a_handshake_that_fails_is_told_of() {
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
fn a_trace_shows_what_is_inside_tls() {
    let (authority, _directory, roots) = authority();
    let port = server(&authority.issue(&named(&["localhost"])));
    let spec = format!("https://localhost:{port}");
    let args = ["-b", &spec, "--ca-file", roots.to_str().expect("text"), "-t"];
    let balancer = Balancer::start(Mode::Sp, &args);
    assert_eq!(balancer.connect().get("/path").status(), 200);
    let log = balancer.wait_for_log("response head");
    assert!(log.contains("to backend localhost") && log.contains("GET /path HTTP/1"), "{log}");
}
