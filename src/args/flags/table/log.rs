//! The options for the log.

use crate::args::Given;
use crate::args::flags::{Flag, Group, Preset, Set, once};
use crate::args::value;
use crate::log::Level;

pub(super) const FLAGS: &[Flag] = &[
    Flag {
        long: "loglevel",
        short: Some('l'),
        group: Group::Log,
        placeholder: "L",
        default: Preset::Value("info"),
        env: "LB_LOGLEVEL",
        help: "log lines of this level and more severe ones: `err`, `warn`, `info` or `debug`",
        accepts: "err, warn, info, debug",
        set: Set::Value(|options, text, source| {
            once(&mut options.loglevel, value::choice(&Level::NAMES, text)?, source)
        }),
    },
    Flag {
        long: "trace",
        short: Some('t'),
        group: Group::Log,
        placeholder: "",
        default: Preset::Nothing,
        env: "LB_TRACE",
        help: "log every message in both directions as hex and ASCII",
        accepts: "1 or 0",
        set: Set::Switch(|options, value, source| options.trace = Some(Given { value, source })),
    },
    Flag {
        long: "tls-trace",
        short: None,
        group: Group::Log,
        placeholder: "",
        default: Preset::Nothing,
        env: "LB_TLS_TRACE",
        help: "log details of every TLS session with a client or a backend; with `SSLKEYLOGFILE`, also write its \
               secrets to that file",
        accepts: "1 or 0",
        set: Set::Switch(|options, value, source| options.tls_trace = Some(Given { value, source })),
    },
];
