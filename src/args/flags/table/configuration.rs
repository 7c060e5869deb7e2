//! The options for the configuration, and those that print and exit.

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
        help: "read settings and backends from this JSON file, and follow its changes",
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
        help: "check options and configuration; resolve, connect to and probe each backend; print the plan; and \
               exit with 2 if a start would be refused, else with 0 (an address in use or a backend that fails is \
               only a warning)",
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
