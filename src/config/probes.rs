//! Contradictions between the options about probes: a type that does not use an option, or that a backend cannot serve.

use std::fmt;

use crate::args::{Given, HealthCheck, Options, Source};

/// A contradiction. Displayed, it is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A type that does not use another option.
    Unused {
        /// The source of the option.
        source: Source,
        /// The source of the type.
        check: Source,
        /// The type, and the reason.
        text: &'static str,
    },
    /// A backend that speaks no HTTP/2, which gRPC needs.
    NeedsHttp2 {
        /// The source of the type.
        check: Source,
        /// The source of the backend and its name; `None` for the default ones.
        backend: Option<(Source, String)>,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unused { source, check, text } => {
                write!(f, "{} has no effect with {} {text}; accepted: one of them", source.place(), check.place())
            }
            Error::NeedsHttp2 { check, backend } => {
                match backend {
                    Some((source, name)) => write!(f, "{source} '{name}'")?,
                    None => f.write_str("the default backends")?,
                }
                write!(f, ": speaks HTTP/1.1, and {} 'grpc' needs HTTP/2; accepted: h2c:// or https://", check.place())
            }
        }
    }
}

/// Finds the contradictions.
pub(super) fn contradictions(options: &Options) -> Vec<Error> {
    let Some(Given { value, source: check }) = &options.health_check else { return Vec::new() };
    let path = options.health_path.as_ref().map(|given| &given.source);
    let status = options.health_status.as_ref().map(|given| &given.source);
    let host = options.health_host.as_ref().map(|given| &given.source);
    let unused = |sources: &[Option<&Source>], text| -> Vec<Error> {
        let unused = sources.iter().copied().flatten();
        unused.map(|source| Error::Unused { source: source.clone(), check: check.clone(), text }).collect()
    };
    match value {
        HealthCheck::Http | HealthCheck::Off => Vec::new(),
        HealthCheck::Tcp => unused(&[path, status, host], "'tcp', which only connects"),
        HealthCheck::Grpc => {
            let mut errors = unused(&[path, status], "'grpc', which has its own path and states");
            let plain = options.backends.iter().filter(|given| !given.value.tls && !given.value.h2c);
            errors.extend(plain.map(|Given { value, source }| Error::NeedsHttp2 {
                check: check.clone(),
                backend: Some((source.clone(), value.name.clone())),
            }));
            if options.backends.is_empty() && !options.no_default_backends {
                errors.push(Error::NeedsHttp2 { check: check.clone(), backend: None });
            }
            errors
        }
    }
}
