//! The options for processes.

use super::DURATIONS_OR_OFF;
use crate::args::flags::{Flag, Group, Preset, Set, once};
use crate::args::value::{self, Mode};
use crate::limits::WORKERS;

pub(super) const FLAGS: &[Flag] = &[
    Flag {
        long: "watchdog",
        short: None,
        group: Group::Processes,
        placeholder: "D",
        default: Preset::Value("10s"),
        env: "LB_WATCHDOG",
        help: "kill and replace a worker whose loop stands still for this long (`mp`)",
        accepts: DURATIONS_OR_OFF,
        set: Set::Value(|options, text, source| once(&mut options.watchdog_us, value::duration_or_off(text)?, source)),
    },
    Flag {
        long: "workers",
        short: Some('w'),
        group: Group::Processes,
        placeholder: "N",
        default: Preset::Told("usable CPUs"),
        env: "LB_WORKERS",
        help: "run this many worker processes (`mp`)",
        accepts: "a number from 1 to 1024",
        set: Set::Number(|options, text, source| {
            once(&mut options.workers, value::number_u32(text, 1, WORKERS)?, source)
        }),
    },
    Flag {
        long: "mode",
        short: Some('m'),
        group: Group::Processes,
        placeholder: "mp|sp",
        default: Preset::Told("mp on Linux, else sp"),
        env: "LB_MODE",
        help: "run a master with workers (`mp`) or one process (`sp`)",
        accepts: "mp, sp",
        set: Set::Value(|options, text, source| once(&mut options.mode, value::choice(&Mode::NAMES, text)?, source)),
    },
    Flag {
        long: "user",
        short: None,
        group: Group::Processes,
        placeholder: "NAME",
        default: Preset::Told("unchanged"),
        env: "LB_USER",
        help: "run as this account once the listeners are bound: `user` or `user:group`, each a name or a number",
        accepts: "user or user:group, each a name or a number",
        set: Set::Value(|options, text, source| once(&mut options.user, value::user(text)?, source)),
    },
];
