//! The lookup of one name: its candidates, queried one after another, and the result of each address family.
//!
//! The candidates are the name itself and the name with each domain of the search list (resolv.conf(5)). The
//! next candidate is tried only after a definite negative answer: a server that fails briefly must not turn a
//! name into the name of another host. The one exception is a name with a dot, which is probably complete: if a
//! domain of the search list cannot be queried, the name itself is queried. The domain that failed is reported.
//!
//! Addresses of one family are used at once, and queried again when they expire, because the other family may
//! take long: some servers never answer questions about IPv6.

use std::fmt;
use std::net::IpAddr;

use super::message::{Family, Name};
use super::resolv_conf::ResolvConf;
use crate::collections::slab::Key;
use crate::collections::timers::NEVER;

/// The reason why a name has no addresses, or only old ones. Displayed, it ends a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The name does not exist (NXDOMAIN).
    NoName,
    /// The name exists but has no usable address.
    NoAddresses,
    /// The name is not valid in DNS: a label is empty or too long, or the name is too long.
    NotAName,
    /// The servers cannot or will not answer; the RCODE of the last one (RFC 1035, 4.1.1).
    Server(u8),
    /// No server answered in time.
    TimedOut,
    /// No server is reachable, or the connection to the last one broke.
    Unreachable,
    /// The last server sent a malformed response.
    Malformed,
    /// Too many messages arrived that did not answer the query.
    Strays,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::NoName => "no such name",
            Reason::NoAddresses => "no addresses",
            Reason::NotAName => "not a name that DNS can hold",
            Reason::Server(0) => "the server refers to others",
            Reason::Server(1) => "the server does not understand the query",
            Reason::Server(2) => "server failure",
            Reason::Server(4) => "the server does not answer such queries",
            Reason::Server(5) => "refused by the server",
            Reason::Server(code) => return write!(f, "the server failed with code {code}"),
            Reason::TimedOut => "timed out",
            Reason::Unreachable => "no server can be reached",
            Reason::Malformed => "malformed answer",
            Reason::Strays => "too many forged answers",
        })
    }
}

/// The result of the query for one family.
#[derive(Debug)]
pub(super) enum Outcome {
    /// At least one address, and the time until which they are valid.
    Found { addresses: Vec<IpAddr>, until_us: u64 },
    /// No address, and the time until which that is valid, if known.
    None { exists: bool, until_us: Option<u64> },
    /// No server had an answer.
    Failed(Reason),
}

/// The result of the whole lookup.
#[derive(Debug)]
pub(super) enum Verdict {
    /// At least one family has addresses. For a family with `None`, no server had an answer.
    Found { families: [Option<Vec<IpAddr>>; 2], until_us: u64 },
    /// Neither family has addresses. `until_us` is the time until which that is valid, if known.
    Failed { reason: Reason, until_us: Option<u64> },
}

/// The next step after an outcome.
#[derive(Debug)]
pub(super) enum Step {
    /// Wait for the other family. There is nothing to use yet.
    Wait,
    /// Wait for the other family, and use these addresses of this one meanwhile.
    Use(Vec<IpAddr>),
    /// Query both families of the next candidate.
    Ask,
    /// The lookup has ended.
    End(Verdict),
}

/// A lookup in progress.
#[derive(Debug)]
pub(super) struct Lookup {
    candidates: Vec<Name>,
    /// The index of the current candidate.
    at: usize,
    /// The server that is queried first.
    pub(super) server: usize,
    /// The query in progress for each family.
    pub(super) queries: [Option<Key>; 2],
    outcomes: [Option<Outcome>; 2],
    /// True if an earlier candidate exists, but without addresses.
    exists: bool,
    /// The time until which all candidates have no address; unknown if one answer did not say.
    nothing_until_us: Option<u64>,
    /// The candidate for which no server had an answer, with the reason.
    pub(super) failed: Option<(Name, Reason)>,
    /// The index of the name itself among the candidates, if the name contains a dot.
    whole: Option<usize>,
    /// The time at which the lookup began, in microseconds.
    pub(super) begun_us: u64,
    /// True if the lookup is slow. It then no longer counts against `DNS_LOOKUPS`.
    pub(super) slow: bool,
}

