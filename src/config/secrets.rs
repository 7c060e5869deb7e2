//! The secrets of the front door: certificates with their keys, the keys of session tickets, the authorities of
//! clients, and the key of the cookie that names backends. One process publishes them in a table of the shared memory, and all workers follow it at once.
//!
//! The table has bytes and no paths. So all workers use the same content, which was checked, none of them reads a file,
//! and sessions stay resumable over an upgrade. Like a plan, the bytes have sections, each with a name and a length
//! before it: a program passes over the sections that it does not know, and absent ones are empty. If the bytes of a
//! section get another meaning, the section gets another name.

use std::fmt;

use super::bytes::{Decoder, Encoder};
use crate::limits::{CLIENT_AUTHORITIES, PAIRS};

/// The form: "secrets" and a number in ASCII.
const FORM: u64 = u64::from_be_bytes(*b"secrets1");

/// All secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    /// The certificates with their keys, in the order of the options. The first one is the default.
    pub pairs: Vec<StoredPair>,
    /// The keys of session tickets as `tls::tickets` writes them; empty if there are none.
    pub tickets: Secret,
    /// The seed from which the keys of session tickets are derived; empty if they are random.
    pub ticket_seed: Secret,
    /// The authorities of clients, in DER. If there are none, clients are asked for no certificate.
    pub client_authorities: Vec<Vec<u8>>,
    /// The key of the cookie that names backends; empty if there is none.
    pub cookie_key: Secret,
    /// The files that these were read from.
    pub files: Files,
}

/// The names of the files of secrets; empty for secrets without a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The key of each pair, in the order of the pairs.
    pub keys: Vec<String>,
    /// The authorities of clients.
    pub client_ca: String,
    /// The seed of the keys of session tickets.
    pub ticket_key: String,
    /// The key of the cookie.
    pub cookie_key: String,
}

/// A certificate chain and its key. They belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPair {
    /// The path of the certificate's file as it was given, or another name for people.
    pub source: String,
    /// The pair as `tls::pair` writes it.
    pub bytes: Secret,
}

/// Bytes that no log shows.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// A part of the secrets.
struct Section {
    name: &'static str,
    write: fn(&Secrets, &mut Encoder),
    /// Returns `None` if the bytes are malformed.
    read: fn(&mut Secrets, &mut Decoder<'_>) -> Option<()>,
}

/// All parts. The order has no meaning.
const SECTIONS: [Section; 6] = [
    Section {
        name: "pairs",
        write: |secrets, out| {
            out.list(&secrets.pairs, |out, pair| {
                out.record(|out| {
                    out.text(&pair.source);
                    out.bytes(&pair.bytes.0);
                });
            });
        },
        read: |secrets, from| {
            let pair = |from: &mut Decoder<'_>| {
                Some(StoredPair { source: from.text()?, bytes: Secret(from.bytes()?.to_vec()) })
            };
            from.list(PAIRS, |from| from.record(pair)).map(|pairs| secrets.pairs = pairs)
        },
    },
    Section {
        name: "tickets",
        write: |secrets, out| out.bytes(&secrets.tickets.0),
        read: |secrets, from| from.bytes().map(|bytes| secrets.tickets = Secret(bytes.to_vec())),
    },
    Section {
        name: "ticket_seed",
        write: |secrets, out| out.bytes(&secrets.ticket_seed.0),
        read: |secrets, from| from.bytes().map(|bytes| secrets.ticket_seed = Secret(bytes.to_vec())),
    },
    Section {
        name: "client_authorities",
        write: |secrets, out| out.list(&secrets.client_authorities, |out, authority| out.bytes(authority)),
        read: |secrets, from| {
            let authorities = from.list(CLIENT_AUTHORITIES, |from| from.bytes().map(<[u8]>::to_vec));
            authorities.map(|authorities| secrets.client_authorities = authorities)
        },
    },
    Section {
        name: "cookie_key",
        write: |secrets, out| out.bytes(&secrets.cookie_key.0),
        read: |secrets, from| from.bytes().map(|bytes| secrets.cookie_key = Secret(bytes.to_vec())),
    },
    Section {
        name: "files",
        write: |secrets, out| {
            let Files { keys, client_ca, ticket_key, cookie_key } = &secrets.files;
            out.list(keys, |out, key| out.text(key));
            [client_ca, ticket_key, cookie_key].into_iter().for_each(|name| out.text(name));
        },
        read: |secrets, from| {
            let keys = from.list(PAIRS, Decoder::text)?;
            let (client_ca, ticket_key, cookie_key) = (from.text()?, from.text()?, from.text()?);
            secrets.files = Files { keys, client_ca, ticket_key, cookie_key };
            Some(())
        },
    },
];

impl Secrets {
    /// Returns the bytes of the secrets.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder(Vec::new());
        out.number(FORM);
        out.list(&SECTIONS, |out, section| {
            out.text(section.name);
            out.record(|out| (section.write)(self, out));
        });
        out.0
    }

    /// Returns the secrets of these bytes. `None`: they are malformed, or have another form.
    pub fn decode(bytes: &[u8]) -> Option<Secrets> {
        let mut from = Decoder(bytes);
        if from.number()? != FORM {
            return None;
        }
        let mut secrets = Secrets::default();
        for _ in 0..from.number()? {
            let name = from.text()?;
            let section = SECTIONS.iter().find(|section| section.name == name);
            from.record(|from| section.map_or(Some(()), |section| (section.read)(&mut secrets, from)))?;
        }
        from.0.is_empty().then_some(secrets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        let pair = |source: &str| StoredPair { source: source.into(), bytes: Secret(b"a private key".to_vec()) };
        Secrets {
            pairs: vec![pair("/etc/a.pem"), pair("/etc/b.pem")],
            tickets: Secret(vec![7; 80]),
            ticket_seed: Secret(vec![8; 32]),
            client_authorities: vec![b"authority".to_vec()],
            cookie_key: Secret(vec![9; 32]),
            files: Files {
                keys: vec!["/etc/a.key".into(), String::new()],
                client_ca: "ca".into(),
                ticket_key: "tickets".into(),
                cookie_key: "cookie".into(),
            },
        }
    }

    #[test]
    fn secrets_have_the_same_meaning_after_their_bytes_were_read() {
        for secrets in [secrets(), Secrets::default()] {
            assert_eq!(Secrets::decode(&secrets.encode()), Some(secrets));
        }
    }

    #[test]
    fn malformed_bytes_are_no_secrets() {
        let bytes = secrets().encode();
        for length in 0..bytes.len() {
            assert_eq!(Secrets::decode(&bytes[..length]), None, "{length}");
        }
        assert_eq!(Secrets::decode(&[&bytes[..], b"x"].concat()), None);
        assert_eq!(Secrets::decode(&[0xff; 4096]), None);
    }

    #[test]
    fn sections_of_later_programs_are_passed_over_and_absent_ones_are_empty() {
        let mut out = Encoder(Vec::new());
        out.number(FORM);
        let sections: [(&str, &[u8]); 2] = [("later", b"any bytes"), ("client_authorities", &[0; 8])];
        out.list(&sections, |out, (name, body)| {
            out.text(name);
            // A later program may append bytes.
            out.record(|out| out.0.extend_from_slice(&[body, &b"more"[..]].concat()));
        });
        assert_eq!(Secrets::decode(&out.0), Some(Secrets::default()));
    }

    #[test]
    fn no_log_shows_a_key() {
        let shown = format!("{:?}", secrets());
        assert!(shown.contains("Secret(13 bytes)") && !shown.contains("private"), "{shown}");
    }
}
