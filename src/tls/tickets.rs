//! Session tickets: sessions that the client keeps for us, encrypted with keys that all processes share.
//!
//! A key serves for one period of [`TICKET_PERIOD_S`]: the periods are counted from 1970, so machines with clocks agree
//! on them. [`Keys`] are the keys of the last, the current and the coming period. The current one encrypts, and all of
//! them decrypt. So a process that is late or early by less than a period understands its peers. There are two sources
//! of keys: random numbers, or a file that several machines share.
//!
//! A ticket is the identity of its key, a nonce, and the encrypted session with its tag (AES-256-GCM, RFC 5116). The
//! associated data has the identity and a binding: a hash of the certificate and of the client authorities. The library
//! itself compares only suite, extended master secret and SNI when it resumes. Because of the binding, a ticket resumes
//! only with the certificate under which it was issued, and never serves as the proof of a client certificate under
//! other authorities. Each pair of certificate and key has a `Ticketer` of its own (`tls::server`).
//!
//! A ClientHello of 64 KiB has room for 780 identities of sessions, and the library tries to decrypt each of them. That
//! costs 0.2 ms, less than a full handshake, so their number needs no limit of its own.

use std::fmt;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::server::ProducesTickets;

use crate::digest;
use crate::limits::{TICKET_FILE_BYTES, TICKET_PERIOD_S, TICKET_SESSION_BYTES};

/// The size of a key. It is a secret from which the identity and the key of the cipher are derived.
pub const KEY_BYTES: usize = 32;
/// The size of the identity of a key.
const ID_BYTES: usize = 16;
/// The bytes of a ticket beside the session: identity, nonce and tag.
const OVERHEAD_BYTES: usize = ID_BYTES + NONCE_LEN + 16;

/// The secret of one period.
pub type Secret = [u8; KEY_BYTES];

/// The keys of three periods.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// The number of the current period.
    period: u64,
    /// Those of the last, the current and the coming period.
    secrets: [Secret; 3],
}

/// The file for keys has fewer than [`TICKET_FILE_BYTES`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooShort;

impl fmt::Display for TooShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fewer than {TICKET_FILE_BYTES} bytes; `openssl rand {TICKET_FILE_BYTES}` makes them")
    }
}

/// Returns the seed of the keys that are derived from a file: its hash. HMAC itself puts this hash in the place of a
/// key with more bytes than a block (RFC 2104, section 2).
///
/// # Errors
/// The file is too short.
pub fn seed(file: &[u8]) -> Result<Secret, TooShort> {
    if file.len() < TICKET_FILE_BYTES { Err(TooShort) } else { Ok(digest::sha256(&[file])) }
}

impl Keys {
    /// Makes random keys for this time. Those of periods that `earlier` has are kept.
    ///
    /// # Errors
    /// The errors of `random`.
    pub fn random<E>(
        now_s: u64,
        earlier: Option<&Keys>,
        mut random: impl FnMut() -> Result<Secret, E>,
    ) -> Result<Keys, E> {
        let period = now_s / TICKET_PERIOD_S;
        let mut secrets = [[0; KEY_BYTES]; 3];
        for (secret, at) in secrets.iter_mut().zip(periods(period)) {
            *secret = match earlier.and_then(|earlier| earlier.of(at)) {
                Some(known) => *known,
                None => random()?,
            };
        }
        Ok(Keys { period, secrets })
    }

    /// Derives keys for this time from the seed of a file. All machines with the file derive the same keys.
    pub fn derived(seed: &Secret, now_s: u64) -> Keys {
        let period = now_s / TICKET_PERIOD_S;
        let key = digest::Key::new(seed);
        let secrets = periods(period).map(|at| key.sign(&[b"zzz ticket key of period ", &at.to_be_bytes()]));
        Keys { period, secrets }
    }

    /// True if the keys are those of this time.
    pub fn are_current(&self, now_s: u64) -> bool {
        self.period == now_s / TICKET_PERIOD_S
    }

    /// Returns the time at which other keys are due, in seconds since 1970.
    pub fn end_s(&self) -> u64 {
        self.period.saturating_add(1).saturating_mul(TICKET_PERIOD_S)
    }

