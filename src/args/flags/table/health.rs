//! The options for health checks.

use super::{DURATIONS, DURATIONS_OR_OFF};
use crate::args::Given;
use crate::args::flags::{Flag, Group, Preset, Set, once};
use crate::args::probe::{health_check, statuses};
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
        help: "probe backends this way: `http` sends a GET, `tcp` only connects (with TLS it also completes the \
               handshake), `grpc` asks grpc.health.v1 for the health of the server, `grpc:SERVICE` for that of a \
               service, `off` sends no probes",
        accepts: "http, tcp, grpc, grpc:SERVICE, off",
        set: Set::Value(|options, text, source| {
            let (check, service) = health_check(text)?;
            options.health_service = service;
            once(&mut options.health_check, check, source)
        }),
    },
    Flag {
        long: "health-path",
        short: None,
        group: Group::Health,
        placeholder: "P",
        default: Preset::Told("/"),
        env: "LB_HEALTH_PATH",
        help: "request this path in a probe",
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
        help: "pass a probe with one of these statuses, for example `200-299,401`",
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
        help: "send this Host field in a probe",
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
        help: "probe each backend this often; `off` sends no probes",
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
        help: "fail a probe that takes longer",
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
        help: "take a backend down after this many failures in a row; requests and probes are counted apart",
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
        help: "take a backend back after this many passed probes in a row",
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
        help: "count a 5xx response as a failure of the backend",
        accepts: "1 or 0",
        set: Set::Switch(|options, value, source| options.health_5xx = Some(Given { value, source })),
    },
];
