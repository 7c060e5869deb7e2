//! Records of TLS that no library writes: empty ones, warnings, handshakes within a session, changes of keys without end.
//! Only for suites with AES-128-GCM and SHA-256.
//!
//! The tests of `src/tls` include this file by its path.

use std::sync::{Arc, Mutex};

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk};
use rustls::{ClientConnection, ConnectionTrafficSecrets, KeyLog};

pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
pub const DATA: u8 = 23;

/// Keeps the secret of a client with TLS 1.3, for the records behind its handshake.
#[derive(Debug, Default)]
pub struct Secrets(Mutex<Vec<u8>>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if label == "CLIENT_TRAFFIC_SECRET_0" {
            *self.0.lock().expect("no panic") = secret.to_vec();
        }
    }
}

/// Writes the records of a client whose handshake has ended.
pub struct Records {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    /// The secret of TLS 1.3; empty for TLS 1.2.
    secret: Vec<u8>,
}

impl Records {
    /// Continues a session of TLS 1.3 that has sent no content.
    pub fn tls13(secrets: &Arc<Secrets>) -> Records {
        Records::of(secrets.0.lock().expect("no panic").clone())
    }

    fn of(secret: Vec<u8>) -> Records {
        let iv = expand(&secret, "iv", 12).try_into().expect("twelve bytes");
        Records { key: cipher(&expand(&secret, "key", 16)), iv, sequence: 0, secret }
    }

    /// Continues a session of TLS 1.2. Its configuration lets its secrets be extracted.
    pub fn tls12(connection: ClientConnection) -> Records {
        let (sequence, secrets) = connection.dangerous_extract_secrets().expect("it is allowed").tx;
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else { panic!("another suite") };
        let iv = iv.as_ref().try_into().expect("twelve bytes");
        Records { key: cipher(key.as_ref()), iv, sequence, secret: Vec::new() }
    }

    /// A record of this type.
    pub fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let sequence = self.sequence.to_be_bytes();
        self.sequence += 1;
        if self.secret.is_empty() {
            let length = (content.len() as u16).to_be_bytes();
            let all = [&sequence[..], &[kind, 3, 3], &length].concat();
            let nonce = [&self.iv[..4], &sequence].concat();
            let sealed = self.seal(&nonce, &all, content);
            let length = (8 + sealed.len() as u16).to_be_bytes();
            return [&[kind, 3, 3], &length[..], &sequence, &sealed].concat();
        }
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(sequence).for_each(|(byte, more)| *byte ^= more);
        let inner = [content, &[kind]].concat();
        let length = (16 + inner.len() as u16).to_be_bytes();
        let header = [DATA, 3, 3, length[0], length[1]];
        let sealed = self.seal(&nonce, &header, &inner);
        [&header[..], &sealed].concat()
    }

    /// A change of keys (RFC 8446, section 4.6.3).
    pub fn key_update(&mut self) -> Vec<u8> {
        let record = self.record(HANDSHAKE, &[24, 0, 0, 1, 0]);
        *self = Records::of(expand(&self.secret, "traffic upd", 32));
        record
    }

    fn seal(&self, nonce: &[u8], associated: &[u8], content: &[u8]) -> Vec<u8> {
        let nonce = Nonce::try_assume_unique_for_key(nonce).expect("twelve bytes");
        let mut sealed = content.to_vec();
        self.key.seal_in_place_append_tag(nonce, Aad::from(associated), &mut sealed).expect("it is short");
        sealed
    }
}

fn cipher(key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).expect("sixteen bytes"))
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label without a context (RFC 8446, section 7.1).
fn expand(secret: &[u8], label: &str, length: usize) -> Vec<u8> {
    let name = format!("tls13 {label}");
    let info = [&(length as u16).to_be_bytes()[..], &[name.len() as u8], name.as_bytes(), &[0]];
    let mut out = vec![0; length];
    let secret = Prk::new_less_safe(HKDF_SHA256, secret);
    let made = secret.expand(&info, Length(length)).and_then(|made| made.fill(&mut out));
    made.expect("it is short");
    out
}
