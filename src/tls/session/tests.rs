//! Sessions of both roles against each other, without a socket between them.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, SupportedProtocolVersion, version};

use super::*;
use crate::limits::TLS_RECORD_BYTES;
use crate::tls::client::Settings;
use crate::tls::failure::{BadCertificate, Lacking, Plain};
use crate::tls::issue::{Authority, Issued, Spec, self_signed};
use crate::tls::roots::Roots;
use crate::tls::trace::Trace;

mod floods;
mod hello;
mod server;

const TLS12: &[&SupportedProtocolVersion] = &[&version::TLS12];
const TLS13: &[&SupportedProtocolVersion] = &[&version::TLS13];
const BOTH: &[&[u8]] = &[b"h2", b"http/1.1"];

fn roots(authorities: &[&Authority]) -> Roots {
    let mut roots = Roots::none();
    for authority in authorities {
        roots.store.add(CertificateDer::from(authority.der.clone())).unwrap();
    }
    roots
}

fn config(roots: Roots, insecure: bool) -> Config {
    Config::new(Settings { roots, insecure, alpn: BOTH, key_log: None }).unwrap()
}

fn server_config(chain: &[&[u8]], key: &[u8], versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let chain = chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.to_vec()));
    let builder = builder.with_protocol_versions(versions).unwrap().with_no_client_auth();
    builder.with_single_cert(chain, key).unwrap()
}

fn serve(issued: &Issued) -> Arc<ServerConfig> {
    Arc::new(server_config(&[&issued.der], &issued.key, TLS13))
}

/// A session with a backend, and the backend's session with its client.
struct Pair {
    session: Session,
    server: Session,
    /// The count of bytes that are delivered at once.
    step: usize,
}

impl Pair {
    fn new(config: &Config, server: &Arc<ServerConfig>, name: &str) -> Pair {
        let session = Session::connect(config, name).unwrap();
        Pair { session, server: Session::accept_with(server), step: usize::MAX }
    }

    /// Carries bytes both ways until neither has any. Returns the first failure of the session with the backend.
    fn run(&mut self) -> Result<(), Failure> {
        loop {
            let up = drain(&mut self.session);
            for bytes in up.chunks(self.step) {
                assert!(self.server.received(bytes).is_err() || self.server.readable() <= TLS_RECEIVE_BYTES);
            }
            let down = drain(&mut self.server);
            for bytes in down.chunks(self.step) {
                assert_eq!(self.session.received(bytes)?, bytes.len());
            }
            if up.is_empty() && down.is_empty() {
                return Ok(());
            }
        }
    }

    /// The backend sends these bytes.
    fn answer(&mut self, plaintext: &[u8]) {
        assert_eq!(self.server.write(&[IoSlice::new(plaintext)]), plaintext.len());
    }
}

fn drain(session: &mut Session) -> Vec<u8> {
    let mut sent = Vec::new();
    while session.wants_send() {
        session
            .send(|slices| {
                slices.iter().for_each(|slice| sent.extend_from_slice(slice));
                Ok(slices.iter().map(|slice| slice.len()).sum())
            })
            .unwrap();
    }
    sent
}

fn read(session: &mut Session) -> Vec<u8> {
    let mut room = [0; 4096];
    let mut all = Vec::new();
    loop {
        match session.read(&mut room) {
            0 => return all,
            count => all.extend_from_slice(&room[..count]),
        }
    }
}

/// An established pair.
fn pair() -> Pair {
    let root = Authority::new("Root");
    let issued = root.issue(&Spec { names: &["a.test"], ..Spec::new("a.test") });
    let mut pair = Pair::new(&config(roots(&[&root]), false), &serve(&issued), "a.test");
    pair.run().unwrap();
    assert!(!pair.session.is_handshaking());
    pair
}

/// The result of a handshake with this certificate for `a.test`.
fn verdict(root: &Authority, issued: &Issued, insecure: bool) -> Result<(), Failure> {
    let mut pair = Pair::new(&config(roots(&[root]), insecure), &serve(issued), "a.test");
    let result = pair.run();
    assert_eq!(result.is_err(), pair.session.is_handshaking(), "what is refused is never established");
    assert_eq!(result.err(), pair.session.failure());
    result
}