    /// Appends the keys as bytes, for processes of this program.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.period.to_le_bytes());
        self.secrets.iter().for_each(|secret| out.extend_from_slice(secret));
    }

    /// Reads keys from all of the bytes that [`Keys::encode`] wrote. `None`: they are malformed.
    pub fn decode(bytes: &[u8]) -> Option<Keys> {
        let (period, rest) = bytes.split_first_chunk()?;
        let secrets = rest.as_chunks::<KEY_BYTES>();
        let ([last, current, coming], []) = secrets else { return None };
        Some(Keys { period: u64::from_le_bytes(*period), secrets: [*last, *current, *coming] })
    }

    /// Returns the secret of a period.
    fn of(&self, period: u64) -> Option<&Secret> {
        let at = periods(self.period).iter().position(|&known| known == period)?;
        self.secrets.get(at)
    }
}

/// Secrets are not printed.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys of period {}", self.period)
    }
}

fn periods(current: u64) -> [u64; 3] {
    [current.wrapping_sub(1), current, current.wrapping_add(1)]
}

/// The keys, ready for use. All ticketers share them.
pub(super) struct Ciphers([(Id, LessSafeKey); 3]);

type Id = [u8; ID_BYTES];

impl Ciphers {
    pub(super) fn new(keys: &Keys) -> Ciphers {
        Ciphers(keys.secrets.map(|secret| {
            let key = digest::Key::new(&secret);
            let derived = key.sign(&[b"identity"]);
            let mut id = [0; ID_BYTES];
            id.copy_from_slice(&derived[..ID_BYTES]);
            let cipher = UnboundKey::new(&AES_256_GCM, &key.sign(&[b"encryption"]));
            (id, LessSafeKey::new(cipher.expect("the key has the length of the cipher's keys")))
        }))
    }
}

/// Encrypts and decrypts the tickets of one certificate.
pub(super) struct Ticketer {
    ciphers: Arc<Ciphers>,
    binding: [u8; digest::SHA256_LENGTH],
}

impl Ticketer {
    pub(super) fn new(ciphers: &Arc<Ciphers>, binding: [u8; digest::SHA256_LENGTH]) -> Ticketer {
        Ticketer { ciphers: Arc::clone(ciphers), binding }
    }

    fn associated(&self, id: &Id) -> Aad<[u8; ID_BYTES + digest::SHA256_LENGTH]> {
        let mut data = [0; ID_BYTES + digest::SHA256_LENGTH];
        data[..ID_BYTES].copy_from_slice(id);
        data[ID_BYTES..].copy_from_slice(&self.binding);
        Aad::from(data)
    }
}

