//! A name that is wanted: its last good addresses, how its lookups went, and what it is about.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::lookup::{Lookup, Reason, Verdict};
use super::message::{Family, Name};
use super::resolver::Output;
use crate::collections::timers::NEVER;
use crate::limits::{
    DNS_DENIAL_MAX_US, DNS_RETRY_MAX_US, DNS_RETRY_US, DNS_TTL_MIN_US, DNS_UNRESOLVED_US, NAME_ADDRESSES,
};

/// What is new about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its set of addresses is another.
    Addresses,
    /// Its lookup failed, as the one before did not; its addresses stay.
    Failed(Reason),
    /// Its lookup succeeded, as the one before did not.
    Recovered,
    /// An entry of the search list could not be asked, as it could before, so the name is used as it stands.
    Skipped(Reason),
    /// It has more addresses than are used: this many.
    Many(usize),
}

/// How it stands with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It never had an address; why, once a lookup has come to that.
    Unresolved(Option<Reason>),
    /// Its addresses are those of the last lookup.
    Good,
    /// Its addresses are those of an earlier lookup, as the last one failed.
    Stale(Reason),
}

#[derive(Debug)]
pub(super) enum Phase {
    /// The hosts table has it.
    Fixed,
    /// Nothing to do until then.
    Rests(u64),
    /// In line for its turn.
    Waits,
    Asks(Box<Lookup>),
}

/// A name that is wanted.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Box<str>,
    /// Since when it is wanted, in microseconds.
    pub(super) since_us: u64,
    /// The last good ones: IPv4 first, sorted, each once.
    pub(super) addresses: Vec<IpAddr>,
    /// What they were found as; none for the hosts table.
    found_as: Option<Name>,
    /// Why the last lookup failed.
    failure: Option<Reason>,
    /// Failed lookups in a row.
    pub(super) failures: u32,
    /// The name that was asked for when a lookup last failed, in whole or for an entry of the search list.
    pub(super) failed_as: Option<Name>,
    /// When servers were last asked, in microseconds.
    pub(super) asked_us: u64,
    /// It has more addresses than are used.
    many: bool,
    pub(super) phase: Phase,
}

impl Entry {
    /// A name that nothing is known about.
    pub(super) fn new(name: &str, now_us: u64) -> Entry {
        Entry {
            name: name.into(),
            since_us: now_us,
            addresses: Vec::new(),
            found_as: None,
            failure: None,
            failures: 0,
            failed_as: None,
            asked_us: 0,
            many: false,
            phase: Phase::Rests(NEVER),
        }
    }

    /// How it stands with the name.
    pub(super) fn state(&self) -> State {
        match self.failure {
            failure if self.addresses.is_empty() => State::Unresolved(failure),
            None => State::Good,
            Some(reason) => State::Stale(reason),
        }
    }

    /// Takes what the lookup came to, and rests until it is due again.
    /// `failed`: the candidate that no server could speak of, and why.
    pub(super) fn conclude(
        &mut self,
        found_as: Name,
        verdict: Verdict,
        failed: Option<(Name, Reason)>,
        now_us: u64,
        outputs: &mut VecDeque<Output>,
    ) {
        let (failed_as, reason) = failed.unzip();
        let is_news = std::mem::replace(&mut self.failed_as, failed_as) != self.failed_as;
        match verdict {
            Verdict::Found { families, mut until_us } => {
                if families.iter().any(Option::is_none) {
                    // A family that no server could speak of is asked for again soon.
                    until_us = until_us.min(now_us.saturating_add(DNS_RETRY_MAX_US));
                }
                self.phase = Phase::Rests(until_us);
                if let Some(reason) = reason.filter(|_| is_news) {
                    outputs.push_back(Output::Changed(self.name.clone(), Change::Skipped(reason)));
                }
                self.succeed(found_as, families, outputs);
            }
            Verdict::Failed { reason, until_us } => {
                let delay_us = DNS_RETRY_US << self.failures.min(DNS_RETRY_MAX_US.ilog2());
                let due_us = now_us.saturating_add(delay_us.min(DNS_RETRY_MAX_US));
                let most_us = if self.addresses.is_empty() { DNS_UNRESOLVED_US } else { DNS_DENIAL_MAX_US };
                let (least_us, most_us) = (now_us.saturating_add(DNS_TTL_MIN_US), now_us.saturating_add(most_us));
                self.phase = Phase::Rests(until_us.unwrap_or(due_us).clamp(least_us, most_us));
                self.fail(reason, outputs);
            }
        }
    }

    /// Has these addresses of each family. One of which is nothing known stays as it was, if it was of
    /// the same name.
    pub(super) fn succeed(
        &mut self,
        found_as: Name,
        families: [Option<Vec<IpAddr>>; 2],
        outputs: &mut VecDeque<Output>,
    ) {
        let kept = self.found_as.as_ref() == Some(&found_as);
        let mut addresses = Vec::new();
        for (family, found) in Family::ALL.into_iter().zip(families) {
            let same = |ip: &&IpAddr| kept && ip.is_ipv4() == (family == Family::V4);
            match found {
                Some(found) => addresses.extend(found),
                None => addresses.extend(self.addresses.iter().filter(same)),
            }
        }
        self.have(Some(found_as), addresses, outputs);
    }

    /// Has these addresses. `found_as`: what they were found as, unless the hosts table has them.
    pub(super) fn have(&mut self, found_as: Option<Name>, mut addresses: Vec<IpAddr>, outputs: &mut VecDeque<Output>) {
        addresses.sort_unstable();
        addresses.dedup();
        let count = addresses.len();
        if !std::mem::replace(&mut self.many, count > NAME_ADDRESSES) && self.many {
            outputs.push_back(Output::Changed(self.name.clone(), Change::Many(count)));
        }
        addresses.truncate(NAME_ADDRESSES);
        self.failures = 0;
        self.found_as = found_as;
        if self.failure.take().is_some() {
            outputs.push_back(Output::Changed(self.name.clone(), Change::Recovered));
        }
        if self.addresses != addresses {
            self.addresses = addresses;
            // Both families may have come at once, which is one change.
            let change = Output::Changed(self.name.clone(), Change::Addresses);
            if !outputs.contains(&change) {
                outputs.push_back(change);
            }
        }
    }

    pub(super) fn fail(&mut self, reason: Reason, outputs: &mut VecDeque<Output>) {
        self.failures = self.failures.saturating_add(1);
        if self.failure.replace(reason).is_none() {
            outputs.push_back(Output::Changed(self.name.clone(), Change::Failed(reason)));
        }
    }
}
