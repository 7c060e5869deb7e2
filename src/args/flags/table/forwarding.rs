//! The options for changes of messages.

use crate::args::flags::{Flag, Group, Preset, Set, more, once};
use crate::args::value;
use crate::http::proxy_header::Version;
use crate::limits::TRUSTED_RANGES;

pub(super) const FLAGS: &[Flag] = &[
    Flag {
        long: "host-header",
        short: None,
        group: Group::Forwarding,
        placeholder: "HOST",
        default: Preset::Told("preserve; backend for a TLS backend given by name"),
        env: "LB_HOST_HEADER",
        help: "send this Host field to backends: `preserve` sends the client's, `backend` sends the backend's own \
               host and port, and any other value is sent as it is",
        accepts: "preserve, backend, or a host with or without a port",
        set: Set::Value(|options, text, source| once(&mut options.host_header, value::host_header(text)?, source)),
    },
    Flag {
        long: "trust",
        short: None,
        group: Group::Forwarding,
        placeholder: "CIDR",
        default: Preset::Told("none"),
        env: "LB_TRUST",
        help: "believe `X-Forwarded-*`, `Forwarded`, `X-Real-IP`, `Client-Cert*` and PROXY headers from these peers \
               (repeatable): `10.0.0.0/8`, `2001:db8::/32` or one address",
        accepts: "an IP address or a range such as 10.0.0.0/8 (at most 1024 of them)",
        set: Set::Repeatable(|options, text, source| {
            more(&mut options.trust, value::cidr(text)?, source, TRUSTED_RANGES)
        }),
    },
    Flag {
        long: "send-proxy",
        short: None,
        group: Group::Forwarding,
        placeholder: "VERSION",
        default: Preset::Value("off"),
        env: "LB_SEND_PROXY",
        help: "begin each connection to a backend with a PROXY header of this version, which has the client's address; \
               such a connection carries requests of one client only",
        accepts: "v1, v2 or off",
        set: Set::Value(|options, text, source| {
            once(&mut options.send_proxy, value::choice(&Version::CHOICES, text)?, source)
        }),
    },
    Flag {
        long: "via",
        short: None,
        group: Group::Forwarding,
        placeholder: "NAME",
        default: Preset::Told("off"),
        env: "LB_VIA",
        help: "add a Via field with this name (some backends do not compress if they see one)",
        accepts: "a name of letters, digits and -._~!#$%&'*+^`|, optionally followed by :port",
        set: Set::Value(|options, text, source| once(&mut options.via, value::via(text)?, source)),
    },
    Flag {
        long: "request-id",
        short: None,
        group: Group::Forwarding,
        placeholder: "on|off",
        default: Preset::Value("on"),
        env: "LB_REQUEST_ID",
        help: "send `X-Request-Id` to backends and clients: the id from a trusted peer, or else a new UUID",
        accepts: "on or off",
        set: Set::Value(|options, text, source| once(&mut options.request_id, value::on_off(text)?, source)),
    },
];