#[test]
fn carries_bytes_both_ways_over_both_versions() {
    let root = Authority::new("Root");
    let middle = root.intermediate("Middle");
    let issued = middle.issue(&Spec { names: &["a.test", "127.0.0.1", "::1"], ..Spec::new("a.test") });
    let config = config(roots(&[&root]), false);
    for versions in [TLS12, TLS13] {
        let server = Arc::new(server_config(&[&issued.der, &middle.der], &issued.key, versions));
        for (name, step) in [("a.test", usize::MAX), ("A.Test", 1), ("127.0.0.1", 7), ("[::1]", 4096)] {
            let mut pair = Pair::new(&config, &server, name);
            pair.step = step;
            for session in [&mut pair.session, &mut pair.server] {
                assert_eq!(session.write(&[IoSlice::new(b"early")]), 0, "nothing is taken during the handshake");
            }
            pair.run().unwrap();
            assert_eq!(pair.session.write(&[IoSlice::new(b"GET "), IoSlice::new(b""), IoSlice::new(b"/")]), 5);
            pair.run().unwrap();
            assert_eq!(read(&mut pair.server), b"GET /");
            pair.answer(&[b'x'; 10_000]);
            pair.run().unwrap();
            assert_eq!(pair.session.readable(), 10_000);
            assert_eq!(read(&mut pair.session), [b'x'; 10_000]);
            assert_eq!(pair.session.readable(), 0);
            assert_eq!(pair.session.certificates().len(), 2);
            assert_eq!(pair.session.verification(), Ok(()));
            let sni = name.eq_ignore_ascii_case("a.test").then_some("a.test");
            assert_eq!(pair.server.server_name(), sni, "addresses are not sent");
            assert_eq!(pair.server.version(), pair.session.version());
            assert_eq!((pair.server.verification(), pair.server.is_insecure()), (Ok(()), false));
        }
    }
}

#[test]
fn refuses_every_bad_certificate_and_says_why() {
    let root = Authority::new("Root");
    let good = Spec { names: &["a.test"], ..Spec::new("a.test") };
    let cases = [
        (root.issue(&good), None),
        (root.issue(&Spec { not_after: "20210101000000", ..good }), Some(BadCertificate::Expired)),
        (root.issue(&Spec { not_before: "21000101000000", ..good }), Some(BadCertificate::NotYetValid)),
        (root.issue(&Spec { names: &["b.test", "*.a.test"], ..good }), Some(BadCertificate::OtherName)),
        // A common name alone is no name (RFC 9110, section 4.3.4).
        (root.issue(&Spec { names: &[], ..good }), Some(BadCertificate::OtherName)),
        (Authority::new("Unknown").issue(&good), Some(BadCertificate::UnknownIssuer)),
        // It has the root's name, and not its key.
        (Authority::new("Root").issue(&good), Some(BadCertificate::Signature)),
        (self_signed(&good), Some(BadCertificate::SelfSigned)),
        (self_signed(&Spec { is_authority: true, ..good }), Some(BadCertificate::SelfSigned)),
    ];
    for (issued, bad) in cases {
        assert_eq!(verdict(&root, &issued, false).err(), bad.map(Failure::Certificate));
        assert_eq!(verdict(&root, &issued, true), Ok(()), "--insecure accepts any");
    }
}

#[test]
fn says_of_an_insecure_session_what_verification_would_have_said() {
    let root = Authority::new("Root");
    let issued = root.issue(&Spec { not_after: "20210101000000", names: &["a.test"], ..Spec::new("a.test") });
    let mut pair = Pair::new(&config(roots(&[&root]), true), &serve(&issued), "a.test");
    pair.run().unwrap();
    assert_eq!(pair.session.verification(), Err(Failure::Certificate(BadCertificate::Expired)));
}

#[test]
fn insecure_still_wants_the_key_of_the_certificate() {
    let root = Authority::new("Root");
    let spec = Spec { names: &["a.test"], ..Spec::new("a.test") };
    let (shown, held) = (root.issue(&spec), root.issue(&spec));
    for versions in [TLS12, TLS13] {
        // The library's builder would see that they do not belong together.
        let key = PrivatePkcs8KeyDer::from(held.key.clone());
        let key = ring::sign::any_eddsa_type(&key).unwrap();
        let chain = vec![CertificateDer::from(shown.der.clone())];
        let resolver = rustls::sign::SingleCertAndKey::from(rustls::sign::CertifiedKey::new(chain, key));
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(versions).unwrap().with_no_client_auth();
        let server = Arc::new(builder.with_cert_resolver(Arc::new(resolver)));
        let mut pair = Pair::new(&config(roots(&[&root]), true), &server, "a.test");
        assert_eq!(pair.run(), Err(Failure::Certificate(BadCertificate::Signature)));
    }
}

