//! Options: time limits.

use super::{DURATIONS, DURATIONS_OR_OFF};
use crate::args::flags::{Flag, Group, Preset, Set, once};
use crate::args::value;

pub(super) const FLAGS: &[Flag] = &[
    Flag {
        long: "connect-timeout",
        short: None,
        group: Group::Time,
        placeholder: "D",
        default: Preset::Value("2s"),
        env: "LB_CONNECT_TIMEOUT",
        help: "to connect to a backend",
        accepts: DURATIONS,
        set: Set::Value(|options, text, source| once(&mut options.connect_us, value::duration(text)?, source)),
    },
    Flag {
        long: "request-timeout",
        short: None,
        group: Group::Time,
        placeholder: "D",
        default: Preset::Value("10s"),
        env: "LB_REQUEST_TIMEOUT",
        help: "to receive a whole request head",
        accepts: DURATIONS,
        set: Set::Value(|options, text, source| once(&mut options.request_us, value::duration(text)?, source)),
    },
    Flag {
        long: "response-timeout",
        short: None,
        group: Group::Time,
        placeholder: "D",
        default: Preset::Value("60s"),
        env: "LB_RESPONSE_TIMEOUT",
        help: "to the first byte of the response, and between body bytes in either direction",
        accepts: DURATIONS,
        set: Set::Value(|options, text, source| once(&mut options.response_us, value::duration(text)?, source)),
    },
    Flag {
        long: "idle-timeout",
        short: None,
        group: Group::Time,
        placeholder: "D",
        default: Preset::Value("75s"),
        env: "LB_IDLE_TIMEOUT",
        help: "between requests on a client's connection",
        accepts: DURATIONS,
        set: Set::Value(|options, text, source| once(&mut options.idle_us, value::duration(text)?, source)),
    },
    Flag {
        long: "drain-timeout",
        short: None,
        group: Group::Time,
        placeholder: "D",
        default: Preset::Value("25s"),
        env: "LB_DRAIN_TIMEOUT",
        help: "to finish what is running when told to stop",
        accepts: DURATIONS,
        set: Set::Value(|options, text, source| once(&mut options.drain_us, value::duration(text)?, source)),
    },
    Flag {
        long: "drain-idle",
        short: None,
        group: Group::Time,
        placeholder: "D",
        default: Preset::Value("2s"),
        env: "LB_DRAIN_IDLE",
        help: "when told to stop, close a client's connection after so long without a request",
        accepts: DURATIONS,
        set: Set::Value(|options, text, source| once(&mut options.drain_idle_us, value::duration(text)?, source)),
    },
    Flag {
        long: "drain-delay",
        short: None,
        group: Group::Time,
        placeholder: "D",
        default: Preset::Value("off"),
        env: "LB_DRAIN_DELAY",
        help: "when told to stop, go on as before for so long, with `/readyz` saying 503",
        accepts: DURATIONS_OR_OFF,
        set: Set::Value(|options, text, source| {
            once(&mut options.drain_delay_us, value::duration_or_off(text)?, source)
        }),
    },
];
