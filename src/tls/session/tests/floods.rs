//! Peers that send records without content: each kind, and a mix of them, ends the session after a bounded count.

use rustls::ClientConfig;

use super::*;
use crate::limits::TLS_EMPTY_RECORDS;
use crate::tls::failure::Flood;
use crate::tls::raw::{ALERT, DATA, HANDSHAKE, Records, Secrets};

/// A session with a client, and the client's records.
fn established(versions: &[&'static SupportedProtocolVersion]) -> (Session, Records) {
    let root = Authority::new("Root");
    let issued = root.issue(&Spec { names: &["a.test"], ..Spec::new("a.test") });
    let secrets = Arc::new(Secrets::default());
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let client = client.with_protocol_versions(versions).unwrap();
    let mut client = client.with_root_certificates(roots(&[&root]).store).with_no_client_auth();
    (client.key_log, client.enable_secret_extraction) = (secrets.clone(), true);
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| format!("{:?}", suite.suite()).contains("AES_128_GCM"));
    let builder = ServerConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(issued.key.clone()));
    let server = builder.with_no_client_auth().with_single_cert(vec![issued.der.into()], key).unwrap();
    let mut session = Session::accept_with(&Arc::new(server));
    let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from("a.test").unwrap()).unwrap();
    while client.is_handshaking() || client.wants_write() {
        let mut up = Vec::new();
        client.write_tls(&mut up).unwrap();
        session.received(&up).unwrap();
        client.read_tls(&mut &drain(&mut session)[..]).unwrap();
        client.process_new_packets().unwrap();
    }
    assert!(!session.is_handshaking());
    let records = if versions == TLS13 { Records::tls13(&secrets) } else { Records::tls12(client) };
    (session, records)
}

/// Sends records until the session fails. Returns the reason, and the count of the records.
fn flood(session: &mut Session, mut record: impl FnMut(u32) -> Vec<u8>) -> (Failure, u32) {
    for count in 1..100_000 {
        if let Err(failure) = session.received(&record(count)) {
            assert!(session.records() >= count);
            return (failure, count);
        }
        read(session);
    }
    panic!("there is no bound");
}

#[test]
fn records_without_content_of_each_kind_end_a_session() {
    let warning = [1, 90];
    let (mut session, mut records) = established(TLS13);
    assert_eq!(flood(&mut session, |_| records.key_update()), (Failure::Flood(Flood::KeyUpdates), 33));
    let (mut session, mut records) = established(TLS13);
    assert_eq!(flood(&mut session, |_| records.record(DATA, b"")), (Failure::Flood(Flood::EmptyRecords), 33));
    for versions in [TLS12, TLS13] {
        let (mut session, mut records) = established(versions);
        let flooded = flood(&mut session, |_| records.record(ALERT, &warning));
        assert_eq!(flooded, (Failure::Flood(Flood::Warnings), 5));
    }
    // The begin of a ClientHello is enough.
    let hello = [&[1, 0, 0, 41, 3, 3][..], &[7; 32], &[0, 0, 2, 0xc0, 0x2b, 1, 0]].concat();
    let (mut session, mut records) = established(TLS12);
    let refused = flood(&mut session, |_| records.record(HANDSHAKE, &hello));
    assert_eq!(refused, (Failure::Flood(Flood::Renegotiation), 2));
    // A client has no tickets to give.
    let (mut session, mut records) = established(TLS13);
    let ticket = [&[4, 0, 0, 13][..], &[0; 13]].concat();
    assert!(matches!(
        flood(&mut session, |_| records.record(HANDSHAKE, &ticket)),
        (Failure::BadRecord(_) | Failure::Protocol(_), 1)
    ));
}

#[test]
fn a_mix_of_records_without_content_ends_a_session() {
    let (mut session, mut records) = established(TLS13);
    // Each of the two renews the library's bound of the other one.
    let (failure, count) = flood(&mut session, |count| match count % 2 {
        0 => records.record(DATA, b""),
        _ => records.key_update(),
    });
    assert_eq!(failure, Failure::Flood(Flood::Records));
    assert!(count.abs_diff(TLS_EMPTY_RECORDS) < 10, "{count}");
    assert_eq!(session.received(&records.record(DATA, b"more")), Err(failure), "it stays failed");
}

#[test]
fn short_records_and_some_changes_of_keys_go_on() {
    let (mut session, mut records) = established(TLS13);
    for count in 0..10 * TLS_EMPTY_RECORDS {
        session.received(&records.record(DATA, b"xy")).unwrap();
        if count % 2 == 0 {
            session.received(&records.key_update()).unwrap();
        }
        assert_eq!(read(&mut session), b"xy");
        drain(&mut session);
    }
}