#[test]
fn a_self_signed_certificate_given_as_ca_file_is_trusted_for_its_name_and_time() {
    let verdict = |issued: &Issued, given: &Issued| {
        let mut roots = Roots::none();
        let der = CertificateDer::from_pem_slice(given.pem().as_bytes()).unwrap();
        roots.certificates.insert(der.to_vec());
        roots.store.add(der).unwrap();
        Pair::new(&config(roots, false), &serve(issued), "a.test").run()
    };
    let good = Spec { names: &["a.test"], ..Spec::new("a.test") };
    for is_authority in [false, true] {
        let issued = self_signed(&Spec { is_authority, ..good });
        assert_eq!(verdict(&issued, &issued), Ok(()));
    }
    let expired = self_signed(&Spec { not_after: "20210101000000", ..good });
    assert_eq!(verdict(&expired, &expired), Err(Failure::Certificate(BadCertificate::Expired)));
    let elsewhere = self_signed(&Spec { names: &["b.test"], ..good });
    assert_eq!(verdict(&elsewhere, &elsewhere), Err(Failure::Certificate(BadCertificate::OtherName)));
    assert!(verdict(&self_signed(&good), &self_signed(&good)).is_err(), "one of the same name is not it");
}

#[test]
fn resumes_sessions_of_the_same_name() {
    let root = Authority::new("Root");
    let issued = root.issue(&Spec { names: &["a.test", "b.test"], ..Spec::new("a.test") });
    for versions in [TLS12, TLS13] {
        let config = config(roots(&[&root]), false);
        let mut server = server_config(&[&issued.der], &issued.key, versions);
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let server = Arc::new(server);
        let resumed = |config: &Config, name: &str| {
            let mut pair = Pair::new(config, &server, name);
            assert_eq!(pair.session.is_resumed(), None);
            pair.run().unwrap();
            assert_eq!(pair.server.is_resumed(), pair.session.is_resumed());
            pair.session.is_resumed().unwrap()
        };
        assert!(!resumed(&config, "a.test"));
        assert!(resumed(&config, "a.test"));
        assert!(resumed(&config.with_alpn(&[b"http/1.1"]), "a.test"), "what is offered may differ");
        assert!(!resumed(&config, "b.test"), "each name has its own");
    }
}

#[test]
fn follows_what_alpn_says() {
    let root = Authority::new("Root");
    let issued = root.issue(&Spec { names: &["a.test"], ..Spec::new("a.test") });
    let config = config(roots(&[&root]), false);
    let chosen = |config: &Config, protocols: &[&[u8]]| {
        let mut server = server_config(&[&issued.der], &issued.key, TLS13);
        server.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let mut pair = Pair::new(config, &Arc::new(server), "a.test");
        pair.run().map(|()| {
            assert_eq!(pair.server.alpn(), pair.session.alpn());
            pair.session.alpn().map(<[u8]>::to_vec)
        })
    };
    assert_eq!(chosen(&config, &[b"h2"]), Ok(Some(b"h2".to_vec())));
    assert_eq!(chosen(&config, &[b"http/1.1"]), Ok(Some(b"http/1.1".to_vec())));
    assert_eq!(chosen(&config, &[]), Ok(None));
    assert_eq!(chosen(&config.with_alpn(&[b"http/1.1"]), &[b"h2", b"http/1.1"]), Ok(Some(b"http/1.1".to_vec())));
    let refused = chosen(&config, &[b"spdy/3"]).unwrap_err();
    assert_eq!(refused.to_string(), "handshake failed: alert no_application_protocol");
}

#[test]
fn tells_what_is_not_tls() {
    let config = config(Roots::none(), true);
    let cases: [(&[u8], Plain); 4] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Plain::Response),
        (b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64", Plain::Http2),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Plain::Unknown),
        (&[0xff; 100], Plain::Unknown),
    ];
    for (bytes, plain) in cases {
        for step in [1, 3, 100] {
            let mut session = Session::connect(&config, "a.test").unwrap();
            let failure = bytes.chunks(step).find_map(|bytes| session.received(bytes).err());
            assert_eq!(failure, Some(Failure::NotTls(plain)), "{}", bytes.escape_ascii());
            assert_eq!(session.received(b"more"), Err(Failure::NotTls(plain)), "it stays failed");
            assert_eq!(session.ended(), Err(Failure::NotTls(plain)));
            drain(&mut session);
            assert_eq!(session.take_alerts(), [], "nobody there understands an alert");
        }
    }
}

