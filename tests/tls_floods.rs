//! Clients with TLS that send records without content: each kind ends the connection, is counted by its reason, and is
//! one log line. Other clients are served.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use crate::support::certificate::{Authority, Spec};
use crate::support::records::{ALERT, DATA, HANDSHAKE, Records, Secrets};
use crate::support::{Backend, Balancer, DEADLINE, Directory, modes, wait_until};

/// A client that has ended its handshake: its socket and its records.
fn client(
    balancer: &Balancer,
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
) -> (TcpStream, Records) {
    let secrets = Arc::new(Secrets::default());
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone().into()).expect("an authority");
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| format!("{:?}", suite.suite()).contains("AES_128_GCM"));
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(&[version]).expect("a version");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    (config.key_log, config.enable_secret_extraction) = (secrets.clone(), true);
    let name = ServerName::try_from("a.test").expect("a name");
    let mut session = ClientConnection::new(Arc::new(config), name).expect("a session");
    let mut socket = TcpStream::connect(balancer.address()).expect("it listens");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
    while session.is_handshaking() || session.wants_write() {
        session.complete_io(&mut socket).expect("a handshake");
    }
    let records = if version == &TLS13 { Records::tls13(&secrets) } else { Records::tls12(session) };
    (socket, records)
}

/// The metrics, from the port without TLS.
fn metrics(balancer: &Balancer) -> String {
    let mut socket = TcpStream::connect(balancer.admin()).expect("it listens");
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("it is open");
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("a response");
    text
}

/// Sends records until the connection ends.
fn flood(mut socket: TcpStream, mut record: impl FnMut(u32) -> Vec<u8>) {
    for count in 0..100_000 {
        if socket.write_all(&record(count)).is_err() {
            return;
        }
    }
    // It has ended before these records were read.
    let mut byte = [0];
    while matches!(socket.read(&mut byte), Ok(1..)) {}
}

#[test]
fn records_without_content_end_the_connection_and_are_counted_by_reason() {
    let authority = Authority::new("authority");
    let issued = authority.issue(&Spec { names: &["a.test"], ..Spec::new("a.test") });
    let directory = Directory::new();
    let certificate = directory.put("a.pem", &(issued.pem() + &issued.key_pem())).display().to_string();
    for mode in modes() {
        let backend = Backend::named("backend");
        let args = ["--tls-cert", &certificate, "--admin", "0"];
        let balancer = Balancer::before(mode, &[&backend], &args);
        let (mut idle, mut own) = client(&balancer, &authority, &TLS13);
        let start = |version| client(&balancer, &authority, version);
        let (socket, mut records) = start(&TLS13);
        flood(socket, |_| records.key_update());
        let (socket, mut records) = start(&TLS13);
        flood(socket, |_| records.record(DATA, b""));
        let (socket, mut records) = start(&TLS12);
        flood(socket, |_| records.record(ALERT, &[1, 90]));
        let hello = [&[1, 0, 0, 41, 3, 3][..], &[7; 32], &[0, 0, 2, 0xc0, 0x2b, 1, 0]].concat();
        let (socket, mut records) = start(&TLS12);
        flood(socket, |_| records.record(HANDSHAKE, &hello));
        let (socket, mut records) = start(&TLS13);
        flood(socket, |count| if count % 2 == 0 { records.record(DATA, b"") } else { records.key_update() });
        for (reason, text) in [
            ("key_updates", "too many TLS key updates: closed after "),
            ("empty_records", "too many empty TLS records: closed after "),
            ("warnings", "too many TLS warnings: closed after "),
            ("renegotiation", "TLS renegotiation, which was refused before: closed after "),
            ("records", "too many TLS records without content: closed after "),
        ] {
            let line = format!("zzz_lb_tls_floods_total{{reason=\"{reason}\"}} 1\n");
            wait_until(reason, || metrics(&balancer).contains(&line));
            wait_until(text, || balancer.log().contains(text));
            assert_eq!(balancer.log().matches(text).count(), 1, "{mode:?}: {}", balancer.log());
        }
        // A client that changes its keys at times is served.
        idle.write_all(&own.key_update()).expect("it is open");
        idle.write_all(&own.record(DATA, b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"))
            .expect("it is open");
        let mut response = Vec::new();
        let _ = idle.read_to_end(&mut response);
        assert_eq!(backend.requests().len(), 1, "{mode:?}");
        assert!(!response.is_empty(), "{mode:?}");
    }
}
