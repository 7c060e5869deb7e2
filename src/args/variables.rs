//! Environment variables that look like an option's variable, but belong to no option.

use std::ffi::{OsStr, OsString};

use super::FLAGS;
use super::nearest::nearest;
use crate::collections::order;
use crate::limits::LINE_PROBLEMS;

const PREFIX: &str = "LB_";

/// Warnings about the environment: one line for each variable with our prefix that no option reads.
pub fn remarks(variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<String> {
    let known = || FLAGS.iter().map(|flag| flag.env).filter(|name| !name.is_empty());
    let mut links = Vec::new();
    let mut unknown = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        if is_service_link(name, &value) {
            links.push(name.to_owned());
        } else if !known().any(|other| other == name) {
            unknown.push(match nearest_variable(name) {
                Some(near) => format!("unknown variable {name} is ignored; did you mean {near}?"),
                None => format!("unknown variable {name} is ignored"),
            });
        }
    }
    for names in [&mut links, &mut unknown] {
        order::sort_few(names, |one, other| one > other);
    }
    unknown.truncate(LINE_PROBLEMS);
    if !links.is_empty() {
        let names = links[..links.len().min(LINE_PROBLEMS)].join(", ");
        unknown.push(format!(
            "{names}: ignored, as Kubernetes sets that for a Service whose name begins with 'lb'; \
             enableServiceLinks: false in the pod's spec leaves it out"
        ));
    }
    unknown
}

/// The variable that a misspelled name probably meant.
fn nearest_variable(name: &str) -> Option<&'static str> {
    let as_option = name.strip_prefix(PREFIX)?.replace('_', "-");
    let flags = || FLAGS.iter().filter(|flag| !flag.env.is_empty());
    let near = nearest(&as_option, flags().map(|flag| flag.long))?;
    flags().find(|flag| flag.long == near).map(|flag| flag.env)
}

/// True if Kubernetes sets this variable to announce a Service ("service links"): `LB_PORT=tcp://10.0.0.1:80`
/// for a Service named lb, and with it `LB_SERVICE_HOST`, `LB_PORT_80_TCP_ADDR` and more.
pub(super) fn is_service_link(name: &str, value: &OsStr) -> bool {
    const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];
    let url = value.to_str().and_then(|value| value.split_once("://")).map(|(scheme, _)| scheme);
    let is_url = url.is_some_and(|scheme| PROTOCOLS.contains(&scheme));
    // NAME_PORT_80_TCP, optionally followed by _ADDR, _PORT or _PROTO.
    let of_port = name.match_indices("_PORT_").any(|(at, part)| {
        let mut parts = name[at + part.len()..].split('_');
        let digits = parts.next().is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
        digits && parts.next().is_some_and(|part| PROTOCOLS.contains(&part.to_ascii_lowercase().as_str()))
    });
    let of_service = name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT");
    is_url && name.ends_with("_PORT") || of_port || of_service
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(variables: &[(&str, &str)]) -> Vec<String> {
        remarks(variables.iter().map(|&(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn an_unknown_variable_is_reported_with_the_nearest_name() {
        assert_eq!(said(&[("PATH", "/bin"), ("LB_PORT", "80"), ("LB_BACKEND", "a:1")]), [""; 0]);
        assert_eq!(
            said(&[("LB_WORKER", "2"), ("LB_BACKENDS", "a:1"), ("LB_ZQX", "")]),
            [
                "unknown variable LB_BACKENDS is ignored; did you mean LB_BACKEND?",
                "unknown variable LB_WORKER is ignored; did you mean LB_WORKERS?",
                "unknown variable LB_ZQX is ignored",
            ]
        );
    }

    #[test]
    fn service_links_are_distinguished_from_options() {
        let links = [
            ("LB_PORT", "tcp://10.0.0.1:80"),
            ("LB_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("LB_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("LB_PORT_80_TCP_PORT", "80"),
            ("LB_PORT_80_TCP_PROTO", "tcp"),
            ("LB_PORT_53_UDP", "udp://10.0.0.1:53"),
            ("LB_SERVICE_HOST", "10.0.0.1"),
            ("LB_SERVICE_PORT", "80"),
            ("LB_SERVICE_PORT_HTTP", "80"),
            ("LB_ADMIN_PORT", "tcp://10.0.0.2:9090"),
        ];
        for (name, value) in links {
            assert!(is_service_link(name, OsStr::new(value)), "{name}={value}");
        }
        let said = said(&links);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("LB_ADMIN_PORT, LB_PORT, LB_PORT_53_UDP, "), "{said:?}");
        assert!(said[0].contains("enableServiceLinks: false"), "{said:?}");
        for (name, value) in [("LB_PORT", "80"), ("LB_BACKEND", "tcp://a:1"), ("LB_PORT_X_TCP", ""), ("LB_PORTS", "1")]
        {
            assert!(!is_service_link(name, OsStr::new(value)), "{name}={value}");
        }
    }
}