#[test]
fn refuses_bad_records_before_and_after_the_handshake() {
    let config = config(Roots::none(), true);
    let mut session = Session::connect(&config, "a.test").unwrap();
    // A record of a handshake, with garbage in it; one longer than records may be.
    assert!(session.received(b"\x16\x03\x03\x00\x08garbage!").is_err());
    let mut session = Session::connect(&config, "a.test").unwrap();
    let failure = session.received(b"\x16\x03\x03\xff\xff").unwrap_err();
    assert_eq!(failure, Failure::BadRecord(During::Handshake));
    for (bytes, expected) in [
        (&b"\x17\x03\x03\x00\x20 not made with the session's keys"[..], "bad TLS record"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "bad TLS record"),
        (b"\x17\x03\x03\xff\xff", "bad TLS record"),
    ] {
        let mut pair = pair();
        pair.answer(b"good");
        let mut down = drain(&mut pair.server);
        down.extend_from_slice(bytes);
        let failure = pair.session.received(&down).unwrap_err();
        assert_eq!(failure.to_string(), expected);
        assert_eq!(read(&mut pair.session), b"good", "what came before is whole");
        assert_eq!(pair.session.write(&[IoSlice::new(b"x")]), 0);
        assert!(pair.session.wants_send(), "there is an alert for the peer");
        let alerts = pair.session.take_alerts();
        assert!(matches!(alerts[..], [(Direction::Sent, _)]), "{alerts:?}");
    }
}

#[test]
fn a_changed_byte_is_never_read() {
    let mut pair = pair();
    pair.answer(b"good");
    let mut down = drain(&mut pair.server);
    let last = down.len() - 1;
    down[last] ^= 1;
    assert_eq!(pair.session.received(&down), Err(Failure::BadRecord(During::Data)));
    assert_eq!(read(&mut pair.session), b"");
}

#[test]
fn every_changed_byte_is_refused_or_harmless() {
    let root = Authority::new("Root");
    let issued = root.issue(&Spec { names: &["a.test"], ..Spec::new("a.test") });
    let config = config(roots(&[&root]), false);
    let mut random = crate::collections::random::Random::new(7);
    for round in 0..400 {
        let versions = if round % 2 == 0 { TLS12 } else { TLS13 };
        let server = Arc::new(server_config(&[&issued.der], &issued.key, versions));
        let mut pair = Pair::new(&config, &server, "a.test");
        // One byte is changed, or the flight cut short, in the first or a later answer.
        let mut at = random.below(3000) as usize;
        let cut = random.below(4) == 0;
        let mut written = false;
        while pair.session.failure().is_none() {
            let up = drain(&mut pair.session);
            let _ = pair.server.received(&up);
            if !pair.server.is_handshaking() && !written {
                written = true;
                let _ = pair.server.write(&[IoSlice::new(b"answer")]);
            }
            let mut down = drain(&mut pair.server);
            if up.is_empty() && down.is_empty() {
                break;
            }
            let length = down.len();
            match down.get_mut(at) {
                Some(_) if cut => down.truncate(at),
                Some(byte) => *byte ^= 1 << random.below(8),
                None => {}
            }
            at = at.wrapping_sub(length);
            let _ = pair.session.received(&down);
        }
        let got = read(&mut pair.session);
        assert!(got.is_empty() || got == b"answer", "round {round}");
        assert!(got.is_empty() || !pair.session.is_handshaking(), "round {round}");
    }
}

#[test]
fn an_end_without_close_notify_is_truncation() {
    let mut pair = pair();
    pair.answer(b"some");
    pair.run().unwrap();
    assert!(!pair.session.received_close_notify());
    assert_eq!(pair.session.ended(), Err(Failure::Truncated));
    assert_eq!(read(&mut pair.session), b"some", "what came is still there");
}

#[test]
fn an_end_within_the_handshake_says_so() {
    let config = config(Roots::none(), true);
    let mut session = Session::connect(&config, "a.test").unwrap();
    assert_eq!(session.ended(), Err(Failure::Closed));
    assert_eq!(session.failure().unwrap().to_string(), "handshake failed: connection closed");
}

