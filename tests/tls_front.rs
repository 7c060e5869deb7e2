//! Clients with TLS: certificates by name, other certificates while the program runs, resumption over workers, reloads
//! and upgrades, client certificates, and clients that do not speak TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use crate::support::certificate::{Authority, Issued, Spec};
use crate::support::{
    Backend, Balancer, DEADLINE, Directory, Exit, Mode, modes, open_descriptors, wait_until, wait_until_still,
};

/// An authority, and the files of the certificates that it has issued.
struct Scene {
    authority: Authority,
    directory: Directory,
}

impl Scene {
    fn new() -> Scene {
        Scene { authority: Authority::new("authority"), directory: Directory::new() }
    }

    fn issue(&self, names: &[&str]) -> Issued {
        self.authority.issue(&Spec { names, ..Spec::new(names[0]) })
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Replaces a file as a whole.
    fn put(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(self.path("new"), text).expect("a file can be written");
        std::fs::rename(self.path("new"), &path).expect("a file can be renamed");
        path
    }

    /// Writes a certificate and its key, and returns the options for them.
    fn pair(&self, name: &str, names: &[&str]) -> [String; 4] {
        let issued = self.issue(names);
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        let paths = (self.put(&certificate, &issued.pem()), self.put(&key, &issued.key_pem()));
        ["--tls-cert".into(), paths.0, "--tls-key".into(), paths.1]
    }

    /// A client that trusts the authority.
    fn client(&self) -> ClientConfig {
        let (roots, builder) = (self.roots(), builder());
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(8);
        config
    }

    /// A client with a certificate of its own.
    fn client_with(&self, own: &Issued) -> ClientConfig {
        let key = PrivatePkcs8KeyDer::from(own.key.clone()).into();
        let config = builder().with_root_certificates(self.roots());
        config.with_client_auth_cert(vec![own.der.clone().into()], key).expect("a certificate and its key")
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.authority.der.clone())).expect("an authority");
        roots
    }
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions")
}

