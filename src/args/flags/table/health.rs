//! Options: how health is found out.

use super::{DURATIONS, DURATIONS_OR_OFF};
use crate::args::Given;
use crate::args::flags::{Flag, Group, Preset, Set, once};
use crate::args::value;
use crate::limits::HEALTH_COUNT;

pub(super) const FLAGS: &[Flag] = &[
    Flag {
        long: "health-path",
        short: None,
        group: Group::Health,
        placeholder: "P",
        default: Preset::Value("/"),
        env: "LB_HEALTH_PATH",
        help: "what a probe asks a backend for; 2xx and 3xx are passes",
        accepts: "a path that begins with / and has neither spaces nor controls",
        set: Set::Value(|options, text, source| once(&mut options.health_path, value::path(text)?, source)),
    },
    Flag {
        long: "health-interval",
        short: None,
        group: Group::Health,
        placeholder: "D",
        default: Preset::Value("5s"),
        env: "LB_HEALTH_INTERVAL",
        help: "between two probes of a backend; `off` sends none",
        accepts: DURATIONS_OR_OFF,
        set: Set::Value(|options, text, source| {
            once(&mut options.health_interval_us, value::duration_or_off(text)?, source)
        }),
    },
    Flag {
        long: "health-timeout",
        short: None,
        group: Group::Health,
        placeholder: "D",
        default: Preset::Value("2s"),
        env: "LB_HEALTH_TIMEOUT",
        help: "how long a probe may take",
        accepts: DURATIONS,
        set: Set::Value(|options, text, source| once(&mut options.health_timeout_us, value::duration(text)?, source)),
    },
    Flag {
        long: "health-fails",
        short: None,
        group: Group::Health,
        placeholder: "N",
        default: Preset::Value("3"),
        env: "LB_HEALTH_FAILS",
        help: "failures in a row, of requests and probes, that take a backend out",
        accepts: "a number from 1 to 1000",
        set: Set::Number(|options, text, source| {
            once(&mut options.health_fails, value::number_u32(text, 1, HEALTH_COUNT)?, source)
        }),
    },
    Flag {
        long: "health-passes",
        short: None,
        group: Group::Health,
        placeholder: "N",
        default: Preset::Value("2"),
        env: "LB_HEALTH_PASSES",
        help: "probes passed in a row that bring it back",
        accepts: "a number from 1 to 1000",
        set: Set::Number(|options, text, source| {
            once(&mut options.health_passes, value::number_u32(text, 1, HEALTH_COUNT)?, source)
        }),
    },
    Flag {
        long: "health-5xx",
        short: None,
        group: Group::Health,
        placeholder: "",
        default: Preset::Nothing,
        env: "LB_HEALTH_5XX",
        help: "count a 5xx answer as a failure",
        accepts: "1 or 0",
        set: Set::Switch(|options, value, source| options.health_5xx = Some(Given { value, source })),
    },
];
