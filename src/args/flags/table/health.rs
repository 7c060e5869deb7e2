//! Options: how health is found out.

use super::{DURATIONS, DURATIONS_OR_OFF};
use crate::args::Given;
use crate::args::flags::{Flag, Group, Preset, Set, once};
use crate::args::probe::{HealthCheck, statuses};
use crate::args::value;
use crate::limits::HEALTH_COUNT;

pub(super) const FLAGS: &[Flag] = &[
    Flag {
        long: "health-check",
        short: None,
        group: Group::Health,
        placeholder: "TYPE",
        default: Preset::Value("http"),
        env: "LB_HEALTH_CHECK",
        help: "type of a probe: `http` sends a GET, `tcp` only connects (with TLS, up to the end of the handshake), \
               `off` sends none",
        accepts: "http, tcp, off",
        set: Set::Value(|options, text, source| {
            once(&mut options.health_check, value::choice(&HealthCheck::NAMES, text)?, source)
        }),
    },
    Flag {
        long: "health-path",
        short: None,
        group: Group::Health,
        placeholder: "P",
        default: Preset::Told("/"),
        env: "LB_HEALTH_PATH",
        help: "the path that a probe asks a backend for",
        accepts: "a path that begins with / and has neither spaces nor controls",
        set: Set::Value(|options, text, source| once(&mut options.health_path, value::path(text)?, source)),
    },
    Flag {
        long: "health-status",
        short: None,
        group: Group::Health,
        placeholder: "RANGES",
        default: Preset::Told("200-399 with --health-path, else 200-499"),
        env: "LB_HEALTH_STATUS",
        help: "the statuses that pass a probe, as in `200-299,401`",
        accepts: "statuses from 200 to 599 and ranges of them, with commas between them (at most 64)",
        set: Set::Value(|options, text, source| once(&mut options.health_status, statuses(text)?, source)),
    },
    Flag {
        long: "health-host",
        short: None,
        group: Group::Health,
        placeholder: "NAME",
        default: Preset::Told("the backend's own name"),
        env: "LB_HEALTH_HOST",
        help: "the Host field of a probe",
        accepts: "a host with or without a port",
        set: Set::Value(|options, text, source| once(&mut options.health_host, value::authority(text)?, source)),
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