fn start(mode: Mode, backend: &Backend, args: &[String]) -> Balancer {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Balancer::before(mode, &[backend], &args)
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Completes a handshake for this name.
fn secure(balancer: &Balancer, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<Stream> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let session = ClientConnection::new(config.clone(), name).expect("a session");
    let socket = TcpStream::connect(balancer.address())?;
    socket.set_read_timeout(Some(DEADLINE))?;
    let mut stream = StreamOwned::new(session, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// Sends a request, and returns the head and the content of the response.
fn ask(stream: &mut Stream, fields: &str) -> std::io::Result<String> {
    stream.write_all(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes())?;
    let mut text = Vec::new();
    loop {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            break;
        }
        text.push(byte[0]);
        let shown = String::from_utf8_lossy(&text);
        if let Some((head, content)) = shown.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
            if length.and_then(|length| length.parse::<usize>().ok()).is_some_and(|length| content.len() >= length) {
                break;
            }
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// A request on a connection of its own, and the kind of its handshake.
fn get(balancer: &Balancer, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<(String, HandshakeKind)> {
    let mut stream = secure(balancer, config, name)?;
    let text = ask(&mut stream, &format!("Host: {name}\r\n"))?;
    let kind = stream.conn.handshake_kind().expect("the handshake has ended");
    stream.conn.send_close_notify();
    let _ = stream.flush();
    Ok((text, kind))
}

fn metrics(balancer: &Balancer, config: &Arc<ClientConfig>) -> String {
    let mut stream = secure(balancer, config, "a.test").expect("a handshake");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").expect("it is sent");
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

#[test]
fn the_certificate_follows_from_the_name_and_the_backend_sees_https() {
    let scene = Scene::new();
    let options = [scene.pair("a", &["a.test"]), scene.pair("b", &["*.b.test"])].concat();
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = start(mode, &backend, &[options.clone(), vec!["--hsts".into(), "365d".into()]].concat());
        let config = Arc::new(scene.client());
        for name in ["a.test", "x.b.test"] {
            let (text, _) = get(&balancer, &config, name).expect(name);
            assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("backend"), "{mode:?}: {text}");
            assert!(text.contains("Strict-Transport-Security: max-age=31536000\r\n"), "{text}");
            let request = backend.requests().pop().expect("a request");
            assert_eq!(request.value("X-Forwarded-Proto"), Some("https"), "{mode:?}");
        }
        // An unknown name gets the first certificate.
        assert!(get(&balancer, &config, "c.test").is_err());
        let log = balancer.wait_for_log(": handshake failed: the client sent alert ");
        let line = log.lines().find(|line| line.contains("handshake failed")).expect("just seen");
        assert!(line.contains(" info tls: client 127.0.0.1:") && line.ends_with(" (SNI c.test)"), "{mode:?}: {line}");
        let expiry = "served_certificate_expiry_timestamp_seconds{certificate=\"";
        assert!(metrics(&balancer, &config).contains(expiry), "{mode:?}");
        // Another certificate covers the host.
        let mut stream = secure(&balancer, &config, "a.test").unwrap();
        assert!(ask(&mut stream, "Host: y.b.test\r\n").unwrap().starts_with("HTTP/1.1 421"), "{mode:?}");
        balancer.wait_for_log("please use another connection (Host y.b.test, SNI a.test)\"");
        assert!(ask(&mut stream, "Host: unknown.test\r\n").unwrap().starts_with("HTTP/1.1 200"), "{mode:?}");
        let counted = "zzz_lb_own_responses_total{code=\"421\"} 1\n";
        wait_until("it is counted", || metrics(&balancer, &config).contains(counted));
    }
}

#[test]
fn handshakes_are_counted_by_result_version_and_resumption() {
    let scene = Scene::new();
    let options = [scene.pair("a", &["a.test"]).to_vec(), vec!["--tls-strict-sni".into()]].concat();
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = start(mode, &backend, &options);
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]);
            let config = builder.expect("a version").with_root_certificates(scene.roots()).with_no_client_auth();
            let config = Arc::new(config);
            assert_eq!(get(&balancer, &config, "a.test").unwrap().1, HandshakeKind::Full, "{mode:?} {version:?}");
            assert_eq!(get(&balancer, &config, "a.test").unwrap().1, HandshakeKind::Resumed, "{mode:?} {version:?}");
        }
        let config = Arc::new(scene.client());
        secure(&balancer, &config, "c.test").expect_err("it is refused");
        let mut plain = TcpStream::connect(balancer.address()).unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        drop(secure(&balancer, &config, "a.test").unwrap());
        scene.put("a.key", "half of a ke");
        balancer.wait_for_log("the one before stays");
        let has = |family: &str, label: &str, value: u64| {
            let line = format!("zzz_lb_{family}{{{label}}} {value}\n");
            wait_until(&line, || metrics(&balancer, &config).contains(&line));
        };
        has("client_handshakes_total", "version=\"1.2\",resumed=\"no\"", 1);
        has("client_handshakes_total", "version=\"1.2\",resumed=\"yes\"", 1);
        has("client_handshake_failures_total", "reason=\"unknown_name\"", 1);
        has("client_handshake_failures_total", "reason=\"not_tls\"", 1);
        has("own_responses_total", "code=\"400\"", 1);
        has("certificate_reloads_total", "result=\"refused\"", 1);
        let text = metrics(&balancer, &config);
        assert!(text.contains("client_handshakes_total{version=\"1.3\",resumed=\"yes\"} "), "{mode:?}");
        scene.pair("a", &["a.test"]);
    }
}

#[test]
fn strict_sni_refuses_other_names() {
    let scene = Scene::new();
    let options = [scene.pair("a", &["a.test"]).to_vec(), vec!["--tls-strict-sni".into()]].concat();
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = start(mode, &backend, &options);
        let config = Arc::new(scene.client());
        get(&balancer, &config, "a.test").unwrap();
        let error = secure(&balancer, &config, "c.test").expect_err("it is refused").to_string();
        assert!(error.to_lowercase().contains("unrecogni"), "{mode:?}: {error}");
    }
}

#[test]
fn plain_http_on_the_tls_port_gets_one_reply_that_explains_it() {
    let scene = Scene::new();
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = start(mode, &backend, &scene.pair("a", &["a.test"]));
        let mut socket = TcpStream::connect(balancer.address()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 400") && text.contains("this port speaks TLS"), "{mode:?}: {text}");
        assert_eq!((text.matches("HTTP/1.1").count(), backend.requests().len()), (1, 0), "{mode:?}");
    }
}