/// Secrets are not printed.
impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticketer")
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    /// The client may use a ticket for as long as it is decrypted for certain.
    fn lifetime(&self) -> u32 {
        TICKET_PERIOD_S as u32
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        if session.len() > TICKET_SESSION_BYTES {
            return None;
        }
        let (id, cipher) = &self.ciphers.0[1];
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(session.len() + OVERHEAD_BYTES);
        ticket.extend_from_slice(id);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(session);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = &mut ticket[ID_BYTES + NONCE_LEN..];
        let tag = cipher.seal_in_place_separate_tag(nonce, self.associated(id), sealed).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_SESSION_BYTES + OVERHEAD_BYTES {
            return None;
        }
        let (id, rest) = ticket.split_first_chunk::<ID_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        // The identity is no secret, so the time of the comparison may depend on it.
        let (_, cipher) = self.ciphers.0.iter().find(|(known, _)| known == id)?;
        let mut session = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = cipher.open_in_place(nonce, self.associated(id), &mut session).ok()?.len();
        session.truncate(length);
        Some(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// A count in place of random numbers.
    fn count(from: u8) -> impl FnMut() -> Result<Secret, Infallible> {
        let mut next = from;
        move || {
            next += 1;
            Ok([next; KEY_BYTES])
        }
    }

    fn ticketer(keys: &Keys, binding: u8) -> Ticketer {
        Ticketer::new(&Arc::new(Ciphers::new(keys)), [binding; 32])
    }

    const NOW_S: u64 = 1_700_000_000;

    #[test]
    fn keys_move_on_by_periods_and_return_for_a_clock_that_is_set_back() {
        let Ok(first) = Keys::random(NOW_S, None, count(0));
        assert!(first.are_current(NOW_S) && !first.are_current(first.end_s()) && first.are_current(first.end_s() - 1));
        let Ok(same) = Keys::random(first.end_s() - 1, Some(&first), count(9));
        assert_eq!(same, first);
        let Ok(second) = Keys::random(first.end_s(), Some(&first), count(10));
        assert_eq!(second.secrets, [[2; 32], [3; 32], [11; 32]]);
        let Ok(back) = Keys::random(NOW_S, Some(&second), count(20));
        assert_eq!(back.secrets, [[21; 32], [2; 32], [3; 32]]);
        let Ok(far) = Keys::random(NOW_S + 10 * TICKET_PERIOD_S, Some(&first), count(30));
        assert_eq!(far.secrets, [[31; 32], [32; 32], [33; 32]]);
    }

    #[test]
    fn machines_with_one_file_agree_although_their_clocks_do_not() {
        let file = [7; TICKET_FILE_BYTES];
        let of_file = seed(&file).unwrap();
        let keys = Keys::derived(&of_file, NOW_S);
        let later = Keys::derived(&of_file, keys.end_s());
        assert_eq!(keys, Keys::derived(&of_file, NOW_S + 1));
        // Earlier programs take all bytes as the key.
        let period = (NOW_S / TICKET_PERIOD_S).to_be_bytes();
        assert_eq!(keys.secrets[1], digest::Key::new(&file).sign(&[b"zzz ticket key of period ", &period]));
        assert_eq!((keys.secrets[1], keys.secrets[2]), (later.secrets[0], later.secrets[1]));
        for (from, to) in [(&keys, &later), (&later, &keys)] {
            let ticket = ticketer(from, 0).encrypt(b"session").unwrap();
            assert_eq!(ticketer(to, 0).decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        }
        let gone = Keys::derived(&of_file, later.end_s());
        assert_eq!(ticketer(&gone, 0).decrypt(&ticketer(&keys, 0).encrypt(b"session").unwrap()), None);
        assert_ne!(of_file, seed(&[8; TICKET_FILE_BYTES]).unwrap());
        assert_eq!(seed(&file[1..]), Err(TooShort));
    }

    #[test]
    fn a_ticket_is_opened_only_unchanged_and_under_its_binding() {
        let keys = Keys::derived(&[7; KEY_BYTES], NOW_S);
        let own = ticketer(&keys, 1);
        let ticket = own.encrypt(b"session").unwrap();
        assert_eq!(own.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(ticketer(&keys, 2).decrypt(&ticket), None, "it is of another trust domain");
        assert_ne!(own.encrypt(b"session").unwrap(), ticket, "two tickets of one session cannot be linked");
        for at in 0..ticket.len() {
            assert_eq!(own.decrypt(&ticket[..at]), None, "cut at {at}");
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(own.decrypt(&changed), None, "changed at {at}");
        }
    }

    #[test]
    fn a_session_that_is_too_large_gets_no_ticket() {
        let own = ticketer(&Keys::derived(&[7; KEY_BYTES], NOW_S), 1);
        let ticket = own.encrypt(&[9; TICKET_SESSION_BYTES]).unwrap();
        assert_eq!(own.decrypt(&ticket).unwrap().len(), TICKET_SESSION_BYTES);
        assert_eq!(own.encrypt(&[9; TICKET_SESSION_BYTES + 1]), None);
        assert_eq!(own.decrypt(&vec![0; ticket.len() + 1]), None);
    }

    #[test]
    fn keys_survive_their_bytes() {
        let Ok(keys) = Keys::random(NOW_S, None, count(0));
        let mut bytes = Vec::new();
        keys.encode(&mut bytes);
        assert_eq!(Keys::decode(&bytes), Some(keys.clone()));
        for length in 0..bytes.len() {
            assert_eq!(Keys::decode(&bytes[..length]), None, "{length}");
        }
        bytes.push(0);
        assert_eq!(Keys::decode(&bytes), None);
        assert_eq!(format!("{keys:?}"), "Keys of period 39351");
        assert_eq!(format!("{:?}", ticketer(&keys, 0)), "Ticketer");
    }
}
