//! The options: one entry each, which the parser, `--help` and the README's table all read.
//!
//! Invariants, held by the tests: names are unique; an entry's variable is `LB_` and its long
//! name; a default that stands here is the one that `config::resolve` fills in (tested there);
//! entries of a group stand together.

use super::backend::backend;
use super::value::{self, Fault, Mode};
use super::{BackendSpec, Error, Given, Options, Setting, Source};
use crate::balance::strategy::Strategy;
use crate::limits::{BACKENDS, CLIENT_CONNECTIONS, HEALTH_COUNT, TRUSTED_RANGES, WORKERS};
use crate::log::Level;

/// One option.
#[derive(Debug)]
pub struct Flag {
    /// The long name, without dashes.
    pub long: &'static str,
    /// The short name, where it has one.
    pub short: Option<char>,
    /// The heading it stands under in `--help`.
    pub group: Group,
    /// What stands for its value in the help; empty for a switch.
    pub placeholder: &'static str,
    /// What holds where it is not given.
    pub default: Preset,
    /// Its variable in the environment; empty where it has none.
    pub env: &'static str,
    /// What it means. Literal text stands in backquotes.
    pub help: &'static str,
    /// What values it takes, for error lines.
    pub accepts: &'static str,
    /// What it does with its value.
    pub set: Set,
}

/// Names are unique, so an option is told by its name.
impl PartialEq for Flag {
    fn eq(&self, other: &Flag) -> bool {
        self.long == other.long
    }
}

impl Eq for Flag {}

/// A heading in `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Where clients come in.
    Listening,
    /// Where requests go.
    Backends,
    /// How it is found out which backends are well.
    Health,
    /// What is changed in messages.
    Forwarding,
    /// Time limits.
    Time,
    /// Processes and their account.
    Processes,
    /// What is written to stderr.
    Log,
    /// Where settings come from.
    Configuration,
    /// What ends at once.
    Other,
}

impl Group {
    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Group::Listening => "Listening",
            Group::Backends => "Backends",
            Group::Health => "Health of backends",
            Group::Forwarding => "Forwarding",
            Group::Time => "Time limits (500ms, 2s, 1m, 1h)",
            Group::Processes => "Processes",
            Group::Log => "Log",
            Group::Configuration => "Configuration",
            Group::Other => "Other",
        }
    }
}

/// What holds where an option is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Nothing.
    Nothing,
    /// This value, as it would be written on the command line.
    Value(&'static str),
    /// What these words say.
    Told(&'static str),
}

impl Preset {
    /// The words for it; empty for nothing.
    pub fn text(self) -> &'static str {
        match self {
            Preset::Nothing => "",
            Preset::Value(text) | Preset::Told(text) => text,
        }
    }
}

/// Puts a value in its place, or says what is wrong with it.
type Setter = fn(&mut Options, &str, Source) -> Result<(), Fault>;

/// What an option does.
#[derive(Clone, Copy, Debug)]
pub enum Set {
    /// Takes no value: it is there or not. The environment says 1 or 0.
    Switch(fn(&mut Options, bool, Source)),
    /// Takes a value, once.
    Value(Setter),
    /// The same, and the value is a number, in a configuration file too.
    Number(Setter),
    /// Takes a value each time it is given. The environment separates them by white space.
    Repeatable(Setter),
    /// Asks for the help text.
    Help,
    /// Asks for the version.
    Version,
}