#[test]
fn a_stalled_handshake_ends_within_the_request_timeout_and_blames_no_backend() {
    let scene = Scene::new();
    let options = [scene.pair("a", &["a.test"]).to_vec(), vec!["--request-timeout".into(), "300ms".into()]].concat();
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = start(mode, &backend, &options);
        let mut socket = TcpStream::connect(balancer.address()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
        let begun = Instant::now();
        let _ = socket.read_to_end(&mut Vec::new());
        assert!(begun.elapsed() >= Duration::from_millis(200), "{mode:?}");
        let config = Arc::new(scene.client());
        let metrics = || metrics(&balancer, &config);
        wait_until("it is counted", || metrics().contains("client_handshake_failures_total{reason=\"timeout\"} 1\n"));
        assert!(!metrics().contains("zzz_lb_failures_total{"), "{mode:?}");
    }
}

#[test]
fn a_client_hello_may_arrive_byte_by_byte() {
    let scene = Scene::new();
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = start(mode, &backend, &scene.pair("a", &["a.test"]));
        let name = ServerName::try_from("a.test").unwrap();
        let config = Arc::new(scene.client());
        let mut hello = Vec::new();
        let mut session = ClientConnection::new(config.clone(), name.clone()).unwrap();
        session.write_tls(&mut hello).unwrap();
        // Each byte is a segment of its own in the first connection. The others are split at one place each.
        for step in [1, 5, hello.len() - 1] {
            let mut session = ClientConnection::new(config.clone(), name.clone()).unwrap();
            let mut hello = Vec::new();
            session.write_tls(&mut hello).unwrap();
            let mut socket = TcpStream::connect(balancer.address()).unwrap();
            socket.set_nodelay(true).unwrap();
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            hello.chunks(step).for_each(|piece| socket.write_all(piece).unwrap());
            let mut stream = StreamOwned::new(session, socket);
            let text = ask(&mut stream, "Host: a.test\r\n").unwrap();
            assert!(text.ends_with("backend"), "{mode:?}: {text}");
        }
    }
}

#[test]
fn a_bad_file_keeps_the_certificate_and_a_good_one_is_served_within_a_second() {
    let scene = Scene::new();
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = start(mode, &backend, &scene.pair("a", &["a.test"]));
        let config = Arc::new(scene.client());
        let served = || secure(&balancer, &config, "a.test").unwrap().conn.peer_certificates().unwrap()[0].to_vec();
        let before = served();
        let other = scene.issue(&["a.test"]);
        scene.put("a.key", "half of a ke");
        balancer.wait_for_log("the one before stays");
        assert_eq!(served(), before, "{mode:?}");
        scene.put("a.pem", &other.pem());
        assert_eq!(served(), before, "{mode:?}: the key does not belong to it");
        scene.put("a.key", &other.key_pem());
        let begun = Instant::now();
        wait_until("it is served", || served() == other.der);
        // A second, and the time that a busy machine takes for handshakes.
        assert!(begun.elapsed() < Duration::from_secs(5), "{mode:?}: {:?}", begun.elapsed());
        let lines = balancer.log().matches("the one before stays").count();
        assert!((1..=2).contains(&lines), "{mode:?}: {}", balancer.log());
        balancer.wait_for_log("another certificate is served, for a.test");
    }
}

#[test]
fn sessions_resume_in_every_worker_after_a_reload_and_after_an_upgrade() {
    let scene = Scene::new();
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = start(mode, &backend, &scene.pair("a", &["a.test"]));
        let config = Arc::new(scene.client());
        assert_eq!(get(&balancer, &config, "a.test").unwrap().1, HandshakeKind::Full, "{mode:?}");
        let resumed = |what: &str| {
            // Each connection comes to any of the workers.
            for _ in 0..8 {
                assert_eq!(
                    get(&balancer, &config, "a.test").expect(what).1,
                    HandshakeKind::Resumed,
                    "{mode:?}: {what}"
                );
            }
        };
        resumed("at first");
        balancer.signal(libc::SIGHUP);
        balancer.wait_for_log("certificates and keys are read again");
        resumed("after a reload");
        for generation in 1..=3 {
            balancer.signal(libc::SIGUSR2);
            balancer.wait_for_log(&format!("(generation {generation})"));
            resumed("after an upgrade");
        }
    }
}

