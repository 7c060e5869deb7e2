//! The first bytes of a client with TLS, split in any way. The result does not depend on the splits, no session is
//! established by them, and a refusal is final.
//!
//! The first byte is the count of splits, and each split is two bytes. The rest are patches to a valid ClientHello, each a
//! position of two bytes and a value. If the first byte is odd, the rest is the first bytes themselves.

use std::sync::{Arc, OnceLock};

use zzz_lb::tls::client;
use zzz_lb::tls::dev;
use zzz_lb::tls::failure::{Alert, Failure};
use zzz_lb::tls::roots::Roots;
use zzz_lb::tls::server::{Config, Settings, Version};
use zzz_lb::tls::session::{Direction, Session};
use zzz_lb::tls::tickets::Keys;

/// Panics if the splits change the result.
pub fn run(data: &[u8]) {
    run_with(data, |_| {});
}

/// Like [`run`], with a fault planted in the bytes that are split.
pub fn run_with(data: &[u8], plant: fn(&mut Vec<u8>)) {
    let Some((&first, rest)) = data.split_first() else { return };
    let count = usize::from(first >> 1) % 8;
    let (splits, rest) = rest.split_at(rest.len().min(2 * count));
    let mut bytes = if first % 2 == 1 { rest.to_vec() } else { patched(rest) };
    let whole = outcome(&[&bytes]);
    let length = bytes.len();
    let mut places: Vec<usize> =
        splits.chunks_exact(2).map(|at| usize::from(u16::from_be_bytes([at[0], at[1]])) % (length + 1)).collect();
    places.sort_unstable();
    plant(&mut bytes);
    let mut pieces = Vec::new();
    let mut from = 0;
    for at in places.into_iter().map(|at| at.min(bytes.len())) {
        pieces.push(&bytes[from..at]);
        from = at;
    }
    pieces.push(&bytes[from..]);
    assert_eq!(outcome(&pieces), whole, "the splits change the result");
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(outcome(&single), whole, "single bytes change the result");
}

/// The visible result: the failure, the name, true if a certificate was chosen, and the alerts.
type Outcome = (Option<Failure>, Option<String>, bool, Vec<(Direction, Alert)>);

fn outcome(pieces: &[&[u8]]) -> Outcome {
    let mut session = Session::accept(config());
    for piece in pieces {
        match session.received(piece) {
            Ok(taken) => assert_eq!(taken, piece.len(), "bytes are left over"),
            Err(failure) => assert_eq!(session.failure(), Some(failure), "a refusal is final"),
        }
        assert!(session.is_handshaking() && session.readable() == 0, "there is no handshake without the client's keys");
    }
    let alerts = session.take_alerts();
    (session.failure(), session.server_name().map(str::to_owned), session.pair().is_some(), alerts)
}

fn config() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let pairs = [Arc::new(dev::pair("a.test").expect("random numbers"))];
        let keys = Keys::derived(&[7; 32], 0);
        let (alpn, strict_sni, minimum) = (&[&b"h2"[..], b"http/1.1"][..], true, Version::Tls12);
        let settings = Settings { pairs: &pairs, clients: None, strict_sni, minimum, alpn, keys: &keys, key_log: None };
        Config::new(&settings).expect("a generated certificate")
    })
}

/// A ClientHello with patches.
fn patched(patches: &[u8]) -> Vec<u8> {
    static HELLO: OnceLock<Vec<u8>> = OnceLock::new();
    let hello = HELLO.get_or_init(|| {
        let settings = client::Settings { roots: Roots::none(), insecure: true, alpn: &[b"h2"], key_log: None };
        let config = client::Config::new(settings).expect("the default");
        let mut session = Session::connect(&config, "localhost").expect("a name");
        let mut bytes = Vec::new();
        while session.wants_send() {
            let sent = session.send(|slices| {
                slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
                Ok(slices.iter().map(|slice| slice.len()).sum())
            });
            sent.expect("a Vec takes all");
        }
        bytes
    });
    let mut bytes = hello.clone();
    for patch in patches.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([patch[0], patch[1]])) % bytes.len();
        bytes[at] = patch[2];
    }
    bytes
}