/// All options.
pub static FLAGS: &[Flag] = &[
    Flag {
        long: "port",
        short: Some('p'),
        group: Group::Listening,
        placeholder: "N",
        default: Preset::Value("8080"),
        env: "LB_PORT",
        help: "port to listen on; 0 takes any free one",
        accepts: "a number from 0 to 65535",
        set: Set::Number(|options, text, source| once(&mut options.port, value::port(text)?, source)),
    },
    Flag {
        long: "host",
        short: None,
        group: Group::Listening,
        placeholder: "IP",
        default: Preset::Value("0.0.0.0"),
        env: "LB_HOST",
        help: "address to listen on; `[::]` for all of IPv6",
        accepts: "an IP address, such as 127.0.0.1 or [::]",
        set: Set::Value(|options, text, source| once(&mut options.host, value::ip(text)?, source)),
    },
    Flag {
        long: "max-connections",
        short: None,
        group: Group::Listening,
        placeholder: "N",
        default: Preset::Told("by the descriptor limit"),
        env: "LB_MAX_CONNECTIONS",
        help: "clients held at once; past it accepting pauses, nothing is reset",
        accepts: "a number from 1 to 10000000",
        set: Set::Number(|options, text, source| {
            once(&mut options.max_connections, value::number_u32(text, 1, CLIENT_CONNECTIONS)?, source)
        }),
    },
    Flag {
        long: "admin",
        short: None,
        group: Group::Listening,
        placeholder: "ADDR",
        default: Preset::Value("off"),
        env: "LB_ADMIN",
        help: "where `/metrics`, `/livez` and `/readyz` are served, instead of `/metrics` on the main port: `PORT` on loopback, or `HOST:PORT`",
        accepts: "a port, an IP address with a port such as 127.0.0.1:9100 or [::1]:9100, or off",
        set: Set::Value(|options, text, source| once(&mut options.admin, value::admin(text)?, source)),
    },
    Flag {
        long: "backend",
        short: Some('b'),
        group: Group::Backends,
        placeholder: "SPEC",
        default: Preset::Told("127.0.0.1:9001 and 127.0.0.1:9002"),
        env: "LB_BACKEND",
        help: "a server that requests go to, repeatable: `host:port`, `[v6]:port` or `unix:/path`, with `http://` \
               in front where wanted, then `,weight=N` (1 to 65535), `,backup` (serves when no other is healthy) and \
               `,max=N` (requests at once)",
        accepts: "host:port, [v6]:port or unix:/path, then ,weight=N ,backup ,max=N (at most 1024 backends)",
        set: Set::Repeatable(|options, text, source| more(&mut options.backends, backend(text)?, source, BACKENDS)),
    },
    Flag {
        long: "strategy",
        short: Some('s'),
        group: Group::Backends,
        placeholder: "S",
        default: Preset::Value("round_robin"),
        env: "LB_STRATEGY",
        help: "how a backend is picked: `round_robin`, `weighted`, `random` or `least_requests` (the less busy of \
               two picked at random)",
        accepts: "round_robin, weighted, random, least_requests",
        set: Set::Value(|options, text, source| {
            once(&mut options.strategy, value::choice(&Strategy::NAMES, text)?, source)
        }),
    },
    Flag {
        long: "retry-budget",
        short: None,
        group: Group::Backends,
        placeholder: "PERCENT",
        default: Preset::Value("20"),
        env: "LB_RETRY_BUDGET",
        help: "retries for each hundred requests, at most; a few a second are always made",
        accepts: "a number from 0 to 100",
        set: Set::Number(|options, text, source| {
            once(&mut options.retry_percent, value::number_u32(text, 0, 100)?, source)
        }),
    },
    Flag {
        long: "slow-start",
        short: None,
        group: Group::Backends,
        placeholder: "D",
        default: Preset::Value("off"),
        env: "LB_SLOW_START",
        help: "how long a backend that came back gets less than its share",
        accepts: DURATIONS_OR_OFF,
        set: Set::Value(|options, text, source| {
            once(&mut options.slow_start_us, value::duration_or_off(text)?, source)
        }),
    },
    Flag {
        long: "demo",
        short: None,
        group: Group::Backends,
        placeholder: "",
        default: Preset::Nothing,
        env: "LB_DEMO",
        help: "start two built-in echo backends on loopback and send requests to them",
        accepts: "1 or 0",
        set: Set::Switch(|options, value, source| options.demo = Some(Given { value, source })),
    },
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
    Flag {
        long: "host-header",
        short: None,
        group: Group::Forwarding,
        placeholder: "HOST",
        default: Preset::Value("preserve"),
        env: "LB_HOST_HEADER",
        help: "what backends get as Host: `preserve` for what the client sent, `backend` for the backend's own \
               host and port, or this name",
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
        help: "peers whose `X-Forwarded-*` fields are believed, repeatable: `10.0.0.0/8`, `2001:db8::/32` or one address",
        accepts: "an IP address or a range such as 10.0.0.0/8 (at most 1024 of them)",
        set: Set::Repeatable(|options, text, source| {
            more(&mut options.trust, value::cidr(text)?, source, TRUSTED_RANGES)
        }),
    },
    Flag {
        long: "via",
        short: None,
        group: Group::Forwarding,
        placeholder: "NAME",
        default: Preset::Told("off"),
        env: "LB_VIA",
        help: "add a Via field under this name (some backends stop compressing when they see one)",
        accepts: "a name of letters, digits and -._~!#$%&'*+^`|, then :port where wanted",
        set: Set::Value(|options, text, source| once(&mut options.via, value::via(text)?, source)),
    },
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
        long: "workers",
        short: Some('w'),
        group: Group::Processes,
        placeholder: "N",
        default: Preset::Told("usable CPUs"),
        env: "LB_WORKERS",
        help: "worker processes (`mp`)",
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
        help: "`mp` for a master with workers, `sp` for one process",
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
        help: "the account (name or number, `user` or `user:group`) to run as once the listeners are bound",
        accepts: "user or user:group, each a name or a number",
        set: Set::Value(|options, text, source| once(&mut options.user, value::user(text)?, source)),
    },
    Flag {
        long: "loglevel",
        short: Some('l'),
        group: Group::Log,
        placeholder: "L",
        default: Preset::Value("info"),
        env: "LB_LOGLEVEL",
        help: "the least grave lines to keep: `err`, `warn`, `info` or `debug`",
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
        help: "hex and ASCII dump of every message in both directions",
        accepts: "1 or 0",
        set: Set::Switch(|options, value, source| options.trace = Some(Given { value, source })),
    },
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
        help: "look at options and configuration, print what would run, and exit",
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