#[test]
fn sessions_resume_after_an_upgrade_to_a_program_with_another_layout() {
    let another = crate::upgrade_layout::with_another_metric();
    let scene = Scene::new();
    for mode in modes() {
        let backend = Backend::named("backend");
        let program = std::fs::read(env!("CARGO_BIN_EXE_load_balancer")).expect("it is there");
        let copy = scene.directory.put_program("lb", &program, 0o755);
        let mut started = std::process::Command::new(&copy);
        started.args(["-p", "0", "--host", "127.0.0.1", "-b", &backend.spec()]).args(mode.args());
        started.args(scene.pair("a", &["a.test"])).env_clear().env("LB_HEALTH_INTERVAL", "off");
        let balancer = Balancer::spawn(started);
        let config = Arc::new(scene.client());
        assert_eq!(get(&balancer, &config, "a.test").unwrap().1, HandshakeKind::Full, "{mode:?}");
        scene.directory.put_program("lb", &std::fs::read(another).expect("it is there"), 0o755);
        balancer.signal(libc::SIGUSR2);
        balancer.wait_for_log("(generation 1)");
        assert!(balancer.log().contains("has another layout"), "{}", balancer.log());
        for _ in 0..8 {
            assert_eq!(get(&balancer, &config, "a.test").unwrap().1, HandshakeKind::Resumed, "{mode:?}");
        }
    }
}

#[test]
fn a_client_that_only_ends_its_direction_gets_its_response() {
    let scene = Scene::new();
    for mode in modes() {
        let content = vec![b'x'; 8_000_000];
        let backend = Backend::replying(crate::support::response("", &content));
        let balancer = start(mode, &backend, &scene.pair("a", &["a.test"]));
        let mut stream = secure(&balancer, &Arc::new(scene.client()), "a.test").unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
        let mut all = vec![0; 1000];
        stream.read_exact(&mut all).expect("the response begins");
        // There is no close_notify.
        stream.sock.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut all);
        assert!(all.len() > content.len(), "{mode:?}: {}", all.len());
    }
}

/// A client that resets its connection has bytes of the balancer that it has not read, such as a ticket.
#[test]
fn a_client_that_resets_its_connection_leaves_nothing_behind() {
    let scene = Scene::new();
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = start(mode, &backend, &scene.pair("a", &["a.test"]));
        let config = Arc::new(scene.client());
        get(&balancer, &config, "a.test").unwrap();
        let open = || balancer.serving().into_iter().map(open_descriptors).sum::<usize>();
        let before = wait_until_still(|| open() as u64);
        for _ in 0..8 {
            let stream = secure(&balancer, &config, "a.test").unwrap();
            // The ticket arrives, and the client does not read it. So the system sends RST.
            wait_until("the ticket is there", || stream.sock.peek(&mut [0]).is_ok_and(|n| n > 0));
        }
        wait_until("each socket is closed", || open() as u64 <= before);
        assert_eq!(balancer.stop(), Exit::Status(0), "{mode:?}");
    }
}

#[test]
fn other_certificates_under_load_lose_nothing() {
    let scene = Scene::new();
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = start(mode, &backend, &scene.pair("a", &["a.test"]));
        let mut config = scene.client();
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);
        let (done, served) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut kept = secure(&balancer, &config, "a.test").expect("a kept connection");
                    while !done.load(SeqCst) {
                        let (text, _) = get(&balancer, &config, "a.test").expect("a fresh connection");
                        assert!(text.ends_with("backend"), "{text}");
                        assert!(ask(&mut kept, "Host: a.test\r\n").expect("it goes on").ends_with("backend"));
                        served.fetch_add(1, SeqCst);
                    }
                });
            }
            for round in 1..=20 {
                let before = served.load(SeqCst);
                let other = scene.issue(&["a.test"]);
                scene.put("a.pem", &other.pem());
                scene.put("a.key", &other.key_pem());
                wait_until("another certificate is served", || {
                    balancer.log().matches("another certificate is served").count() >= round
                });
                wait_until("clients are served", || served.load(SeqCst) > before);
            }
            done.store(true, SeqCst);
        });
    }
}

