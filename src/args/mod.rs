//! The command line and the environment, as typed options.
//!
//! [`FLAGS`] is the only list of options: the parser, `--help`, the README's table and the
//! configuration file read it. [`parse`] takes text and gives [`Options`], which hold what was
//! given and nothing else, each with the place it came from; `config::file` adds what a file says,
//! and `config::resolve` fills in the defaults. An option on the command line hides its variable
//! in the environment altogether.
//!
//! Invariant: whatever stands in an [`Options`] is within the bounds that its option states.

pub mod backend;
pub mod flags;
mod healthcheck;
pub mod help;
mod nearest;
mod parse;
pub mod probe;
pub mod value;
mod variables;

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use crate::balance::strategy::Strategy;
use crate::dns::hosts::Hosts;
use crate::json::Position;
use crate::limits::SHOWN_CHARS;
use crate::log::Level;
use crate::metrics::Detail;
pub use backend::{Backend, Host, Target};
pub use flags::{FLAGS, Flag};
pub(crate) use flags::{add_backend, give};
pub use healthcheck::Healthcheck;
pub(crate) use nearest::nearest;
pub use parse::{parse, parse_with};
pub use probe::{HealthCheck, Statuses};
pub use value::{Cidr, Fault, HostHeader, Mode};
pub use variables::remarks;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a process has one of it, for a moment")]
pub enum Command {
    /// To run with these options.
    Run(Options),
    /// To look whether a balancer is well.
    Healthcheck(Healthcheck),
    /// To print [`help::text`].
    Help,
    /// To print [`help::version`].
    Version,
}

