//! The options for time limits.

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
        help: "limit the time to connect to a backend, and the wait for a backend below its `max`",
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
        help: "limit the time to receive a whole request head",
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
        help: "limit the time to the first byte of the response, and between two pieces of content in either \
               direction; streams of gRPC and `text/event-stream` may be silent for an hour between messages",
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
        help: "limit the time between two requests on a client's connection",
        accepts: DURATIONS,
        set: Set::Value(|options, text, source| once(&mut options.idle_us, value::duration(text)?, source)),
    },
    Flag {
        long: "half-close",
        short: None,
        group: Group::Time,
        placeholder: "D",
        default: Preset::Value("2s"),
        env: "LB_HALF_CLOSE",
        help: "let a request without a response continue for this long after its client has ended its direction",
        accepts: DURATIONS,
        set: Set::Value(|options, text, source| once(&mut options.half_close_us, value::duration(text)?, source)),
    },
    Flag {
        long: "drain-timeout",
        short: None,
        group: Group::Time,
        placeholder: "D",
        default: Preset::Value("25s"),
        env: "LB_DRAIN_TIMEOUT",
        help: "limit the time to finish running requests after TERM",
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
        help: "after TERM, close a client's connection that has been idle for this long",
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
        help: "after TERM, keep serving for this long, while `/readyz` answers 503",
        accepts: DURATIONS_OR_OFF,
        set: Set::Value(|options, text, source| {
            once(&mut options.drain_delay_us, value::duration_or_off(text)?, source)
        }),
    },
];
