//! One name on its way to addresses: what it is asked for as, one after another, and what each of
//! the two families has come to.
//!
//! A name is asked for as it stands and below the domains of the search list (resolv.conf(5)).
//! That none has it must be certain before the next is tried: a server that fails for a moment
//! must not turn a name into that of another host. The one exception is a name with a dot, which
//! is probably a whole name: if a domain of the search list cannot be asked, the name is asked for
//! as it stands. The entry that failed is reported.
//!
//! What one family has is used at once, and asked for again when it runs out, for the other may take
//! long: there are servers that never answer questions about IPv6.

use std::fmt;
use std::net::IpAddr;

use super::message::{Family, Name};
use super::resolv_conf::ResolvConf;
use crate::collections::slab::Key;
use crate::collections::timers::NEVER;

/// Why a name has no addresses, or none that are fresh. Displayed, it ends a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is no such name (NXDOMAIN).
    NoName,
    /// The name exists, and has no address that could be used.
    NoAddresses,
    /// A label or the whole is longer than names can be, or a label is empty.
    NotAName,
    /// The servers cannot or will not say; the last one's RCODE (RFC 1035, 4.1.1).
    Server(u8),
    /// No server answered in time.
    TimedOut,
    /// No server can be reached, or the connection to the last one broke.
    Unreachable,
    /// What the last server sent is not a proper answer.
    Malformed,
    /// So much came that was not asked for that no answer could be told from it.
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

/// What asking for one family came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Addresses, never none, and until when they hold.
    Found { addresses: Vec<IpAddr>, until_us: u64 },
    /// None, and until when that holds, where it is known.
    None { exists: bool, until_us: Option<u64> },
    /// No server could say.
    Failed(Reason),
}

/// What the whole lookup came to.
#[derive(Debug)]
pub(super) enum Verdict {
    /// At least one family has addresses; of one that is None, no server could say.
    Found { families: [Option<Vec<IpAddr>>; 2], until_us: u64 },
    /// None has; until when that holds, where it is known.
    Failed { reason: Reason, until_us: Option<u64> },
}

/// What to do after an outcome.
#[derive(Debug)]
pub(super) enum Step {
    /// The other family is under way still, and there is nothing to use.
    Wait,
    /// The other family is under way still; these are this one's addresses.
    Use(Vec<IpAddr>),
    /// Ask for both families of the next candidate.
    Ask,
    /// Nothing: this is the end.
    End(Verdict),
}

/// A lookup under way.
#[derive(Debug)]
pub(super) struct Lookup {
    candidates: Vec<Name>,
    /// The candidate that is asked for: below their number.
    at: usize,
    /// The server that is asked first.
    pub(super) server: usize,
    /// The query under way for each family.
    pub(super) queries: [Option<Key>; 2],
    outcomes: [Option<Outcome>; 2],
    /// Whether a candidate so far exists, though without addresses.
    exists: bool,
    /// Until when all of them have none; unknown once one said nothing about it.
    nothing_until_us: Option<u64>,
    /// The candidate that no server could speak of, and why.
    pub(super) failed: Option<(Name, Reason)>,
    /// The name as it stands, if it has a dot: its place among the candidates.
    whole: Option<usize>,
    /// When it began, in microseconds.
    pub(super) begun_us: u64,
    /// It takes no place from others.
    pub(super) slow: bool,
}

impl Lookup {
    /// A lookup of a name that begins with a server; None where it cannot be asked for at all.
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

    /// What is asked for now.
    pub(super) fn candidate(&self) -> &Name {
        &self.candidates[self.at]
    }

    /// When what was found of one family runs out while the other is waited for, in microseconds.
    pub(super) fn due_us(&self) -> u64 {
        let until = |outcome: &Outcome| match outcome {
            Outcome::Found { until_us, .. } => *until_us,
            _ => NEVER,
        };
        self.outcomes.iter().flatten().map(until).min().unwrap_or(NEVER)
    }

    /// What was found of one family runs out now: it may be wrong.
    pub(super) fn suspect(&mut self, now_us: u64) {
        for outcome in self.outcomes.iter_mut().flatten() {
            if let Outcome::Found { until_us, .. } = outcome {
                *until_us = now_us.min(*until_us);
            }
        }
    }

    /// The family whose addresses have run out, which are to be asked for again.
    pub(super) fn take_due(&mut self, now_us: u64) -> Option<Family> {
        let run_out = |family: &Family| match &self.outcomes[*family as usize] {
            Some(Outcome::Found { until_us, .. }) => *until_us <= now_us,
            _ => false,
        };
        let family = Family::ALL.into_iter().find(run_out)?;
        self.outcomes[family as usize] = None;
        Some(family)
    }

    /// Takes the outcome of a family's query.
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
            // The name as it stands does not exist; the entry that failed may have it.
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

/// What a name is asked for as: a name with a dot at its end as it stands; one with `ndots` dots
/// or more as it stands first, and below the domains after; any other the other way around.
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
