//! The options for TLS with clients.

use crate::args::Given;
use crate::args::flags::{Flag, Group, Preset, Set, more, once};
use crate::args::value::{self, TlsVersion};
use crate::limits::PAIRS;

pub(super) const FLAGS: &[Flag] = &[
    Flag {
        long: "tls-cert",
        short: None,
        group: Group::Tls,
        placeholder: "FILE",
        default: Preset::Nothing,
        env: "LB_TLS_CERT",
        help: "serve HTTPS on the main port with the certificate chain in this file (PEM); repeat it with `--tls-key` \
               for further names, which are chosen by SNI; changed files are read again",
        accepts: "the path of a file, at most 256 of them",
        set: Set::Repeatable(|options, text, source| more(&mut options.tls_certs, value::file(text)?, source, PAIRS)),
    },
    Flag {
        long: "tls-key",
        short: None,
        group: Group::Tls,
        placeholder: "FILE",
        default: Preset::Told("the key is in the certificate's file"),
        env: "LB_TLS_KEY",
        help: "the key of the certificate (PEM): the first one belongs to the first `--tls-cert`, and so on",
        accepts: "the path of a file, one for each --tls-cert",
        set: Set::Repeatable(|options, text, source| more(&mut options.tls_keys, value::file(text)?, source, PAIRS)),
    },
    Flag {
        long: "tls-dev",
        short: None,
        group: Group::Tls,
        placeholder: "",
        default: Preset::Nothing,
        env: "LB_TLS_DEV",
        help: "serve HTTPS with a certificate that is generated at the start, for localhost and the name of this \
               machine; for development only",
        accepts: "1 or 0",
        set: Set::Switch(|options, value, source| options.tls_dev = Some(Given { value, source })),
    },
    Flag {
        long: "tls-min",
        short: None,
        group: Group::Tls,
        placeholder: "V",
        default: Preset::Value("1.2"),
        env: "LB_TLS_MIN",
        help: "the lowest version of TLS for clients: `1.2` or `1.3`",
        accepts: "1.2, 1.3",
        set: Set::Value(|options, text, source| {
            once(&mut options.tls_min, value::choice(&TlsVersion::NAMES, text)?, source)
        }),
    },
    Flag {
        long: "tls-strict-sni",
        short: None,
        group: Group::Tls,
        placeholder: "",
        default: Preset::Nothing,
        env: "LB_TLS_STRICT_SNI",
        help: "refuse clients that ask for a name without a certificate, or for none; otherwise they get the first \
               certificate",
        accepts: "1 or 0",
        set: Set::Switch(|options, value, source| options.tls_strict_sni = Some(Given { value, source })),
    },
    Flag {
        long: "tls-client-ca",
        short: None,
        group: Group::Tls,
        placeholder: "FILE",
        default: Preset::Nothing,
        env: "LB_TLS_CLIENT_CA",
        help: "require clients to have a certificate of these authorities (PEM), and send it to backends as \
               `Client-Cert` and `Client-Cert-Chain`",
        accepts: "the path of a file",
        set: Set::Value(|options, text, source| once(&mut options.tls_client_ca, value::file(text)?, source)),
    },
    Flag {
        long: "tls-client-optional",
        short: None,
        group: Group::Tls,
        placeholder: "",
        default: Preset::Nothing,
        env: "LB_TLS_CLIENT_OPTIONAL",
        help: "with `--tls-client-ca`, serve clients without a certificate too",
        accepts: "1 or 0",
        set: Set::Switch(|options, value, source| options.tls_client_optional = Some(Given { value, source })),
    },
    Flag {
        long: "tls-ticket-key",
        short: None,
        group: Group::Tls,
        placeholder: "FILE",
        default: Preset::Told("random keys"),
        env: "LB_TLS_TICKET_KEY",
        help: "derive the keys of session tickets from this file of at least 80 random bytes, so that sessions resume \
               on every machine that has it",
        accepts: "the path of a file",
        set: Set::Value(|options, text, source| once(&mut options.tls_ticket_key, value::file(text)?, source)),
    },
    Flag {
        long: "hsts",
        short: None,
        group: Group::Tls,
        placeholder: "D",
        default: Preset::Value("off"),
        env: "LB_HSTS",
        help: "make browsers use HTTPS alone for this time (`Strict-Transport-Security`), unless the backend says \
               otherwise",
        accepts: "1s to 730d, such as 300s, 24h or 365d; 0s to end it; or off",
        set: Set::Value(|options, text, source| once(&mut options.hsts_s, value::long_or_off(text)?, source)),
    },
];
