//! The options for backends.

use super::DURATIONS_OR_OFF;
use crate::args::Given;
use crate::args::backend::backend;
use crate::args::flags::{Flag, Group, Preset, Set, more, once};
use crate::args::sticky;
use crate::args::strategy::strategy;
use crate::args::value;
use crate::limits::BACKENDS;

pub(super) const FLAGS: &[Flag] = &[
    Flag {
        long: "backend",
        short: Some('b'),
        group: Group::Backends,
        placeholder: "SPEC",
        default: Preset::Told("127.0.0.1:9001 and 127.0.0.1:9002"),
        env: "LB_BACKEND",
        help: "send requests to this server (repeatable): `host:port`, `[v6]:port`, `unix:/path`, or `:port` on \
               localhost; a prefix names the protocol: `http://`, `https://` or `h2c://` (HTTP/2 without TLS), and \
               port 443 means TLS; suffixes: `,weight=N` (0 to 65535; 0 gets no new requests), `,backup` (serves \
               only while no other backend is healthy), `,max=N` (requests at once) and `,for=HOST[/PREFIX]` (gets \
               only the requests of this host and path, and no others; repeatable; the longest match decides)",
        accepts: "host:port, [v6]:port, unix:/path or a port of localhost, then ,weight=N ,backup ,max=N ,for=HOST[/PREFIX] (at most 1024 backends)",
        set: Set::Repeatable(|options, text, source| more(&mut options.backends, backend(text)?, source, BACKENDS)),
    },
    Flag {
        long: "strategy",
        short: Some('s'),
        group: Group::Backends,
        placeholder: "S",
        default: Preset::Value("round_robin"),
        env: "LB_STRATEGY",
        help: "pick a backend this way: `round_robin` (in turn by weight; `weighted` is another name for it), \
               `random` (by weight), `least_requests` (the less busy of two, by weight), or always the same one for \
               `hash:client` (the client's address), `hash:path` (without the query), `hash:header:NAME` or \
               `hash:cookie:NAME`, as long as it has less than 1.25 of the mean load",
        accepts: "round_robin, weighted, random, least_requests, hash:client, hash:path, hash:header:NAME, hash:cookie:NAME",
        set: Set::Value(|options, text, source| once(&mut options.strategy, strategy(text)?, source)),
    },
    Flag {
        long: "sticky",
        short: None,
        group: Group::Backends,
        placeholder: "cookie[=NAME]",
        default: Preset::Value("off"),
        env: "LB_STICKY",
        help: "keep each client at its backend with a signed cookie (`zzz_lb` if no name is given)",
        accepts: "cookie, cookie=NAME or off",
        set: Set::Value(|options, text, source| once(&mut options.sticky, sticky::sticky(text)?, source)),
    },
    Flag {
        long: "sticky-key",
        short: None,
        group: Group::Backends,
        placeholder: "FILE",
        default: Preset::Told("a random key"),
        env: "LB_STICKY_KEY",
        help: "sign the cookie with the key in this file, at least 32 bytes in base64, so that it holds on every \
               machine that has the file",
        accepts: "the path of a file",
        set: Set::Value(|options, text, source| once(&mut options.sticky_key, value::file(text)?, source)),
    },
    Flag {
        long: "sticky-attributes",
        short: None,
        group: Group::Backends,
        placeholder: "A",
        default: Preset::Told("Path=/; HttpOnly; SameSite=Lax"),
        env: "LB_STICKY_ATTRIBUTES",
        help: "set these attributes of the cookie, as in `SameSite=Strict; Max-Age=60`; under https it is always `Secure`",
        accepts: "Path, Domain, Max-Age, SameSite, Secure and Partitioned, with semicolons between them",
        set: Set::Value(|options, text, source| {
            once(&mut options.sticky_attributes, sticky::attributes(text)?, source)
        }),
    },
    Flag {
        long: "retry-budget",
        short: None,
        group: Group::Backends,
        placeholder: "PERCENT",
        default: Preset::Value("20"),
        env: "LB_RETRY_BUDGET",
        help: "retry at most this many of each hundred requests, and three a second more; a request that reached no \
               backend does not count",
        accepts: "a number from 0 to 100",
        set: Set::Number(|options, text, source| {
            once(&mut options.retry_percent, value::number_u32(text, 0, 100)?, source)
        }),
    },
    Flag {
        long: "slow-start",
        short: None,
        group: Group::Backends,
        placeholder: "D",
        default: Preset::Value("off"),
        env: "LB_SLOW_START",
        help: "raise the share of a recovered backend gradually over this time",
        accepts: DURATIONS_OR_OFF,
        set: Set::Value(|options, text, source| {
            once(&mut options.slow_start_us, value::duration_or_off(text)?, source)
        }),
    },
    Flag {
        long: "demo",
        short: None,
        group: Group::Backends,
        placeholder: "",
        default: Preset::Nothing,
        env: "LB_DEMO",
        help: "start two built-in echo backends on loopback and send requests to them",
        accepts: "1 or 0",
        set: Set::Switch(|options, value, source| options.demo = Some(Given { value, source })),
    },
    Flag {
        long: "ca-file",
        short: None,
        group: Group::Backends,
        placeholder: "FILE",
        default: Preset::Told("the system's"),
        env: "LB_CA_FILE",
        help: "verify backends with these certificate authorities (PEM); the default is `SSL_CERT_FILE` and \
               `SSL_CERT_DIR`, then the system's authorities",
        accepts: "the path of a file",
        set: Set::Value(|options, text, source| once(&mut options.ca_file, value::file(text)?, source)),
    },
    Flag {
        long: "insecure",
        short: Some('k'),
        group: Group::Backends,
        placeholder: "",
        default: Preset::Nothing,
        env: "LB_INSECURE",
        help: "do not verify the certificates of backends",
        accepts: "1 or 0",
        set: Set::Switch(|options, value, source| options.insecure = Some(Given { value, source })),
    },
];