#[test]
fn a_client_certificate_is_required_and_passed_on_and_never_taken_from_a_client() {
    let scene = Scene::new();
    let clients = Authority::new("clients");
    let own = clients.issue(&Spec::new("client"));
    let ca = scene.put("ca.pem", &clients.pem());
    let options = [scene.pair("a", &["a.test"]).to_vec(), vec!["--tls-client-ca".into(), ca]].concat();
    let optional =
        [options.clone(), vec!["--tls-client-optional".into(), "--trust".into(), "127.0.0.1".into()]].concat();
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = start(mode, &backend, &options);
        let anonymous = Arc::new(scene.client());
        assert!(get(&balancer, &anonymous, "a.test").is_err(), "{mode:?}");
        let known = Arc::new(scene.client_with(&own));
        get(&balancer, &known, "a.test").unwrap();
        let request = backend.requests().pop().expect("a request");
        let value = request.value("Client-Cert").expect("it is passed on").to_owned();
        assert!(value.starts_with(":MII") || value.starts_with(":MI"), "{value}");
        assert!(value.ends_with(':') && request.value("Client-Cert-Chain").is_none(), "{value}");

        let balancer = start(mode, &backend, &optional);
        let mut stream = secure(&balancer, &anonymous, "a.test").unwrap();
        ask(&mut stream, "Host: a.test\r\nClient-Cert: :AA==:\r\nClient-Cert-Chain: :AA==:\r\n").unwrap();
        let request = backend.requests().pop().expect("a request");
        assert_eq!((request.value("Client-Cert"), request.value("Client-Cert-Chain")), (None, None), "{mode:?}");
    }
}

#[test]
fn other_authorities_of_clients_refuse_the_sessions_of_before() {
    let scene = Scene::new();
    let (clients, others) = (Authority::new("clients"), Authority::new("others"));
    let own = clients.issue(&Spec::new("client"));
    for mode in modes() {
        let ca = scene.put("ca.pem", &clients.pem());
        let options = [scene.pair("a", &["a.test"]).to_vec(), vec!["--tls-client-ca".into(), ca]].concat();
        let backend = Backend::named("backend");
        let balancer = start(mode, &backend, &options);
        let known = Arc::new(scene.client_with(&own));
        get(&balancer, &known, "a.test").unwrap();
        assert_eq!(get(&balancer, &known, "a.test").unwrap().1, HandshakeKind::Resumed, "{mode:?}");
        scene.put("ca.pem", &others.pem());
        wait_until("others are asked for", || get(&balancer, &known, "a.test").is_err());
        assert!(get(&balancer, &known, "a.test").is_err(), "{mode:?}");
        scene.put("ca.pem", &clients.pem());
        wait_until("they are known again", || get(&balancer, &known, "a.test").is_ok());
    }
}

#[test]
fn a_start_without_a_usable_certificate_is_refused_by_name() {
    let scene = Scene::new();
    let [_, certificate, _, key] = scene.pair("a", &["a.test"]);
    let other: PathBuf = scene.path("absent.pem").into();
    for (args, wanted) in [
        (vec!["--tls-cert", &certificate], "there is no private key: no BEGIN PRIVATE KEY"),
        (vec!["--tls-cert", other.to_str().unwrap(), "--tls-key", &key], "absent.pem"),
    ] {
        for check in [&["--host", "127.0.0.1"][..], &["--check"]] {
            let output = crate::support::run(&[&["-p", "0"], check, &args[..]].concat());
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(2) && errors.contains(wanted), "{check:?} {args:?}: {errors}");
        }
    }
}

#[test]
fn a_generated_certificate_serves_localhost() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &["--tls-dev"]);
        let curl = std::process::Command::new("curl")
            .args(["-sk", &format!("https://localhost:{}/", balancer.address().port())])
            .output();
        let Ok(output) = curl else { return crate::support::skipped("curl is absent") };
        assert_eq!(String::from_utf8_lossy(&output.stdout), "backend", "{mode:?}");
    }
}

#[test]
fn the_trace_of_a_client_has_its_name_and_says_that_it_has_no_certificate() {
    let scene = Scene::new();
    let options = [scene.pair("a", &["a.test"]).to_vec(), vec!["--tls-trace".into()]].concat();
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = start(mode, &backend, &options);
        get(&balancer, &Arc::new(scene.client()), "a.test").expect("a response");
        let log = balancer.wait_for_log(": the client has no certificate");
        assert!(log.contains(", SNI a.test, ALPN none, full"), "{mode:?}: {log}");
        assert!(!log.contains(": verified"), "{mode:?}: {log}");
    }
}
