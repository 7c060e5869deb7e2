//! The certificates for clients, as `--check` sees them: what each file serves, and the faults of its certificates.
//!
//! A file that a start could not use is a problem. So is a leaf outside of its validity: a start serves it, but no client
//! accepts it. The other faults are warnings.

use std::cell::OnceCell;

use super::line;
use crate::args::Shown;
use crate::config::Tls;
use crate::limits::SECOND_US;
use crate::log::{Level, timestamp};
use crate::process::duties::secrets;
use crate::process::journal::Journal;
use crate::sys::clock;
use crate::tls::certificate::Certificate;
use crate::tls::chain::{self, Finding};
use crate::tls::pair::Pair;
use crate::tls::roots::{Roots, Sources};

/// Examines the files of certificates for clients. Returns the lines of the plan about them.
pub(super) fn examine(tls: &Tls, journal: &mut Journal, problems: &mut Vec<String>) -> String {
    let mut out = String::new();
    let now_s = (clock::unix_us() / SECOND_US).cast_signed();
    let roots = OnceCell::new();
    let is_root = |name: &[u8]| {
        let read = || Roots::read(&Sources::from_environment(None)).unwrap_or_else(|_| Roots::none());
        roots.get_or_init(read).has_name(name)
    };
    let mut pairs = Vec::new();
    let count = problems.len();
    for files in &tls.pairs {
        match secrets::files::read_pair(files) {
            Ok(pair) => pairs.push((files.certificate.display().to_string(), pair)),
            Err(error) => {
                let source = format!("{} {}", secrets::files::CERTIFICATE, files.certificate.display());
                problems.push(about(&source, &error.text));
            }
        }
    }
    for (path, pair) in &pairs {
        let left_days = (pair.not_after_s() - now_s).div_euclid(86_400);
        let expiry_us = u64::try_from(pair.not_after_s()).unwrap_or_default().saturating_mul(SECOND_US);
        let expiry = timestamp(expiry_us);
        let expiry = String::from_utf8_lossy(&expiry[..10]);
        let names = Certificate::read(&pair.chain()[0]).map(|leaf| leaf.shown_names()).unwrap_or_default();
        let text = format!("{}: {}, until {expiry} ({left_days} days), for {names}", Shown(path), pair.algorithm());
        line(&mut out, "tls", &text);
        let chain = pair.chain().iter().map(|certificate| &**certificate);
        report(path, chain::examine(chain, now_s, is_root), journal, problems);
    }
    for text in shared_names(&pairs) {
        journal.line(Level::Warn, "tls", format_args!("{text}"));
    }
    if let Some(path) = &tls.client_ca {
        let source = path.display().to_string();
        match secrets::files::read_authorities(path) {
            Ok(authorities) => {
                let number = authorities.len();
                line(&mut out, "tls", &format!("{}: {number} authorities of clients", Shown(&source)));
                let findings = chain::examine_authorities(authorities.iter().map(Vec::as_slice), now_s);
                // Their validity is not verified.
                for finding in findings {
                    journal.line(Level::Warn, "tls", format_args!("{}", about(&source, &finding)));
                }
            }
            Err(error) => problems.push(about(&format!("{} {source}", secrets::files::CLIENT_CA), &error.text)),
        }
    }
    // The rest of what a start does with them.
    if problems.len() == count || pairs.len() == tls.pairs.len() {
        let rest = secrets::check(tls).err().filter(|text| !problems.contains(text));
        problems.extend(rest);
    }
    out
}

/// Reports faults: those that all clients notice are problems.
fn report(source: &str, findings: Vec<Finding>, journal: &mut Journal, problems: &mut Vec<String>) {
    for finding in findings {
        let text = about(source, &finding);
        if finding.is_fatal() {
            problems.push(text);
        } else {
            journal.line(Level::Warn, "tls", format_args!("{text}"));
        }
    }
}

fn about(source: &str, text: &impl ToString) -> String {
    format!("{}: {}", Shown(source), text.to_string())
}

/// Returns a warning for each name that several files have with keys of one kind: only the first of them is served.
fn shared_names(pairs: &[(String, Pair)]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (at, (path, pair)) in pairs.iter().enumerate() {
        for name in pair.names().hosts() {
            let is_same = |(_, first): &&(String, Pair)| {
                first.algorithm() == pair.algorithm() && first.names().hosts().any(|one| one == name)
            };
            if let Some((first, _)) = pairs[..at].iter().find(is_same) {
                let text = format!("is for {name}, as {} is, which clients get: remove one of them", Shown(first));
                warnings.push(format!("{}: {text}", Shown(path)));
                break;
            }
        }
    }
    warnings
}
