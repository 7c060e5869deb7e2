//! The plan: the settings that can change, and every address that requests may go to, as the configuration and the
//! names make it now.

use std::net::{IpAddr, SocketAddr};

use super::Duties;
use crate::balance::cells::State;
use crate::collections::order;
use crate::config::{Address, Backend, Host, Member, Plan, Target};
use crate::limits::{ADDRESSES, PLAN_BYTES, PROBE_ADDED_US, SECOND_US};
use crate::log::Level;
use crate::metrics::Global;
use crate::process::duties::slots::Refused;
use crate::sys::clock;

/// The reason why a plan is delayed.
pub(super) const NO_ROOM: &str = "too many addresses have changed within seconds";

/// The condition for a delayed plan.
pub(super) struct Later {
    /// The names that must be resolved first; empty if the plan waits for slots instead.
    pub(super) names: Vec<String>,
    /// When it is made again at the latest, in microseconds.
    pub(super) at_us: u64,
}

/// The completeness of a plan: every address, or only those with a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whole {
    Yes,
    No,
}

/// A name that has more addresses than its share of the room.
struct Cut {
    name: String,
    has: usize,
    used: usize,
}

/// The reason why a plan was not published.
pub(super) enum Unpublished {
    /// It cannot be.
    Never(String),
    /// It can be then.
    Later(Later),
}

impl Duties {
    /// The names to wait for, because their backends have no address yet; None if there are none.
    pub(super) fn awaited(&self, now_us: u64) -> Option<Later> {
        let mut later = Later { names: Vec::new(), at_us: 0 };
        for backend in self.config.backends.iter().filter(|backend| self.addresses(backend).is_empty()) {
            let until_us = |name: &str| self.names.as_ref()?.awaited_until_us(name, now_us);
            if let Some((name, until_us)) = backend.host_name().and_then(|name| Some((name, until_us(name)?))) {
                later.names.push(name.to_owned());
                later.at_us = later.at_us.max(until_us);
            }
        }
        (!later.names.is_empty()).then_some(later)
    }

    /// Publishes the plan for the configuration and the addresses. On failure the previous plan stays in force.
    pub(super) fn publish(&mut self) -> Result<(), Unpublished> {
        self.publish_as(Whole::Yes)
    }

    /// Like `publish`. `whole`: true if no address may be left out for lack of a slot.
    fn publish_as(&mut self, whole: Whole) -> Result<(), Unpublished> {
        let now_us = clock::monotonic_us();
        let own_host = !self.config.host_header_given;
        let mut wanted: Vec<Member> = Vec::new();
        let mut unresolved = Vec::new();
        let (lists, cut) = self.shared_out();
        for (backend, addresses) in self.config.backends.iter().zip(lists) {
            if addresses.is_empty() {
                unresolved.push(backend.name.clone());
            }
            wanted.extend(addresses.into_iter().map(|address| Member::new(backend, address, own_host)));
        }
        if whole == Whole::No {
            wanted = self.slots.fitting(wanted, now_us);
        }
        let interval_us = self.config.health.interval_us;
        let is_start = self.region.table().edition() == 0;
        let (random, mut due_us) = (&mut self.random, now_us);
        let assigned = self.slots.assign(wanted, now_us, || {
            if is_start || interval_us == 0 {
                return (State::Unproven, now_us + random.below(interval_us.min(SECOND_US)));
            }
            due_us += PROBE_ADDED_US;
            (State::Added, due_us)
        });
        let members = assigned.map_err(|refused| match refused {
            Refused::TooMany(count) => {
                Unpublished::Never(format!("the backends have {count} addresses; accepted: at most {ADDRESSES}"))
            }
            Refused::Resting(at_us) => Unpublished::Later(Later { names: Vec::new(), at_us }),
        })?;
        let looked_up = self.looked_up(&members);
        let names = order::set(self.config.backends.iter().map(|backend| backend.name.as_str()));
        let gone = self.slots.gone(&names);
        let bytes = Plan { gone, ..Plan::new(&self.config, self.authorities, members, unresolved) }.encode();
        let table = self.region.table();
        if !table.publish(&bytes) {
            let count = bytes.len();
            return Err(Unpublished::Never(format!("the plan has {count} bytes; accepted: at most {PLAN_BYTES}")));
        }
        self.globals().set_global(Global::PlanEdition, table.edition());
        self.looked_up = looked_up;
        self.tell_cut(cut);
        self.published = true;
        self.publish_us = u64::MAX;
        Ok(())
    }

