//! The options for listeners and the pages on them.

use crate::args::flags::{Flag, Group, Preset, Set, more, once};
use crate::args::{listener, value};
use crate::limits::{CLIENT_CONNECTIONS, LISTENERS};
use crate::metrics::Detail;

pub(super) const FLAGS: &[Flag] = &[
    Flag {
        long: "port",
        short: Some('p'),
        group: Group::Listening,
        placeholder: "N",
        default: Preset::Value("8080"),
        env: "LB_PORT",
        help: "listen on this port; 0 picks a free one",
        accepts: "a number from 0 to 65535",
        set: Set::Number(|options, text, source| once(&mut options.port, value::port(text)?, source)),
    },
    Flag {
        long: "host",
        short: None,
        group: Group::Listening,
        placeholder: "HOST",
        default: Preset::Value("0.0.0.0"),
        env: "LB_HOST",
        help: "listen on this address, or on a name from `/etc/hosts`; `[::]` means every address, IPv6 and IPv4",
        accepts: "an IP address, such as 127.0.0.1 or [::], or a name of /etc/hosts, such as localhost",
        set: Set::Value(|options, text, source| {
            let host = value::host(text, &options.hosts)?;
            once(&mut options.host, host, source)
        }),
    },
    Flag {
        long: "listen",
        short: None,
        group: Group::Listening,
        placeholder: "ADDR",
        default: Preset::Told("none"),
        env: "LB_LISTEN",
        help: "listen at this address too (repeatable): `PORT` (on the host of the main port) or `HOST:PORT`; then \
               `,tls`, which needs a certificate, and `,proxy` to demand a PROXY header, version 1 or 2, on each \
               connection, which only peers in `--trust` may send",
        accepts: "a port, or an IP address or a name of /etc/hosts with a port; then tls and proxy behind commas, such as [::]:8443,tls,proxy (at most 64 of them)",
        set: Set::Repeatable(|options, text, source| {
            let listener = listener::listener(text, &options.hosts)?;
            more(&mut options.listen, listener, source, LISTENERS)
        }),
    },
    Flag {
        long: "http-redirect",
        short: None,
        group: Group::Listening,
        placeholder: "PORT",
        default: Preset::Value("off"),
        env: "LB_HTTP_REDIRECT",
        help: "listen on this port of the main host, and reply 308 with the same URL under https to every request",
        accepts: "a number from 0 to 65535, or off",
        set: Set::Value(|options, text, source| once(&mut options.http_redirect, value::redirect(text)?, source)),
    },
    Flag {
        long: "max-connections",
        short: None,
        group: Group::Listening,
        placeholder: "N",
        default: Preset::Told("half of the descriptor limit"),
        env: "LB_MAX_CONNECTIONS",
        help: "hold at most this many clients; further ones wait to be accepted, and none is reset",
        accepts: "a number from 1 to 10000000",
        set: Set::Number(|options, text, source| {
            once(&mut options.max_connections, value::number_u32(text, 1, CLIENT_CONNECTIONS)?, source)
        }),
    },
    Flag {
        long: "admin",
        short: None,
        group: Group::Listening,
        placeholder: "ADDR",
        default: Preset::Value("off"),
        env: "LB_ADMIN",
        help: "serve `/metrics`, `/livez` and `/readyz` at this address, and no metrics on the main port: `PORT` \
               (on loopback) or `HOST:PORT`",
        accepts: "a port, an IP address or a name of /etc/hosts with a port, such as 127.0.0.1:9100, [::1]:9100 or localhost:9100, or off",
        set: Set::Value(|options, text, source| {
            let admin = value::admin(text, &options.hosts)?;
            once(&mut options.admin, admin, source)
        }),
    },
    Flag {
        long: "metrics-path",
        short: None,
        group: Group::Listening,
        placeholder: "P",
        default: Preset::Value("/metrics"),
        env: "LB_METRICS_PATH",
        help: "serve the metrics under this path of the main port; `off` serves none there",
        accepts: "a path that begins with / and has no query, spaces or controls; or off",
        set: Set::Value(|options, text, source| once(&mut options.metrics_path, value::metrics_path(text)?, source)),
    },
    Flag {
        long: "metrics-detail",
        short: None,
        group: Group::Listening,
        placeholder: "D",
        default: Preset::Value("backend"),
        env: "LB_METRICS_DETAIL",
        help: "count for each `backend`, or for each `address` of a backend, with finer histograms",
        accepts: "backend, address",
        set: Set::Value(|options, text, source| {
            once(&mut options.metrics_detail, value::choice(&Detail::NAMES, text)?, source)
        }),
    },
];