#[test]
fn close_notify_ends_each_direction_by_itself() {
    let mut pair = pair();
    pair.answer(b"last");
    pair.server.close_notify();
    pair.run().unwrap();
    assert!(pair.session.received_close_notify());
    assert_eq!(pair.session.received(b"bytes behind the end"), Ok(20));
    assert_eq!(read(&mut pair.session), b"last");
    assert_eq!(pair.session.ended(), Ok(()));
    assert_eq!(pair.session.write(&[IoSlice::new(b"still")]), 5);
    pair.session.close_notify();
    pair.session.close_notify();
    assert_eq!(pair.session.write(&[IoSlice::new(b"no more")]), 0);
    pair.run().unwrap();
    assert_eq!(read(&mut pair.server), b"still");
    assert!(pair.server.received_close_notify());
    assert_eq!(pair.server.ended(), Ok(()));
    let alerts: Vec<String> = pair.session.take_alerts().iter().map(|alert| format!("{:?}", alert.0)).collect();
    assert_eq!(alerts, ["Received", "Sent"]);
}

#[test]
fn a_peer_that_reads_nothing_stops_what_is_written() {
    let mut pair = pair();
    let piece = [b'x'; 5000];
    let mut taken = 0;
    loop {
        match pair.session.write(&[IoSlice::new(&piece)]) {
            0 => break,
            count => taken += count,
        }
        assert!(taken <= TLS_SEND_BYTES, "it has to end");
    }
    assert!(taken >= TLS_SEND_BYTES - 1024, "{taken}");
    // A socket that takes a little each time, and nothing at times.
    let mut ciphertext = Vec::new();
    while pair.session.wants_send() {
        let full = pair.session.send(|_| Err(io::ErrorKind::WouldBlock.into()));
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let sent = pair.session.send(|slices| {
            let part = &slices[0][..slices[0].len().min(999)];
            ciphertext.extend_from_slice(part);
            Ok(part.len())
        });
        assert!(sent.unwrap() > 0);
    }
    let mut rest = &ciphertext[..];
    let mut read = 0;
    while !rest.is_empty() {
        rest = &rest[pair.server.received(rest).unwrap()..];
        read += self::read(&mut pair.server).len();
    }
    assert_eq!(read, taken);
}

#[test]
fn plaintext_that_nobody_reads_stops_what_is_received() {
    let Pair { session, server, .. } = pair();
    // In both directions.
    for (mut from, mut to) in [(session, server), {
        let Pair { session, server, .. } = pair();
        (server, session)
    }] {
        let mut ciphertext = Vec::new();
        for _ in 0..64 {
            assert_eq!(from.write(&[IoSlice::new(&[b'y'; 1 << 14])]), 1 << 14);
            ciphertext.extend(drain(&mut from));
        }
        let (mut rest, mut read_in_all) = (&ciphertext[..], 0);
        while !rest.is_empty() {
            let taken = to.received(rest).unwrap();
            rest = &rest[taken..];
            assert!(to.readable() <= TLS_RECEIVE_BYTES + 2 * TLS_RECORD_BYTES);
            assert_eq!(to.received(rest).unwrap(), 0, "until some is read");
            let bytes = read(&mut to);
            assert!(!bytes.is_empty() || rest.is_empty());
            read_in_all += bytes.len();
        }
        assert_eq!(read_in_all, 1 << 20);
    }
}

#[test]
fn versions_and_names_that_cannot_be_are_said() {
    let config = config(Roots::none(), true);
    for name in ["", "a b", "-.test..", "a_b:c", "[::1", "caf\u{e9}.test"] {
        assert_eq!(Session::connect(&config, name).err(), Some(Failure::Name), "{name}");
    }
    // A server that answers with TLS 1.1: its hello, without extensions.
    let mut hello = b"\x16\x03\x02\x00\x2a\x02\x00\x00\x26\x03\x02".to_vec();
    hello.extend([7; 32]);
    hello.extend(b"\x00\xc0\x13\x00");
    let mut session = Session::connect(&config, "a.test").unwrap();
    assert_eq!(session.received(&hello), Err(Failure::Incompatible(Lacking::Version)));
    let alerts = session.take_alerts();
    assert_eq!(alerts, [(Direction::Sent, Alert(70))]);
}

