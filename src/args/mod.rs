//! The command line and the environment, as typed options.
//!
//! [`FLAGS`] is the only list of options: the parser, `--help`, the README's table and the configuration file
//! read it. [`parse`] turns text into [`Options`], which contain only given values, each with its source.
//! `config::file` adds the values of a file, and `config::resolve` fills in the defaults. An option on the
//! command line replaces its variable in the environment entirely.
//!
//! Invariant: every value in [`Options`] is within the limits of its option.

pub mod backend;
pub mod flags;
mod healthcheck;
pub mod help;
mod listener;
mod nearest;
mod parse;
pub mod probe;
mod sticky;
mod strategy;
pub mod value;
mod variables;

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use crate::balance::strategy::Strategy;
use crate::dns::hosts::Hosts;
use crate::http::affinity::HashKey;
use crate::http::proxy_header::Version;
use crate::json::Position;
use crate::limits::SHOWN_CHARS;
use crate::log::Level;
use crate::metrics::Detail;
pub use backend::{Backend, Host, Target};
pub use flags::{FLAGS, Flag};
pub(crate) use flags::{add_backend, give};
pub use healthcheck::Healthcheck;
pub use listener::Listener;
pub(crate) use nearest::nearest;
pub use parse::{parse, parse_with};
pub use probe::{HealthCheck, Statuses};
pub use sticky::CookieAttributes;
pub use value::{Cidr, Fault, HostHeader, Mode, TlsVersion};
pub use variables::remarks;

/// The request of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a process has one of it, for a moment")]
pub enum Command {
    /// Run with these options.
    Run(Options),
    /// Check the health of a balancer.
    Healthcheck(Healthcheck),
    /// Print [`help::text`].
    Help,
    /// Print [`help::version`].
    Version,
}

/// The source of a value. Displayed, it opens a sentence about the value: `--port`, `LB_PORT` or `lb.json:2:5:
/// port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line: the option's long name.
    CommandLine(&'static str),
    /// The environment: the variable's name.
    Environment(&'static str),
    /// A configuration file.
    File {
        /// The path as messages show it.
        path: Arc<str>,
        /// The position of the value.
        at: Position,
        /// The key, with dashes instead of underscores.
        key: &'static str,
    },
}

impl Source {
    /// The source without the key, for use within a sentence: `--port`, `LB_PORT` or `lb.json:2:5`.
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

/// A value and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<T> {
    /// The checked value.
    pub value: T,
    /// The source.
    pub source: Source,
}

/// A value as text, and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The option's long name.
    pub name: &'static str,
    /// The value as given; `on` or `off` for a switch.
    pub value: String,
    /// The source.
    pub source: Source,
}

/// The given options; `None` or an empty list for those not given. Durations are in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Warnings about the environment, for the start.
    pub remarks: Vec<String>,
    /// `--port`; 0 for any free port.
    pub port: Option<Given<u16>>,
    /// `--host`.
    pub host: Option<Given<IpAddr>>,
    /// `--listen`, in the order given.
    pub listen: Vec<Given<Listener>>,
    /// `--http-redirect`; the inner `None` means off.
    pub http_redirect: Option<Given<Option<u16>>>,
    /// `--tls-cert`, in the order given.
    pub tls_certs: Vec<Given<PathBuf>>,
    /// `--tls-key`, in the order given.
    pub tls_keys: Vec<Given<PathBuf>>,
    /// `--tls-dev`.
    pub tls_dev: Option<Given<bool>>,
    /// `--tls-min`.
    pub tls_min: Option<Given<TlsVersion>>,
    /// `--tls-strict-sni`.
    pub tls_strict_sni: Option<Given<bool>>,
    /// `--tls-client-ca`.
    pub tls_client_ca: Option<Given<PathBuf>>,
    /// `--tls-client-optional`.
    pub tls_client_optional: Option<Given<bool>>,
    /// `--tls-ticket-key`.
    pub tls_ticket_key: Option<Given<PathBuf>>,
    /// `--hsts`, in seconds; the inner `None` means off.
    pub hsts_s: Option<Given<Option<u64>>>,
    /// `--backend`, in the order given.
    pub backends: Vec<Given<Backend>>,
    /// True if the file has a list of backends, even an empty one. Then there are no default backends.
    pub no_default_backends: bool,
    /// `--workers`.
    pub workers: Option<Given<u32>>,
    /// `--strategy`.
    pub strategy: Option<Given<(Strategy, Option<HashKey>)>>,
    /// `--sticky`: the name of the cookie.
    pub sticky: Option<Given<Option<String>>>,
    /// `--sticky-key`.
    pub sticky_key: Option<Given<PathBuf>>,
    /// `--sticky-attributes`.
    pub sticky_attributes: Option<Given<CookieAttributes>>,
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
    /// `--send-proxy`.
    pub send_proxy: Option<Given<Option<Version>>>,
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
    /// The service of `--health-check grpc:SERVICE`; otherwise empty.
    pub health_service: String,
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
    /// `--admin`; the inner `None` means off.
    pub admin: Option<Given<Option<SocketAddr>>>,
    /// The hosts table, for options that accept its names.
    pub hosts: Hosts,
    /// `--metrics-path`; the inner `None` means off.
    pub metrics_path: Option<Given<Option<String>>>,
    /// `--metrics-detail`.
    pub metrics_detail: Option<Given<Detail>>,
    /// Every given value in the order of reading. Each value of a repeatable option is one entry.
    pub settings: Vec<Setting>,
}

/// A reason why the arguments cannot be used; always the user's fault. Displayed, it is one line without
/// control characters for any input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// An option with an unknown name.
    UnknownOption {
        /// The option as written, without a value.
        option: String,
        /// The option probably meant, as it would be written.
        nearest: Option<String>,
    },
    /// The argument of a health check is not an address.
    Healthcheck(String),
    /// An argument that is not an option.
    Positional(String),
    /// An argument that is not UTF-8; its readable part.
    NotUtf8(String),
    /// An option without the value that it needs.
    MissingValue(&'static Flag),
    /// A switch with a value.
    SuperfluousValue(&'static Flag, String),
    /// An option given twice that is allowed once.
    Repeated(&'static Flag),
    /// A value that the option does not accept.
    Value {
        /// The source of the value.
        source: Source,
        /// The value.
        value: String,
        /// The fault.
        fault: Fault,
        /// A description of accepted values.
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
                    // A password precedes the last at sign.
                    Fault::UserInfo => value.rsplit_once('@').map(|(_, place)| format!("...@{place}")),
                    _ => None,
                };
                let value = without_secret.as_ref().unwrap_or(value);
                write!(f, "{source} '{}': {}; accepted: {accepts}", Shown(value), fault.reason())?;
                match fault {
                    Fault::Unknown(Some(nearest)) | Fault::Attribute(Some(nearest)) => {
                        write!(f, "; did you mean '{nearest}'?")
                    }
                    Fault::NoUnit(true) => write!(f, "; did you mean '{}s'?", Shown(value)),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for Error {}

/// Foreign text for an error line: control characters as `\xNN`, cut to `SHOWN_CHARS`.
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
