//! The plans that the proxy follows, and their times: backends that leave, come and change slots while requests are
//! under way, other intervals between probes, and the end of the proxy (drain and stop).

use std::net::SocketAddr;

use zzz_lb::config;
use zzz_lb::http::proxy_header::Version;
use zzz_lb::log::Level;

use super::network::{Dice, Net, Sabotage, say};
use super::plan::{BACKENDS, BackendPlan, Connect, Plan, SECOND_US, Speaks};
use super::world::World;

/// The number of slots. There are more than backends, so a backend can change its slot.
pub(super) const SLOTS: usize = 2 * BACKENDS;
/// The longest time for which a scenario is probed.
const PROBED_US: u64 = 100 * SECOND_US;
/// The time beyond three intervals that a backend may go without a probe.
const GRACE_US: u64 = 4 * SECOND_US;

/// The place of a backend in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) slot: usize,
    generation: u64,
}

/// The plan from a certain time on.
#[derive(Clone, Debug)]
pub(super) struct Phase {
    /// The time after the begin of the scenario.
    pub(super) at_us: u64,
    /// The place of each backend; `None` if the plan does not have it.
    places: Vec<Option<Place>>,
    /// The interval of the probes of a backend; 0 for none.
    pub(super) interval_us: u64,
}

impl Phase {
    /// Returns the backend in a slot.
    pub(super) fn backend(&self, slot: usize) -> Option<usize> {
        self.places.iter().position(|place| place.is_some_and(|place| place.slot == slot))
    }
}

/// Draws the phases. In the first one each backend has the slot of its number.
pub(super) fn draw(net: &mut Net, backends: &[BackendPlan]) -> Vec<Phase> {
    let count = backends.len();
    let probed = net.dice.percent(30);
    let interval = |dice: &mut Dice| if probed { dice.pick(&[300_000, 1_000_000, 3_000_000]) } else { 0 };
    let first = (0..count).map(|slot| Some(Place { slot, generation: 1 })).collect();
    let mut phases = vec![Phase { at_us: 0, places: first, interval_us: interval(&mut net.dice) }];
    if net.dice.percent(65) {
        return phases;
    }
    // A backend that stays can always serve.
    let stable = (net.clean || net.dice.percent(60)).then(|| net.dice.below(count));
    let mut at_us = 0;
    for generation in 2..2 + net.dice.between(1, 4) as u64 {
        at_us += net.dice.between(1, 1_500_000) as u64;
        let mut places = phases.last().map(|phase| phase.places.clone()).unwrap_or_default();
        for (index, place) in places.iter_mut().enumerate() {
            if stable != Some(index) && net.dice.percent(40) {
                *place = None;
            }
        }
        for index in 0..count {
            if places[index].is_none() && net.dice.percent(50) {
                let is_free = |slot: &usize| places.iter().flatten().all(|place| place.slot != *slot);
                let free: Vec<usize> = (0..SLOTS).filter(is_free).collect();
                places[index] = Some(Place { slot: net.dice.pick(&free), generation });
            }
        }
        phases.push(Phase { at_us, places, interval_us: interval(&mut net.dice) });
    }
    let connectable = stable.is_some_and(|index| backends[index].connect == Connect::Taken);
    net.connectable &= connectable;
    phases
}