impl Lookup {
    /// Creates a lookup that begins with the given server; None if the name has no valid candidate.
    pub(super) fn new(name: &str, conf: &ResolvConf, server: usize, now_us: u64) -> Option<Lookup> {
        let candidates = candidates(name, conf);
        let whole = Name::parse(name).filter(|_| name.contains('.'));
        (!candidates.is_empty()).then_some(Lookup {
            whole: candidates.iter().position(|candidate| Some(candidate) == whole.as_ref()),
            failed: None,
            begun_us: now_us,
            slow: false,
            candidates,
            at: 0,
            server,
            queries: [None; 2],
            outcomes: [None, None],
            exists: false,
            nothing_until_us: Some(u64::MAX),
        })
    }

    /// The current candidate.
    pub(super) fn candidate(&self) -> &Name {
        &self.candidates[self.at]
    }

    /// The time at which the addresses of one family expire while the other is pending, in microseconds.
    pub(super) fn due_us(&self) -> u64 {
        let until = |outcome: &Outcome| match outcome {
            Outcome::Found { until_us, .. } => *until_us,
            _ => NEVER,
        };
        self.outcomes.iter().flatten().map(until).min().unwrap_or(NEVER)
    }

    /// Expires the addresses of one family at once, because one may be wrong.
    pub(super) fn suspect(&mut self, now_us: u64) {
        for outcome in self.outcomes.iter_mut().flatten() {
            if let Outcome::Found { until_us, .. } = outcome {
                *until_us = now_us.min(*until_us);
            }
        }
    }

    /// Returns the family whose addresses have expired, to be queried again.
    pub(super) fn take_due(&mut self, now_us: u64) -> Option<Family> {
        let run_out = |family: &Family| match &self.outcomes[*family as usize] {
            Some(Outcome::Found { until_us, .. }) => *until_us <= now_us,
            _ => false,
        };
        let family = Family::ALL.into_iter().find(run_out)?;
        self.outcomes[family as usize] = None;
        Some(family)
    }

    /// Applies the outcome of a family's query.
    pub(super) fn on_outcome(&mut self, family: Family, outcome: Outcome) -> Step {
        self.queries[family as usize] = None;
        self.outcomes[family as usize] = Some(outcome);
        let outcomes = match std::mem::take(&mut self.outcomes) {
            [Some(v4), Some(v6)] => [v4, v6],
            unfinished => {
                self.outcomes = unfinished;
                return match &self.outcomes[family as usize] {
                    Some(Outcome::Found { addresses, .. }) => Step::Use(addresses.clone()),
                    _ => Step::Wait,
                };
            }
        };
        let failure = outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Failed(reason) => Some(*reason),
            _ => None,
        });
        if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Found { .. })) {
            return Step::End(found(outcomes));
        }
        if let Some(reason) = failure {
            self.failed = Some((self.candidate().clone(), reason));
            if let Some(whole) = self.whole.filter(|&whole| whole > self.at) {
                self.at = whole;
                return Step::Ask;
            }
            return Step::End(Verdict::Failed { reason, until_us: None });
        }
        for outcome in outcomes {
            if let Outcome::None { exists, until_us } = outcome {
                self.exists |= exists;
                self.nothing_until_us = self.nothing_until_us.zip(until_us).map(|(a, b)| a.min(b));
            }
        }
        if let Some((_, reason)) = self.failed {
            // The name itself does not exist, but with the domain that failed it may.
            return Step::End(Verdict::Failed { reason, until_us: None });
        }
        if self.at + 1 < self.candidates.len() {
            self.at += 1;
            return Step::Ask;
        }
        let reason = if self.exists { Reason::NoAddresses } else { Reason::NoName };
        Step::End(Verdict::Failed { reason, until_us: self.nothing_until_us })
    }
}

fn found(outcomes: [Outcome; 2]) -> Verdict {
    let mut earliest_us = u64::MAX;
    let families = outcomes.map(|outcome| match outcome {
        Outcome::Found { addresses, until_us } => {
            earliest_us = earliest_us.min(until_us);
            Some(addresses)
        }
        Outcome::None { .. } => Some(Vec::new()),
        Outcome::Failed(_) => None,
    });
    Verdict::Found { families, until_us: earliest_us }
}

/// The candidates of a name. A name with a final dot is its only candidate. A name with at least `ndots` dots
/// comes first and the domains follow; otherwise the order is reversed.
fn candidates(name: &str, conf: &ResolvConf) -> Vec<Name> {
    let Some(bare) = Name::parse(name) else { return Vec::new() };
    if name.ends_with('.') {
        return vec![bare];
    }
    let mut names: Vec<Name> = conf.search.iter().filter_map(|domain| bare.below(domain)).collect();
    let first = name.bytes().filter(|&byte| byte == b'.').count() >= conf.ndots;
    names.insert(if first { 0 } else { names.len() }, bare);
    names
}
