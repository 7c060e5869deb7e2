//! What the master does besides its workers, and the one process of sp besides its clients: it
//! decides which plan is followed, and publishes it.

use super::Failure;
use super::slots::{Slots, TooMany, Wanted};
use crate::collections::random::Random;
use crate::config::{Config, Plan};
use crate::limits::{PLAN_BYTES, SECOND_US, SLOTS};
use crate::shared::Region;
use crate::sys::clock;

/// The state of these duties.
pub(super) struct Duties {
    config: Config,
    region: Region,
    slots: Slots,
    random: Random,
}

impl Duties {
    /// Takes the duties up, and publishes the first plan.
    pub(super) fn begin(config: Config, region: Region) -> Result<Duties, Failure> {
        let slots = Slots::new(region.balance());
        let random = Random::new(clock::unix_us());
        let mut duties = Duties { config, region, slots, random };
        duties.publish().map_err(|reason| Failure::new(super::USAGE, reason))?;
        Ok(duties)
    }

    /// Publishes the plan that the configuration and the addresses make. Where that cannot be: why,
    /// and the plan before holds.
    fn publish(&mut self) -> Result<(), String> {
        let now_us = clock::monotonic_us();
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut unresolved = Vec::new();
        for backend in &self.config.backends {
            let Some(address) = backend.address() else {
                unresolved.push(backend.name.clone());
                continue;
            };
            let one = Wanted {
                name: backend.name.clone(),
                host: backend.authority().into(),
                address,
                weight: backend.weight,
                backup: backend.backup,
                max: backend.max,
            };
            if !wanted.iter().any(|other| (&other.name, &other.address) == (&one.name, &one.address)) {
                wanted.push(one);
            }
        }
        let spread_us = self.config.health.interval_us.min(SECOND_US);
        let random = &mut self.random;
        let members = self
            .slots
            .assign(wanted, now_us, || now_us + random.below(spread_us))
            .map_err(|TooMany { wanted }| format!("the backends have {wanted} addresses; accepted: at most {SLOTS}"))?;
        let bytes = Plan::new(&self.config, members, unresolved).encode();
        if !self.region.table().publish(&bytes) {
            return Err(format!("the plan has {} bytes; accepted: at most {PLAN_BYTES}", bytes.len()));
        }
        Ok(())
    }
}