#[test]
fn an_alert_of_the_peer_is_named() {
    let config = config(Roots::none(), true);
    let mut session = Session::connect(&config, "a.test").unwrap();
    let failure = session.received(b"\x15\x03\x03\x00\x02\x02\x28").unwrap_err();
    assert_eq!(
        failure.to_string(),
        "handshake failed: alert handshake_failure (perhaps a P-521, Ed448 or RSASSA-PSS certificate)"
    );
    let alerts = session.take_alerts();
    assert_eq!(alerts, [(Direction::Received, Alert(40))]);
    let mut pair = pair();
    // The server refuses data that it cannot decrypt.
    let garbage = b"\x17\x03\x03\x00\x20 not made with the session's keys";
    assert_eq!(pair.server.received(garbage), Err(Failure::BadRecord(During::Data)));
    assert_eq!(pair.server.take_alerts(), [(Direction::Sent, Alert(20))]);
    let failure = pair.run().unwrap_err();
    assert_eq!(failure.to_string(), "TLS alert bad_record_mac");
}

#[test]
fn the_trace_tells_a_handshake() {
    let root = Authority::new("Root");
    let issued = root.issue(&Spec { names: &["a.test", "127.0.0.1"], ..Spec::new("a.test") });
    let config = config(roots(&[&root]), false);
    let mut server = server_config(&[&issued.der], &issued.key, TLS13);
    server.alpn_protocols = vec![b"h2".to_vec()];
    let server = Arc::new(server);
    let told = |name: &str| {
        let mut trace = Trace::new("a.test:443");
        trace.connect_begun(1_000);
        let mut pair = Pair::new(&config, &server, name);
        trace.connected(&pair.session, 3_500);
        trace.observe(&mut pair.session, 3_600);
        let _ = pair.run();
        trace.observe(&mut pair.session, 10_000);
        pair.session.close_notify();
        trace.observe(&mut pair.session, 11_000);
        trace.take_lines()
    };
    let mut expected = vec![
        "a.test:443: TCP connect begins",
        "a.test:443: TCP connected in 2.500 ms",
        "a.test:443: handshake begins: SNI a.test, ALPN offered h2, http/1.1",
        "a.test:443: handshake done in 6.500 ms: TLS 1.3, cipher suite TLS13_AES_128_GCM_SHA256, group X25519, \
         ALPN h2, full",
        "a.test:443: certificate: subject O=Tests, CN=a.test, issuer O=Tests, CN=Root, names a.test, 127.0.0.1, \
         valid 2020-01-01T00:00:00Z to 2120-01-01T00:00:00Z",
        "a.test:443: verified",
        "a.test:443: alert sent: close_notify",
    ];
    assert_eq!(told("a.test"), expected);
    let lines = told("a.test");
    assert!(lines[3].ends_with("ALPN h2, resumed"), "{}", lines[3]);
    assert_eq!(lines[5], "a.test:443: verified when the session began");
    expected.truncate(2);
    expected.extend([
        "a.test:443: handshake begins: SNI b.test, ALPN offered h2, http/1.1",
        "a.test:443: alert sent: bad_certificate",
        "a.test:443: certificate: subject O=Tests, CN=a.test, issuer O=Tests, CN=Root, names a.test, 127.0.0.1, \
         valid 2020-01-01T00:00:00Z to 2120-01-01T00:00:00Z",
        "a.test:443: handshake ended after 6.500 ms: certificate is for another name",
    ]);
    assert_eq!(told("b.test"), expected);
    let mut pair = pair();
    let mut trace = Trace::new("a");
    trace.connected(&pair.session, 0);
    let _ = pair.session.received(b"HTTP/1.1 200 OK\r\n\r\n");
    trace.observe(&mut pair.session, 1);
    trace.observe(&mut pair.session, 2);
    let lines = trace.take_lines();
    assert_eq!(lines[lines.len() - 2..], ["a: alert sent: decode_error", "a: session failed: bad TLS record"]);
}

#[test]
fn without_roots_everything_is_refused() {
    let root = Authority::new("Root");
    let issued = root.issue(&Spec { names: &["a.test"], ..Spec::new("a.test") });

    let mut pair = Pair::new(&config(Roots::none(), false), &serve(&issued), "a.test");
    assert_eq!(pair.run(), Err(Failure::Certificate(BadCertificate::UnknownIssuer)));
}
