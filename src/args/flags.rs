//! The options: one entry for each, read by the parser, `--help` and the README's table.
//!
//! Invariants, checked by tests: names are unique. An entry's variable is `LB_` and its long name in capitals. A
//! default given here is the one that `config::resolve` fills in (tested there). The entries of a group are together.

mod table;

use super::value::{self, Fault};
use super::{Backend, Error, Given, Options, Setting, Source};
use crate::limits::BACKENDS;
pub use table::FLAGS;

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// The long name, without dashes.
    pub long: &'static str,
    /// The short name, if there is one.
    pub short: Option<char>,
    /// The heading in `--help`.
    pub group: Group,
    /// The placeholder for its value in the help; empty for a switch.
    pub placeholder: &'static str,
    /// The value if the option is not given.
    pub default: Preset,
    /// The variable of the environment; empty if there is none.
    pub env: &'static str,
    /// The meaning. Literal text is in backquotes.
    pub help: &'static str,
    /// The accepted values, for error lines.
    pub accepts: &'static str,
    /// The action with the value.
    pub set: Set,
}

/// Names are unique, so the name identifies an option.
impl PartialEq for Flag {
    fn eq(&self, other: &Flag) -> bool {
        self.long == other.long
    }
}

impl Eq for Flag {}

/// A heading in `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Listeners, and the pages on them.
    Listening,
    /// TLS with clients.
    Tls,
    /// Backends.
    Backends,
    /// Health checks.
    Health,
    /// Changes of messages.
    Forwarding,
    /// Time limits.
    Time,
    /// Processes and their account.
    Processes,
    /// The lines on stderr.
    Log,
    /// The sources of settings.
    Configuration,
    /// Options that print and exit.
    Other,
}

impl Group {
    /// Returns the heading.
    pub fn title(self) -> &'static str {
        match self {
            Group::Listening => "Listening",
            Group::Tls => "TLS with clients",
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

/// The value of an option that is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Nothing.
    Nothing,
    /// This value, as it is written on the command line.
    Value(&'static str),
    /// A value that these words describe.
    Told(&'static str),
}

impl Preset {
    /// Returns its words; empty for nothing.
    pub fn text(self) -> &'static str {
        match self {
            Preset::Nothing => "",
            Preset::Value(text) | Preset::Told(text) => text,
        }
    }
}

/// Stores a value, or returns its fault.
type Setter = fn(&mut Options, &str, Source) -> Result<(), Fault>;

/// The action of an option.
#[derive(Clone, Copy, Debug)]
pub enum Set {
    /// Takes no value: it is given or not. In the environment, its value is 1 or 0.
    Switch(fn(&mut Options, bool, Source)),
    /// Takes a value, once.
    Value(Setter),
    /// Takes a number, once. It is also a number in a configuration file.
    Number(Setter),
    /// Takes a value each time it is given. In the environment, white space separates the values.
    Repeatable(Setter),
    /// Asks for the help text.
    Help,
    /// Asks for the version.
    Version,
}

impl Flag {
    /// True if a value means the same as not giving the option.
    pub fn is_default(&self, value: &str) -> bool {
        let Preset::Value(preset) = self.default else {
            return matches!(self.set, Set::Switch(_)) && value::switch(value) == Ok(false);
        };
        // Two values mean the same if they set the same options.
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

/// Gives an option a value, or returns the error. A switch takes the values of its variable.
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

/// Adds a backend that is not given as text.
pub(crate) fn add_backend(spec: Backend, source: Source, options: &mut Options) -> Result<(), Fault> {
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
    use super::table::{DURATIONS, DURATIONS_OR_OFF};
    use super::*;
    use crate::args::{HealthCheck, Mode, TlsVersion};
    use crate::limits::{
        CLIENT_CONNECTIONS, COMPARED_BYTES, DURATION_MAX_US, DURATION_MIN_US, HEALTH_COUNT, HSTS_MAX_S, PAIRS,
        STATUS_RANGES, TRUSTED_RANGES, WORKERS,
    };
    use crate::log::Level;

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
    fn every_configuring_option_has_a_variable_and_lists_its_values() {
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
    fn entries_of_a_group_are_together() {
        let mut groups: Vec<Group> = FLAGS.iter().map(|flag| flag.group).collect();
        groups.dedup();
        for (i, group) in groups.iter().enumerate() {
            assert!(!groups[..i].contains(group), "{group:?}");
        }
    }

    #[test]
    fn words_and_bounds_in_the_texts_are_the_real_ones() {
        let words = |names: Vec<&str>| names.join(", ");
        assert_eq!(flag("strategy").accepts, words(crate::args::strategy::STRATEGIES.to_vec()));
        assert_eq!(flag("loglevel").accepts, words(Level::NAMES.iter().map(|(name, _)| *name).collect()));
        assert_eq!(flag("mode").accepts, words(Mode::NAMES.iter().map(|(name, _)| *name).collect()));
        let checks = words(HealthCheck::NAMES.iter().map(|(name, _)| *name).collect());
        assert_eq!(flag("health-check").accepts, checks.replace("grpc", "grpc, grpc:SERVICE"));
        assert!(flag("health-status").accepts.contains(&format!(" {STATUS_RANGES})")));
        for long in ["strategy", "loglevel", "mode", "health-check"] {
            for word in flag(long).accepts.split(", ") {
                assert!(flag(long).help.contains(&format!("`{word}`")), "{long}: {word}");
            }
        }
        assert!(flag("workers").accepts.ends_with(&format!(" {WORKERS}")));
        assert!(flag("max-connections").accepts.ends_with(&format!(" {CLIENT_CONNECTIONS}")));
        assert!(flag("health-fails").accepts.ends_with(&format!(" {HEALTH_COUNT}")));
        assert_eq!(flag("tls-min").accepts, words(TlsVersion::NAMES.iter().map(|(name, _)| *name).collect()));
        assert!(flag("tls-cert").accepts.contains(&format!(" {PAIRS} ")));
        assert!(flag("hsts").accepts.contains(&format!(" {}d,", HSTS_MAX_S / 86_400)));
        assert_eq!(flag("health-fails").accepts, flag("health-passes").accepts);
        assert_eq!(DURATIONS_OR_OFF, format!("{DURATIONS}; or off"));
        assert!(flag("backend").accepts.contains(&format!(" {BACKENDS} ")));
        assert!(flag("trust").accepts.contains(&format!(" {TRUSTED_RANGES} ")));
        let (least, most) = DURATIONS.split_once(',').unwrap().0.split_once(" to ").unwrap();
        assert_eq!(value::duration(least), Ok(DURATION_MIN_US));
        assert_eq!(value::duration(most), Ok(DURATION_MAX_US));
    }

    #[test]
    fn a_value_equal_to_the_default_is_recognised() {
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