    /// Every backend's addresses. Names share the room that fixed addresses leave, and each is cut to its share: no
    /// answer of a name server keeps others from theirs. Also the names that are cut, with how many addresses they
    /// have and how many of them are used.
    fn shared_out(&self) -> (Vec<Vec<Address>>, Vec<Cut>) {
        let mut lists: Vec<Vec<Address>> = self.config.backends.iter().map(|one| self.addresses(one)).collect();
        let named = |backend: &Backend| backend.host_name().is_some();
        let all = || self.config.backends.iter().enumerate().filter(|(_, backend)| named(backend));
        let fixed = self.config.backends.iter().filter(|backend| !named(backend)).count();
        let counts: Vec<usize> = all().map(|(at, _)| lists[at].len()).collect();
        let share = share(&counts, ADDRESSES.saturating_sub(fixed));
        let mut cut = Vec::new();
        for (at, backend) in all() {
            if lists[at].len() > share {
                cut.push(Cut { name: backend.name.clone(), has: lists[at].len(), used: share });
                lists[at].truncate(share);
            }
        }
        (lists, cut)
    }

    /// Logs the names that are cut if they were not before.
    fn tell_cut(&mut self, cut: Vec<Cut>) {
        self.globals().set_global(Global::Unused, cut.iter().map(|one| (one.has - one.used) as u64).sum());
        for Cut { name, has, used } in cut.iter().filter(|one| !self.cut.contains(&one.name)) {
            let text = format_args!(
                "{name} has {has} addresses, of which {used} are used: there is room for {ADDRESSES} of all backends"
            );
            self.journal.line(Level::Warn, "dns", text);
        }
        self.cut = cut.into_iter().map(|one| one.name).collect();
    }

    /// The slots of addresses that names have led to, with these names.
    fn looked_up(&self, members: &[Member]) -> Vec<(u16, String)> {
        let named = self.config.backends.iter().filter_map(|one| Some((one.name.as_str(), one.host_name()?)));
        let names = order::map(named);
        let slots = members.iter().filter_map(|member| Some((member.slot, names.get(member.name.as_str())?)));
        slots.map(|(slot, name)| (slot, (*name).to_owned())).collect()
    }

    /// Publishes the plan again, with the current addresses of names.
    pub(super) fn publish_again(&mut self) {
        match self.publish() {
            Ok(()) => {}
            Err(Unpublished::Never(problem)) => {
                self.publish_us = u64::MAX;
                self.journal.line(Level::Err, "dns", format_args!("{problem}: the addresses before stay"));
            }
            Err(Unpublished::Later(Later { at_us, .. })) => {
                let is_news = self.publish_us == u64::MAX;
                // The changes of other names do not wait.
                _ = self.publish_as(Whole::No);
                self.publish_us = at_us;
                if is_news {
                    self.journal.line(Level::Warn, "dns", format_args!("{NO_ROOM}: some are used in a few seconds"));
                }
            }
        }
    }

    /// All that a backend has.
    pub(super) fn addresses(&self, backend: &Backend) -> Vec<Address> {
        if let Some(address) = backend.address() {
            return vec![address];
        }
        match (&self.names, &backend.target) {
            (Some(names), Target::Tcp(Host::Name(name), port)) => {
                let at = |ip: &IpAddr| Address::Tcp(SocketAddr::new(*ip, *port));
                let found: Vec<Address> = names.addresses(name).iter().map(at).collect();
                if found.is_empty() { self.led_before(backend) } else { found }
            }
            _ => Vec::new(),
        }
    }

    /// The addresses of a backend's name before an upgrade.
    pub(super) fn led_before(&self, backend: &Backend) -> Vec<Address> {
        let own = self.before.iter().filter(|member| member.name == backend.name);
        own.map(|member| member.address.clone()).collect()
    }
}

/// The fair share of `room`: the most that each may have so that together they fit, if those who need less take only
/// that.
fn share(counts: &[usize], room: usize) -> usize {
    let mut counts = counts.to_vec();
    counts.sort_unstable();
    let (mut room, mut left) = (room, counts.len());
    for count in counts {
        if count * left > room {
            return room / left;
        }
        room -= count;
        left -= 1;
    }
    usize::MAX
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_name_that_needs_less_than_its_share_leaves_the_rest_to_others() {
        assert_eq!(share(&[], 10), usize::MAX);
        assert_eq!(share(&[3, 3, 4], 10), usize::MAX);
        assert_eq!(share(&[4, 4, 4], 10), 3);
        assert_eq!(share(&[1, 100, 100], 10), 4);
        assert_eq!(share(&[100, 0, 2], 10), 8);
        assert_eq!(share(&[256; 1024], 4096), 4);
        assert_eq!(share(&[5], 0), 0);
    }
}
