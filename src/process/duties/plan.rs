//! The plan: the settings that can change, and every address that requests may go to, as the configuration and the
//! names make it now.

use std::net::{IpAddr, SocketAddr};

use super::Duties;
use crate::balance::cells::State;
use crate::config::{Address, Backend, Host, Member, Plan, Target};
use crate::limits::{ADDRESSES, PLAN_BYTES, PROBE_ADDED_US, SECOND_US};
use crate::log::Level;
use crate::metrics::Global;
use crate::process::slots::Refused;
use crate::sys::clock;

/// What keeps a plan from being published for a while.
pub(super) const NO_ROOM: &str = "too many addresses have changed within seconds";

/// What a plan waits for.
pub(super) struct Later {
    /// Names that are looked up first; none where addresses that have gone still have what it takes.
    pub(super) names: Vec<String>,
    /// When it is made again at the latest, in microseconds.
    pub(super) at_us: u64,
}

/// Why a plan was not published.
pub(super) enum Unpublished {
    /// It cannot be.
    Never(String),
    /// It can be then.
    Later(Later),
}

impl Duties {
    /// The names that are to be waited for, as their backends have no address before; None where there are
    /// none.
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

    /// Publishes the plan that the configuration and the addresses make. Where that cannot be, the plan
    /// before holds.
    pub(super) fn publish(&mut self) -> Result<(), Unpublished> {
        let now_us = clock::monotonic_us();
        let own_host = !self.config.host_header_given;
        let mut wanted: Vec<Member> = Vec::new();
        let mut unresolved = Vec::new();
        for backend in &self.config.backends {
            let addresses = self.addresses(backend);
            if addresses.is_empty() {
                unresolved.push(backend.name.clone());
            }
            wanted.extend(addresses.into_iter().map(|address| Member::new(backend, address, own_host)));
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
        let bytes = Plan::new(&self.config, self.authorities, members, unresolved).encode();
        let table = self.region.table();
        if !table.publish(&bytes) {
            let count = bytes.len();
            return Err(Unpublished::Never(format!("the plan has {count} bytes; accepted: at most {PLAN_BYTES}")));
        }
        self.globals().set_global(Global::PlanEdition, table.edition());
        self.published = true;
        self.publish_us = u64::MAX;
        Ok(())
    }

    /// Publishes the plan anew, with the addresses that names have now.
    pub(super) fn publish_again(&mut self) {
        match self.publish() {
            Ok(()) => {}
            Err(Unpublished::Never(problem)) => {
                self.publish_us = u64::MAX;
                self.journal.line(Level::Err, "dns", format_args!("{problem}: the addresses before stay"));
            }
            Err(Unpublished::Later(Later { at_us, .. })) => {
                let is_news = std::mem::replace(&mut self.publish_us, at_us) == u64::MAX;
                if is_news {
                    self.journal.line(Level::Warn, "dns", format_args!("{NO_ROOM}: the addresses before stay so long"));
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

    /// Where a backend's name led before an upgrade.
    pub(super) fn led_before(&self, backend: &Backend) -> Vec<Address> {
        let own = self.before.iter().filter(|member| member.name == backend.name);
        own.map(|member| member.address.clone()).collect()
    }
}