/// Returns a phase as a plan for the proxy.
pub(super) fn followed(plan: &Plan, phase: &Phase) -> config::Plan {
    let address = |slot: usize| SocketAddr::from(([127, 0, 0, 1], 9000 + slot as u16));
    let mut followed = config::Plan::over((0..plan.backends.len()).map(address));
    for (index, member) in followed.members.iter_mut().enumerate() {
        let backend = &plan.backends[index];
        member.weight = 1 + index as u16;
        member.max = backend.max;
        member.h2c = backend.speaks == Speaks::Http2;
        if !matches!(backend.speaks, Speaks::Http1 | Speaks::Http2) {
            member.server_name = "backend".into();
        }
        if let Some(place) = phase.places[index] {
            (member.slot, member.generation) = (place.slot as u16, place.generation);
        }
    }
    let mut index = 0;
    followed.members.retain(|_| {
        index += 1;
        phase.places[index - 1].is_some()
    });
    followed.strategy = plan.strategy;
    followed.hash_key = (plan.strategy == config::Strategy::by_hash()).then_some(config::HashKey::Path);
    // Some scenarios have their backends in a group for the host of all requests.
    if plan.backends.len().is_multiple_of(2) {
        followed.routes = vec![config::Route::new("sim.example", "")];
        followed.takes_others = false;
        followed.members.iter_mut().for_each(|member| member.routes = vec![0]);
    }
    followed.timeouts = plan.timeouts;
    followed.retry_percent = plan.retry_percent;
    followed.health.interval_us = phase.interval_us;
    followed.health.timeout_us = plan.probe_us;
    followed.slow_start_us = plan.slow_start_us;
    // In some scenarios each client has its own connections, in all phases or in some.
    followed.send_proxy = (plan.slow_start_us > 0 && phase.at_us.is_multiple_of(2)).then_some(Version::V2);
    followed.loglevel = Level::Err;
    followed
}

impl World {
    /// Returns the time of the next change.
    pub(super) fn change_us(&self) -> u64 {
        let due = |after_us: Option<u64>| after_us.map_or(u64::MAX, |after_us| SECOND_US + after_us);
        let phase_us = self.plan.phases.get(self.phase + 1).map(|phase| phase.at_us);
        due(phase_us).min(due(self.plan.drain_us)).min(due(self.plan.cut_us))
    }

    /// Carries out the due changes.
    pub(super) fn change(&mut self) {
        let is_due = |after_us: Option<u64>, now_us: u64| after_us.is_some_and(|us| SECOND_US + us <= now_us);
        let now_us = self.net.now_us;
        while is_due(self.plan.phases.get(self.phase + 1).map(|phase| phase.at_us), now_us) {
            self.check_probes();
            self.phase += 1;
            self.follow();
        }
        if is_due(self.plan.drain_us, now_us) {
            say!(self.net, "draining");
            self.check_probes();
            self.plan.drain_us = None;
            self.net.draining = true;
            self.proxy.drain();
        }
        if !self.net.draining {
            return;
        }
        if is_due(self.plan.cut_us, now_us) {
            say!(self.net, "cut");
            self.plan.cut_us = None;
            self.net.cut = true;
            self.proxy.stop();
            self.carry_out();
            // A client over HTTP/2 has to take the ends of its streams first.
            let clients = if self.has_http2_clients() { 0 } else { self.proxy.clients() };
            if clients + self.proxy.requests() > 0 {
                self.net.fail("clients or requests outlive the cut".into());
            }
        }
    }

    /// Ends the probes when all clients are done, or after a long time, as with a tunnel that nobody ends. So the
    /// scenario comes to rest.
    pub(super) fn end_probes(&mut self) {
        let last = self.plan.phases.len() - 1;
        let done = self.net.now_us > PROBED_US || self.state().is_empty();
        if self.phase == last && self.plan.phases[last].interval_us > 0 && done {
            self.check_probes();
            self.plan.phases[last].interval_us = 0;
            self.follow();
        }
    }

    fn follow(&mut self) {
        let phase = &self.plan.phases[self.phase];
        say!(self.net, "the proxy follows {phase:?}");
        let plan = followed(&self.plan, phase);
        self.phase_us = self.net.now_us;
        self.net.probes.fill(0);
        if self.net.sabotage != Sabotage::LostPlan {
            self.proxy.follow(&plan);
        }
        self.carry_out();
    }

    /// Checks that each backend of the ending phase was probed if there was time for it.
    fn check_probes(&mut self) {
        let phase = &self.plan.phases[self.phase];
        let lasted_us = self.net.now_us - self.phase_us;
        if phase.interval_us == 0 || self.net.draining || lasted_us < 3 * phase.interval_us + GRACE_US {
            return;
        }
        let silent = phase.places.iter().enumerate().find(|(index, place)| {
            place.is_some() && self.plan.backends[*index].connect == Connect::Taken && self.net.probes[*index] == 0
        });
        if let Some((index, _)) = silent {
            let text =
                format!("backend {index} got no probe in {lasted_us} us, of an interval of {}", phase.interval_us);
            self.net.fail(text);
        }
    }
}