const DURATIONS: &str = "1ms to 24h, such as 500ms, 2s, 1m or 1h";
const DURATIONS_OR_OFF: &str = "1ms to 24h, such as 500ms, 2s, 1m or 1h; or off";

impl Flag {
    /// Whether a value means the same as not giving the option.
    pub fn is_default(&self, value: &str) -> bool {
        let Preset::Value(preset) = self.default else {
            return matches!(self.set, Set::Switch(_)) && value::switch(value) == Ok(false);
        };
        // Set both, and the same options come of it.
        let set = |text: &str| match self.set {
            Set::Value(set) | Set::Number(set) | Set::Repeatable(set) => {
                let mut options = Options::default();
                set(&mut options, text, Source::CommandLine(self.long)).ok().map(|()| options)
            }
            Set::Switch(_) | Set::Help | Set::Version => None,
        };
        set(value) == set(preset)
    }
}

/// Gives an option a value, or says what is wrong with that. A switch takes what its variable takes.
pub(crate) fn give(flag: &'static Flag, text: &str, source: Source, options: &mut Options) -> Result<(), Error> {
    let mut shown = text;
    let given = match flag.set {
        Set::Value(set) | Set::Number(set) | Set::Repeatable(set) => set(options, text, source.clone()),
        Set::Switch(set) => value::switch(text).map(|on| {
            shown = if on { "on" } else { "off" };
            set(options, on, source.clone());
        }),
        Set::Help | Set::Version => Ok(()),
    };
    match given {
        Ok(()) => {
            options.settings.push(Setting { name: flag.long, value: shown.to_owned(), source });
            Ok(())
        }
        Err(fault) => Err(Error::Value { source, value: text.to_owned(), fault, accepts: flag.accepts }),
    }
}

/// Adds a backend that is no text.
pub(crate) fn add_backend(spec: BackendSpec, source: Source, options: &mut Options) -> Result<(), Fault> {
    let value = spec.to_string();
    more(&mut options.backends, spec, source.clone(), BACKENDS)?;
    options.settings.push(Setting { name: "backend", value, source });
    Ok(())
}

fn once<T>(slot: &mut Option<Given<T>>, value: T, source: Source) -> Result<(), Fault> {
    *slot = Some(Given { value, source });
    Ok(())
}