/// Where a value came from; shown, it opens a sentence about the value, as `--port`, `LB_PORT` or
/// `lb.json:2:5: port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line: the option's long name.
    CommandLine(&'static str),
    /// The environment: the variable's name.
    Environment(&'static str),
    /// A configuration file.
    File {
        /// Its path, as messages show it.
        path: Arc<str>,
        /// Where the value stands.
        at: Position,
        /// The key that it belongs to; dashes stand for underscores.
        key: &'static str,
    },
}

impl Source {
    /// The place alone, for within a sentence: `--port`, `LB_PORT` or `lb.json:2:5`.
    pub fn place(&self) -> String {
        match self {
            Source::CommandLine(long) => format!("--{long}"),
            Source::Environment(name) => (*name).to_owned(),
            Source::File { path, at, .. } => format!("{}:{at}", Shown(path)),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())?;
        match self {
            Source::File { key, .. } => write!(f, ": {}", key.replace('-', "_")),
            Source::CommandLine(_) | Source::Environment(_) => Ok(()),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<T> {
    /// The value, checked.
    pub value: T,
    /// Where it came from.
    pub source: Source,
}

/// A value as text and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The option's long name.
    pub name: &'static str,
    /// The value as it was given; a switch's is `on` or `off`.
    pub value: String,
    /// Where it came from.
    pub source: Source,
}

/// What was given; `None` and empty lists where nothing was. Durations are microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What is to be said of the environment at the start.
    pub remarks: Vec<String>,
    /// `--port`; 0 for any free port.
    pub port: Option<Given<u16>>,
    /// `--host`.
    pub host: Option<Given<IpAddr>>,
    /// `--backend`, in the order given.
    pub backends: Vec<Given<Backend>>,
    /// The file has a list of backends, so that no default ones stand in, even if it is empty.
    pub no_default_backends: bool,
    /// `--workers`.
    pub workers: Option<Given<u32>>,
    /// `--strategy`.
    pub strategy: Option<Given<Strategy>>,
    /// `--loglevel`.
    pub loglevel: Option<Given<Level>>,
    /// `--trace`.
    pub trace: Option<Given<bool>>,
    /// `--tls-trace`.
    pub tls_trace: Option<Given<bool>>,
    /// `--mode`.
    pub mode: Option<Given<Mode>>,
    /// `--demo`.
    pub demo: Option<Given<bool>>,
    /// `--connect-timeout`.
    pub connect_us: Option<Given<u64>>,
    /// `--request-timeout`.
    pub request_us: Option<Given<u64>>,
    /// `--response-timeout`.
    pub response_us: Option<Given<u64>>,
    /// `--idle-timeout`.
    pub idle_us: Option<Given<u64>>,
    /// `--half-close`.
    pub half_close_us: Option<Given<u64>>,
    /// `--drain-timeout`.
    pub drain_us: Option<Given<u64>>,
    /// `--drain-idle`.
    pub drain_idle_us: Option<Given<u64>>,
    /// `--drain-delay`; 0 for off.
    pub drain_delay_us: Option<Given<u64>>,
    /// `--watchdog`; 0 for off.
    pub watchdog_us: Option<Given<u64>>,
    /// `--max-connections`.
    pub max_connections: Option<Given<u32>>,
    /// `--host-header`.
    pub host_header: Option<Given<HostHeader>>,
    /// `--trust`, in the order given.
    pub trust: Vec<Given<Cidr>>,
    /// `--via`.
    pub via: Option<Given<String>>,
    /// `--request-id`.
    pub request_id: Option<Given<bool>>,
    /// `--user`: `user` or `user:group`, names or numbers, not looked up.
    pub user: Option<Given<String>>,
    /// `--ca-file`.
    pub ca_file: Option<Given<PathBuf>>,
    /// `--insecure`.
    pub insecure: Option<Given<bool>>,
    /// `--config`.
    pub config: Option<Given<PathBuf>>,
    /// `--check`.
    pub check: Option<Given<bool>>,
    /// `--health-check`.
    pub health_check: Option<Given<HealthCheck>>,
    /// `--health-path`.
    pub health_path: Option<Given<String>>,
    /// `--health-status`.
    pub health_status: Option<Given<Statuses>>,
    /// `--health-host`.
    pub health_host: Option<Given<String>>,
    /// `--health-interval`; 0 for off.
    pub health_interval_us: Option<Given<u64>>,
    /// `--health-timeout`.
    pub health_timeout_us: Option<Given<u64>>,
    /// `--health-fails`.
    pub health_fails: Option<Given<u32>>,
    /// `--health-passes`.
    pub health_passes: Option<Given<u32>>,
    /// `--health-5xx`.
    pub health_5xx: Option<Given<bool>>,
    /// `--slow-start`; 0 for off.
    pub slow_start_us: Option<Given<u64>>,
    /// `--retry-budget`, percent.
    pub retry_percent: Option<Given<u32>>,
    /// `--admin`; `None` within for off.
    pub admin: Option<Given<Option<SocketAddr>>>,
    /// The table of hosts, for the options that take its names.
    pub hosts: Hosts,
    /// `--metrics-path`; `None` within for off.
    pub metrics_path: Option<Given<Option<String>>>,
    /// `--metrics-detail`.
    pub metrics_detail: Option<Given<Detail>>,
    /// Each value given, a repeatable option's one by one, in the order that they were read.
    pub settings: Vec<Setting>,
}

/// Why the arguments cannot be used; always the user's fault. Displayed, it is one line without
/// control characters, whatever was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// No option is called that.
    UnknownOption {
        /// As written, without a value.
        option: String,
        /// The option probably meant, as it would be written.
        nearest: Option<String>,
    },
    /// What is no address that a health check could ask.
    Healthcheck(String),
    /// There are no arguments besides options.
    Positional(String),
    /// An argument that is not UTF-8; what could be read of it.
    NotUtf8(String),
    /// An option without the value that it needs.
    MissingValue(&'static Flag),
    /// A switch with a value.
    SuperfluousValue(&'static Flag, String),
    /// An option that may stand once, and stands twice.
    Repeated(&'static Flag),
    /// A value that the option does not take.
    Value {
        /// Whose value it is.
        source: Source,
        /// The value.
        value: String,
        /// What is wrong with it.
        fault: Fault,
        /// What is accepted instead.
        accepts: &'static str,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::UnknownOption { option, nearest: Some(nearest) } => {
                write!(f, "unknown option '{}'; did you mean '{nearest}'?", Shown(option))
            }
            Error::UnknownOption { option, nearest: None } => {
                write!(f, "unknown option '{}'; --help lists the options", Shown(option))
            }
            Error::Positional(argument) => {
                write!(f, "unexpected argument '{}'; only options are accepted, ", Shown(argument))?;
                f.write_str("and a backend is given as -b HOST:PORT")
            }
            Error::Healthcheck(text) => {
                write!(f, "healthcheck '{}': malformed; accepted: PORT, HOST:PORT, either with /PATH", Shown(text))
            }
            Error::NotUtf8(argument) => {
                write!(f, "argument '{}' is not UTF-8; options and their values have to be", Shown(argument))
            }
            Error::MissingValue(flag) => {
                write!(f, "--{} needs a value; accepted: {}", flag.long, flag.accepts)
            }
            Error::SuperfluousValue(flag, value) => {
                write!(f, "--{} has '{}'; accepted: --{0} alone, or 1 or 0", flag.long, Shown(value))
            }
            Error::Repeated(flag) => {
                write!(f, "--{} is given twice, which is contradictory; accepted: once", flag.long)
            }
            Error::Value { source, value, fault, accepts } => {
                let without_secret = match fault {
                    // A password stands before the last at sign.
                    Fault::UserInfo => value.rsplit_once('@').map(|(_, place)| format!("...@{place}")),
                    _ => None,
                };
                let value = without_secret.as_ref().unwrap_or(value);
                write!(f, "{source} '{}': {}; accepted: {accepts}", Shown(value), fault.reason())?;
                match fault {
                    Fault::Unknown(Some(nearest)) | Fault::Attribute(Some(nearest)) => {
                        write!(f, "; did you mean '{nearest}'?")
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for Error {}

/// Foreign text as an error line shows it: control characters as `\xNN`, and not too much of it.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, c) in self.0.chars().enumerate() {
            if count == SHOWN_CHARS {
                return f.write_str("...");
            } else if c.is_control() {
                write!(f, "\\x{:02x}", u32::from(c))?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_shown_on_one_line_and_bounded() {
        assert_eq!(Shown("a\nb\x1b").to_string(), "a\\x0ab\\x1b");
        assert_eq!(Shown(&"x".repeat(SHOWN_CHARS)).to_string(), "x".repeat(SHOWN_CHARS));
        assert_eq!(Shown(&"é".repeat(SHOWN_CHARS + 1)).to_string(), "é".repeat(SHOWN_CHARS) + "...");
    }
}
