//! Options: where settings come from, and those that end at once.

use crate::args::Given;
use crate::args::flags::{Flag, Group, Preset, Set, once};
use crate::args::value;

pub(super) const FLAGS: &[Flag] = &[
    Flag {
        long: "config",
        short: Some('c'),
        group: Group::Configuration,
        placeholder: "FILE",
        default: Preset::Told("none"),
        env: "LB_CONFIG",
        help: "a JSON file of settings and backends",
        accepts: "the path of a file",
        set: Set::Value(|options, text, source| once(&mut options.config, value::file(text)?, source)),
    },
    Flag {
        long: "check",
        short: None,
        group: Group::Configuration,
        placeholder: "",
        default: Preset::Nothing,
        env: "LB_CHECK",
        help: "look at options and configuration, look up, dial and probe each backend, print what would run, and \
               exit: 2 with every problem that a start would be refused for, else 0; an address in use, a backend that does \
               not answer, fails its probe, or whose name is not found, is only warned of",
        accepts: "1 or 0",
        set: Set::Switch(|options, value, source| options.check = Some(Given { value, source })),
    },
    Flag {
        long: "help",
        short: Some('h'),
        group: Group::Other,
        placeholder: "",
        default: Preset::Nothing,
        env: "",
        help: "print this text and exit",
        accepts: "",
        set: Set::Help,
    },
    Flag {
        long: "version",
        short: Some('V'),
        group: Group::Other,
        placeholder: "",
        default: Preset::Nothing,
        env: "",
        help: "print the version and exit",
        accepts: "",
        set: Set::Version,
    },
];
