//! The first message of a client: however it is split, and of any size. Tickets over changes of their keys.

use rustls::ClientConfig;

use super::*;
use crate::limits::TICKET_PERIOD_S;
use crate::tls::pair::Pair as Certified;
use crate::tls::server::{self, Version};
use crate::tls::tickets::Keys;

const NAMES: [&str; 2] = ["a.test", "b.test"];

/// Sessions with clients, over a certificate for each name.
struct Front {
    root: Authority,
    pairs: Vec<Arc<Certified>>,
}

impl Front {
    fn new() -> Front {
        let root = Authority::new("Root");
        let pair = |name: &&str| {
            let issued = root.issue(&Spec { names: &[name], ..Spec::new(name) });
            let key = PrivatePkcs8KeyDer::from(issued.key).into();
            Arc::new(Certified::new(vec![issued.der.into()], key).unwrap())
        };
        let pairs = NAMES.iter().map(pair).collect();
        Front { root, pairs }
    }

    fn config(&self, keys: &Keys) -> server::Config {
        let (strict_sni, minimum) = (true, Version::Tls12);
        let (pairs, alpn) = (&self.pairs[..], BOTH);
        let settings = server::Settings { pairs, clients: None, strict_sni, minimum, alpn, keys, key_log: None };
        server::Config::new(&settings).unwrap()
    }

    fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let client = client.with_protocol_versions(versions).unwrap();
        Arc::new(client.with_root_certificates(roots(&[&self.root]).store).with_no_client_auth())
    }
}

fn keys() -> Keys {
    Keys::derived(&[7; 32], 0)
}

fn begin(config: &Arc<ClientConfig>, name: &'static str) -> (ClientConnection, Vec<u8>) {
    let mut client = ClientConnection::new(config.clone(), ServerName::try_from(name).unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    (client, hello)
}

/// Completes a handshake whose first message was delivered.
fn complete(session: &mut Session, client: &mut ClientConnection) {
    while session.wants_send() || client.wants_write() {
        client.read_tls(&mut &drain(session)[..]).unwrap();
        client.process_new_packets().unwrap();
        let mut up = Vec::new();
        client.write_tls(&mut up).unwrap();
        session.received(&up).unwrap();
    }
    assert!(!session.is_handshaking() && !client.is_handshaking());
}

/// The same message in records of this size.
fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    let records = hello[5..].chunks(size).flat_map(|part| {
        let length = (part.len() as u16).to_be_bytes();
        [&[22, 3, 1, length[0], length[1]], part].concat()
    });
    records.collect()
}

#[test]
fn a_first_message_may_be_split_at_each_byte() {
    let front = Front::new();
    let (config, versions) = (front.config(&keys()), [TLS12, TLS13]);
    for versions in versions {
        let client = front.client(versions);
        let length = begin(&client, "b.test").1.len();
        for at in 0..=length {
            let (mut client, hello) = begin(&client, "b.test");
            let mut session = Session::accept(&config);
            assert_eq!(session.received(&hello[..at]), Ok(at));
            assert!(at == length || !session.wants_send() && session.pair().is_none(), "{at}");
            session.received(&hello[at..]).unwrap();
            assert_eq!(session.server_name(), Some("b.test"), "{at}");
            // A handshake costs much more than a message.
            if at % 16 == 0 {
                complete(&mut session, &mut client);
            }
        }
    }
}

#[test]
fn a_first_message_may_be_split_over_records() {
    let front = Front::new();
    let config = front.config(&keys());
    let client = front.client(TLS13);
    for size in [1, 2, 7, 40, 100, 1000] {
        for step in [1, 3, 50, usize::MAX] {
            let (mut client, hello) = begin(&client, "b.test");
            let mut session = Session::accept(&config);
            for bytes in in_records(&hello, size).chunks(step) {
                session.received(bytes).unwrap();
            }
            assert_eq!(session.server_name(), Some("b.test"), "{size} {step}");
            complete(&mut session, &mut client);
        }
    }
}

#[test]
fn a_first_message_that_is_too_large_gets_an_alert() {
    let front = Front::new();
    let config = front.config(&keys());
    // A handshake message of this size, which begins as a ClientHello and never ends.
    let large = |length: u32| {
        let mut message = vec![0; 5];
        message.extend([1, (length >> 16) as u8, (length >> 8) as u8, length as u8, 3, 3]);
        message.resize(5 + 4 + length as usize, 7);
        in_records(&message, 1 << 14)
    };
    // One is larger than the limit of 64 KiB - 1; the other one is malformed.
    for length in [1 << 16, (1 << 16) - 1, 0x00ff_ffff] {
        let mut session = Session::accept(&config);
        let bytes = large(length);
        let (mut taken, mut failure) = (0, None);
        for bytes in bytes.chunks(1000) {
            match session.received(bytes) {
                Ok(count) => taken += count,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        assert_eq!(failure, Some(Failure::BadRecord(During::Handshake)), "{length}");
        assert!(taken <= (1 << 16) + 1000, "{length}: {taken}");
        let alert = drain(&mut session);
        assert_eq!((alert[0], alert[5], alert.len()), (21, 2, 7), "{length}: a fatal alert: {alert:?}");
    }
}

#[test]
fn a_ticket_resumes_after_one_change_of_keys_and_not_after_two() {
    let front = Front::new();
    let secret = |from: u8| {
        let mut byte = from;
        move || -> Result<_, std::convert::Infallible> {
            byte += 1;
            Ok([byte; 32])
        }
    };
    let start_s = 1_700_000_000;
    let Ok(first) = Keys::random(start_s, None, secret(0));
    let Ok(second) = Keys::random(first.end_s(), Some(&first), secret(10));
    let Ok(third) = Keys::random(second.end_s(), Some(&second), secret(20));
    assert_eq!(third.end_s() - first.end_s(), 2 * TICKET_PERIOD_S);
    let [first, second, third] = [&first, &second, &third].map(|keys| front.config(keys));
    for versions in [TLS12, TLS13] {
        // A session under some keys, then one under others.
        let resumed = |keys: [&server::Config; 2]| {
            let client = front.client(versions);
            let sessions = keys.map(|config| {
                let (mut client, hello) = begin(&client, "a.test");
                let mut session = Session::accept(config);
                session.received(&hello).unwrap();
                complete(&mut session, &mut client);
                session.is_resumed().unwrap()
            });
            assert!(!sessions[0]);
            sessions[1]
        };
        assert!(resumed([&first, &first]) && resumed([&first, &second]) && resumed([&second, &third]));
        assert!(!resumed([&first, &third]), "the ticket is older than a period");
        // A worker that follows later knows the key of a worker that was faster: there is no gap between them.
        assert!(resumed([&second, &first]) && resumed([&third, &second]));
    }
}