fn more<T>(list: &mut Vec<Given<T>>, value: T, source: Source, most: usize) -> Result<(), Fault> {
    if list.len() == most {
        return Err(Fault::TooMany);
    }
    list.push(Given { value, source });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{COMPARED_BYTES, DURATION_MAX_US, DURATION_MIN_US};

    fn flag(long: &str) -> &'static Flag {
        FLAGS.iter().find(|flag| flag.long == long).unwrap()
    }

    #[test]
    fn names_are_unique_and_short_enough_to_compare() {
        for (i, a) in FLAGS.iter().enumerate() {
            assert!(a.long.len() >= 2 && a.long.len() < COMPARED_BYTES, "{}", a.long);
            for b in &FLAGS[..i] {
                assert!(a.long != b.long && (a.short.is_none() || a.short != b.short), "{} and {}", a.long, b.long);
            }
        }
    }

    #[test]
    fn every_option_that_configures_has_its_variable_and_says_what_it_takes() {
        for flag in FLAGS {
            if matches!(flag.set, Set::Help | Set::Version) {
                assert_eq!((flag.env, flag.accepts), ("", ""));
                continue;
            }
            assert_eq!(flag.env, format!("LB_{}", flag.long.to_uppercase().replace('-', "_")));
            assert!(!flag.accepts.is_empty() && !flag.help.is_empty(), "{}", flag.long);
            assert_eq!(matches!(flag.set, Set::Switch(_)), flag.placeholder.is_empty(), "{}", flag.long);
        }
    }

    #[test]
    fn entries_of_a_group_stand_together() {
        let mut groups: Vec<Group> = FLAGS.iter().map(|flag| flag.group).collect();
        groups.dedup();
        for (i, group) in groups.iter().enumerate() {
            assert!(!groups[..i].contains(group), "{group:?}");
        }
    }

    #[test]
    fn words_and_bounds_in_the_texts_are_the_real_ones() {
        let words = |names: Vec<&str>| names.join(", ");
        assert_eq!(flag("strategy").accepts, words(Strategy::NAMES.iter().map(|(name, _)| *name).collect()));
        assert_eq!(flag("loglevel").accepts, words(Level::NAMES.iter().map(|(name, _)| *name).collect()));
        assert_eq!(flag("mode").accepts, words(Mode::NAMES.iter().map(|(name, _)| *name).collect()));
        for long in ["strategy", "loglevel", "mode"] {
            for word in flag(long).accepts.split(", ") {
                assert!(flag(long).help.contains(&format!("`{word}`")), "{long}: {word}");
            }
        }
        assert!(flag("workers").accepts.ends_with(&format!(" {WORKERS}")));
        assert!(flag("max-connections").accepts.ends_with(&format!(" {CLIENT_CONNECTIONS}")));
        assert!(flag("health-fails").accepts.ends_with(&format!(" {HEALTH_COUNT}")));
        assert_eq!(flag("health-fails").accepts, flag("health-passes").accepts);
        assert_eq!(DURATIONS_OR_OFF, format!("{DURATIONS}; or off"));
        assert!(flag("backend").accepts.contains(&format!(" {BACKENDS} ")));
        assert!(flag("trust").accepts.contains(&format!(" {TRUSTED_RANGES} ")));
        let (least, most) = DURATIONS.split_once(',').unwrap().0.split_once(" to ").unwrap();
        assert_eq!(value::duration(least), Ok(DURATION_MIN_US));
        assert_eq!(value::duration(most), Ok(DURATION_MAX_US));
    }

    #[test]
    fn what_means_the_default_is_told_from_what_does_not() {
        for (long, value) in
            [("port", "08080"), ("idle-timeout", "75000ms"), ("admin", "OFF"), ("slow-start", "off"), ("trace", "off")]
        {
            assert!(flag(long).is_default(value), "{long} {value}");
        }
        for (long, value) in
            [("port", "80"), ("idle-timeout", "74s"), ("admin", "1"), ("trace", "on"), ("trust", "::1"), ("via", "a")]
        {
            assert!(!flag(long).is_default(value), "{long} {value}");
        }
    }
}
