//! The type of a backend's probes, and the statuses that pass: `--health-check` and `--health-status`.

use std::fmt;

use super::value::{Fault, choice, number};
use crate::http::grpc::SERVICE_BYTES;
use crate::limits::STATUS_RANGES;

/// The type of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthCheck {
    /// A GET request. Its status decides.
    Http,
    /// A connection, and a handshake if the backend uses TLS.
    Tcp,
    /// A call of grpc.health.v1. The state of the service decides.
    Grpc,
    /// No probes.
    Off,
}

impl HealthCheck {
    /// True if a probe sends a request.
    pub fn asks(self) -> bool {
        matches!(self, HealthCheck::Http | HealthCheck::Grpc)
    }

    /// All types with the names that the command line accepts.
    pub const NAMES: [(&'static str, HealthCheck); 4] = [
        ("http", HealthCheck::Http),
        ("tcp", HealthCheck::Tcp),
        ("grpc", HealthCheck::Grpc),
        ("off", HealthCheck::Off),
    ];
}

/// Parses a type, and the service behind `grpc:`, which is empty for all other types.
pub(super) fn health_check(text: &str) -> Result<(HealthCheck, String), Fault> {
    match text.strip_prefix("grpc:") {
        None => Ok((choice(&HealthCheck::NAMES, text)?, String::new())),
        Some(service) if service.len() > SERVICE_BYTES => Err(Fault::OutOfRange),
        Some(service) if service.is_empty() || !service.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(Fault::Malformed)
        }
        Some(service) => Ok((HealthCheck::Grpc, service.to_owned())),
    }
}

/// A set of statuses of final responses, as inclusive ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(Vec<(u16, u16)>);

/// The statuses of final responses (RFC 9110, 15).
const FINAL: (u16, u16) = (200, 599);

impl Statuses {
    /// A set of one range.
    pub fn range(first: u16, last: u16) -> Statuses {
        Statuses(vec![(first, last)])
    }

    /// A set of these ranges.
    pub fn of(ranges: Vec<(u16, u16)>) -> Statuses {
        Statuses(ranges)
    }

    /// The ranges: first and last status.
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }

    /// True if a status is in the set.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|&(first, last)| (first..=last).contains(&status))
    }
}

/// The notation of the command line.
impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// Parses ranges separated by commas, each `FIRST-LAST` or one status.
pub(super) fn statuses(text: &str) -> Result<Statuses, Fault> {
    let status = |text: &str| -> Result<u16, Fault> {
        let number = number(text.trim(), FINAL.0.into(), FINAL.1.into())?;
        u16::try_from(number).map_err(|_| Fault::OutOfRange)
    };
    let mut ranges = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = (status(first)?, status(last)?);
        if range.0 > range.1 {
            return Err(Fault::Malformed);
        }
        if ranges.len() == STATUS_RANGES {
            return Err(Fault::TooMany);
        }
        ranges.push(range);
    }
    Ok(Statuses(ranges))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_statuses_are_read_and_shown_again() {
        for text in ["200", "200-399", "200-299,404", "599,200-200"] {
            let shown = statuses(text).unwrap().to_string();
            assert_eq!(statuses(&shown), statuses(text), "{text}");
        }
        assert_eq!(statuses("200-299, 404").unwrap().to_string(), "200-299,404");
        let set = statuses("200-299,401").unwrap();
        let expected = [(199, false), (200, true), (299, true), (300, false), (400, false), (401, true), (402, false)];
        for (status, passes) in expected {
            assert_eq!(set.contains(status), passes, "{status}");
        }
    }

    #[test]
    fn a_service_stands_behind_grpc() {
        assert_eq!(health_check("tcp"), Ok((HealthCheck::Tcp, String::new())));
        assert_eq!(health_check("grpc"), Ok((HealthCheck::Grpc, String::new())));
        assert_eq!(health_check("grpc:a.b/C"), Ok((HealthCheck::Grpc, "a.b/C".into())));
        for malformed in ["grpc:", "grpc:a b", "grpc:\u{e4}"] {
            assert_eq!(health_check(malformed), Err(Fault::Malformed), "{malformed}");
        }
        assert_eq!(health_check(&format!("grpc:{}", "a".repeat(SERVICE_BYTES + 1))), Err(Fault::OutOfRange));
        assert!(matches!(health_check("grcp"), Err(Fault::Unknown(_))));
    }

    #[test]
    fn anything_else_is_refused() {
        for malformed in ["", "-", "200-", "-200", "2xx", "300-200", "200,", "200-300-400"] {
            assert_eq!(statuses(malformed), Err(Fault::Malformed), "{malformed:?}");
        }
        for outside in ["199", "600", "100-199", "200-600", "99999999999999999999"] {
            assert_eq!(statuses(outside), Err(Fault::OutOfRange), "{outside:?}");
        }
        assert_eq!(statuses(&vec!["200"; STATUS_RANGES + 1].join(",")), Err(Fault::TooMany));
    }
}
