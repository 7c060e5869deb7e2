//! A name to be resolved: its last good addresses, the results of its lookups, and its phase.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::lookup::{Lookup, Reason, Verdict};
use super::message::{Family, Name};
use super::output::{Change, Output};
use crate::collections::timers::NEVER;
use crate::limits::{
    DNS_DENIAL_MAX_US, DNS_RETRY_MAX_US, DNS_RETRY_US, DNS_TTL_MIN_US, DNS_UNRESOLVED_US, NAME_ADDRESSES,
};

/// The state of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No address was ever found. The reason is known once a lookup has ended.
    Unresolved(Option<Reason>),
    /// The addresses are from the last lookup.
    Good,
    /// The last lookup failed, so the addresses are from an earlier one.
    Stale(Reason),
}

#[derive(Debug)]
pub(super) enum Phase {
    /// The hosts table contains the name.
    Fixed,
    /// Nothing to do until this time, in microseconds.
    Rests(u64),
    /// Queued for a lookup.
    Waits,
    Asks(Box<Lookup>),
}

/// A name to be resolved.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Box<str>,
    /// The time at which the name was added, in microseconds.
    pub(super) since_us: u64,
    /// The last good addresses: IPv4 first, sorted, without duplicates.
    pub(super) addresses: Vec<IpAddr>,
    /// The candidate that has these addresses; none for the hosts table.
    found_as: Option<Name>,
    /// The reason for the failure of the last lookup.
    failure: Option<Reason>,
    /// Consecutive failed lookups.
    pub(super) failures: u32,
    /// The candidate of the last failure, either of the whole lookup or of one domain of the search list.
    pub(super) failed_as: Option<Name>,
    /// The time of the last query, in microseconds.
    pub(super) asked_us: u64,
    /// True if the name has more addresses than are used.
    many: bool,
    pub(super) phase: Phase,
}

impl Entry {
    /// Creates the entry of a name without any result.
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

    /// The state of the name.
    pub(super) fn state(&self) -> State {
        match self.failure {
            failure if self.addresses.is_empty() => State::Unresolved(failure),
            None => State::Good,
            Some(reason) => State::Stale(reason),
        }
    }

    /// Applies the result of a lookup and schedules the next one. `failed` is the candidate for which no server
    /// had an answer, with the reason.
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
                    // A family for which no server had an answer is queried again soon.
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

    /// Stores the addresses of each family. A family without a result keeps its addresses if they belong to the
    /// same candidate.
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

    /// Stores the addresses. `found_as` is the candidate that has them, unless they are from the hosts table.
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
            // Both families may arrive at once, which is one change.
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
