//! The bytes of a plan.
//!
//! The bytes begin with the number of the form. Then come the owners of the slots, in records with a length before them.
//! The settings follow, in sections: each has a name and a length before it.
//!
//! Any program that knows the magic number of the shared memory can read the owners (`Plan::owners_in`), so that the
//! backends keep their slots over every upgrade. A program passes over sections that it does not know, and the settings
//! of absent sections have their defaults. So a new setting is a new section, and programs without it still read the
//! plan. If the bytes of a section get another meaning, the section gets another name.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::{Gone, Member, Plan};
use crate::config::bytes::{Decoder, Encoder};
use crate::config::{
    Address, Cidr, HashKey, Health, HealthCheck, HostHeader, Route, Statuses, Sticky, Strategy, Timeouts, TlsRules,
    TlsVersion,
};
use crate::http::proxy_header::Version;
use crate::limits::{BACKEND_ROUTES, BACKENDS, SLOTS, STATUS_RANGES, TRUSTED_RANGES};
use crate::log::Level;
use crate::metrics::Detail;

/// The form: "sections" in ASCII. Programs before it have a hash here, and settings without names.
const FORM: u64 = u64::from_be_bytes(*b"sections");

/// A part of the settings.
struct Section {
    name: &'static str,
    write: fn(&Plan, &mut Encoder),
    /// Returns `None` if the bytes are malformed.
    read: fn(&mut Plan, &mut Decoder<'_>) -> Option<()>,
}

/// All settings. The order has no meaning.
const SECTIONS: [Section; 22] = [
    Section {
        name: "strategy",
        // A program that cannot pick by hash picks by turn.
        write: |plan, out| out.text(if plan.hash_key.is_some() { Strategy::default() } else { plan.strategy }.name),
        read: |plan, from| from.text().and_then(|name| Strategy::named(&name)).map(|one| plan.strategy = one),
    },
    Section {
        name: "log",
        write: |plan, out| {
            out.number(plan.loglevel as u64);
            out.flag(plan.trace);
        },
        read: |plan, from| {
            let level = from.number()?;
            plan.loglevel = Level::NAMES.into_iter().map(|(_, one)| one).find(|&one| one as u64 == level)?;
            from.flag().map(|trace| plan.trace = trace)
        },
    },
    Section { name: "timeouts", write: write_timeouts, read: read_timeouts },
    Section {
        name: "host_header",
        write: |plan, out| match &plan.host_header {
            HostHeader::Preserve => out.number(0),
            HostHeader::Backend => out.number(1),
            HostHeader::Name(name) => {
                out.number(2);
                out.text(name);
            }
        },
        read: |plan, from| {
            plan.host_header = match from.number()? {
                0 => HostHeader::Preserve,
                1 => HostHeader::Backend,
                2 => HostHeader::Name(from.text()?),
                _ => return None,
            };
            Some(())
        },
    },
    Section {
        name: "trust",
        write: |plan, out| {
            out.list(&plan.trust, |out, range| {
                out.text(&range.address.to_string());
                out.number(range.prefix.into());
            });
        },
        read: |plan, from| {
            let range = |from: &mut Decoder<'_>| {
                let address: IpAddr = from.text()?.parse().ok()?;
                Some(Cidr { address, prefix: from.small()? })
            };
            from.list(TRUSTED_RANGES, range).map(|trust| plan.trust = trust)
        },
    },
    Section {
        name: "via",
        write: |plan, out| out.option(plan.via.as_deref()),
        read: |plan, from| from.option().map(|via| plan.via = via),
    },
    Section {
        name: "request_ids",
        write: |plan, out| out.flag(plan.request_ids),
        read: |plan, from| from.flag().map(|ids| plan.request_ids = ids),
    },
    Section { name: "health", write: write_health, read: read_health },
    // Programs that do not know the type connect only.
    Section { name: "health_grpc", write: write_health_grpc, read: read_health_grpc },
    Section {
        name: "slow_start",
        write: |plan, out| out.number(plan.slow_start_us),
        read: |plan, from| from.number().map(|us| plan.slow_start_us = us),
    },
    Section {
        name: "drain_delay",
        write: |plan, out| out.number(plan.drain_delay_us),
        read: |plan, from| from.number().map(|us| plan.drain_delay_us = us),
    },
    Section {
        name: "watchdog",
        write: |plan, out| out.number(plan.watchdog_us),
        read: |plan, from| from.number().map(|us| plan.watchdog_us = us),
    },
    Section {
        name: "retry_percent",
        write: |plan, out| out.number(plan.retry_percent.into()),
        read: |plan, from| from.small().map(|percent| plan.retry_percent = percent),
    },
    Section {
        name: "metrics",
        write: |plan, out| {
            out.text(&plan.metrics_path);
            out.number(plan.metrics_detail as u64);
        },
        read: |plan, from| {
            plan.metrics_path = from.text()?;
            let detail = from.number()?;
            plan.metrics_detail = Detail::NAMES.into_iter().map(|(_, one)| one).find(|&one| one as u64 == detail)?;
            Some(())
        },
    },
    Section {
        name: "authorities",
        write: |plan, out| out.number(plan.authorities),
        read: |plan, from| from.number().map(|count| plan.authorities = count),
    },
    Section {
        // In the order of the owners.
        name: "members",
        write: |plan, out| plan.members.iter().for_each(|member| out.record(|out| out.member(member))),
        read: |plan, from| plan.members.iter_mut().try_for_each(|member| from.record(|from| from.member(member))),
    },
    Section {
        name: "unresolved",
        write: |plan, out| out.list(&plan.unresolved, |out, name| out.text(name)),
        read: |plan, from| from.list(BACKENDS, Decoder::text).map(|names| plan.unresolved = names),
    },
    Section { name: "tls", write: write_tls, read: read_tls },
    Section { name: "routes", write: write_routes, read: read_routes },
    Section {
        name: "hash",
        write: |plan, out| out.option(plan.hash_key.as_ref().map(HashKey::to_string).as_deref()),
        read: |plan, from| {
            if let Some(text) = from.option()? {
                plan.hash_key = Some(HashKey::named(&text)?);
                plan.strategy = Strategy::by_hash();
            }
            Some(())
        },
    },
    Section {
        name: "sticky",
        write: |plan, out| {
            let sticky = plan.sticky.as_ref();
            out.option(sticky.map(|sticky| sticky.name.as_str()));
            out.text(sticky.map_or("", |sticky| &sticky.attributes));
            out.flag(sticky.is_some_and(|sticky| sticky.secure));
        },
        read: |plan, from| {
            let (name, attributes, secure) = (from.option()?, from.text()?, from.flag()?);
            plan.sticky = name.map(|name| Sticky { name, attributes, secure });
            Some(())
        },
    },
    Section {
        name: "send_proxy",
        write: |plan, out| {
            let is_own = |choice: &&(&str, Option<Version>)| choice.1 == plan.send_proxy;
            out.text(Version::CHOICES.iter().find(is_own).map_or("off", |choice| choice.0));
        },
        read: |plan, from| {
            let name = from.text()?;
            Version::CHOICES.iter().find(|choice| choice.0 == name).map(|choice| plan.send_proxy = choice.1)
        },
    },
];

fn write_routes(plan: &Plan, out: &mut Encoder) {
    out.list(&plan.routes, |out, route| {
        out.text(&route.host);
        out.text(&route.prefix);
    });
    out.flag(plan.takes_others);
    // In the order of the owners.
    out.list(&plan.members, |out, member| out.list(&member.routes, |out, &route| out.number(route.into())));
}

fn read_routes(plan: &mut Plan, from: &mut Decoder<'_>) -> Option<()> {
    let route = |from: &mut Decoder<'_>| Some(Route { host: from.text()?, prefix: from.text()? });
    plan.routes = from.list(BACKENDS * BACKEND_ROUTES, route)?;
    plan.takes_others = from.flag()?;
    let known = plan.routes.len();
    let own = |from: &mut Decoder<'_>| from.small().filter(|&route: &u16| usize::from(route) < known);
    let lists = from.list(SLOTS, |from| from.list(BACKEND_ROUTES, own))?;
    for (member, routes) in plan.members.iter_mut().zip(lists) {
        member.routes = routes;
    }
    Some(())
}

fn write_tls(plan: &Plan, out: &mut Encoder) {
    let TlsRules { min, strict_sni, client_optional, strict_transport_s } = plan.tls;
    out.number(min as u64);
    out.flag(strict_sni);
    out.flag(client_optional);
    out.flag(strict_transport_s.is_some());
    out.number(strict_transport_s.unwrap_or_default());
}

fn read_tls(plan: &mut Plan, from: &mut Decoder<'_>) -> Option<()> {
    let min = from.number()?;
    plan.tls = TlsRules {
        min: TlsVersion::NAMES.into_iter().map(|(_, one)| one).find(|&one| one as u64 == min)?,
        strict_sni: from.flag()?,
        client_optional: from.flag()?,
        strict_transport_s: match (from.flag()?, from.number()?) {
            (true, seconds) => Some(seconds),
            (false, _) => None,
        },
    };
    Some(())
}

fn write_timeouts(plan: &Plan, out: &mut Encoder) {
    let Timeouts { connect_us, request_us, response_us, idle_us, half_close_us, drain_us, drain_idle_us } =
        plan.timeouts;
    let all = [connect_us, request_us, response_us, idle_us, half_close_us, drain_us, drain_idle_us];
    all.into_iter().for_each(|us| out.number(us));
}

fn read_timeouts(plan: &mut Plan, from: &mut Decoder<'_>) -> Option<()> {
    plan.timeouts = Timeouts {
        connect_us: from.number()?,
        request_us: from.number()?,
        response_us: from.number()?,
        idle_us: from.number()?,
        half_close_us: from.number()?,
        drain_us: from.number()?,
        drain_idle_us: from.number()?,
    };
    Some(())
}

fn write_health(plan: &Plan, out: &mut Encoder) {
    let Health { check, path, service: _, status, host, interval_us, timeout_us, fails, passes, count_5xx } =
        &plan.health;
    out.number(match check {
        HealthCheck::Http => 0,
        HealthCheck::Tcp | HealthCheck::Grpc => 1,
        HealthCheck::Off => 2,
    });
    out.text(path);
    out.list(status.ranges(), |out, &(first, last)| {
        out.number(first.into());
        out.number(last.into());
    });
    out.option(host.as_deref());
    [*interval_us, *timeout_us, u64::from(*fails), u64::from(*passes)].into_iter().for_each(|n| out.number(n));
    out.flag(*count_5xx);
}

fn write_health_grpc(plan: &Plan, out: &mut Encoder) {
    out.option((plan.health.check == HealthCheck::Grpc).then_some(plan.health.service.as_str()));
}

fn read_health_grpc(plan: &mut Plan, from: &mut Decoder<'_>) -> Option<()> {
    if let Some(service) = from.option()? {
        (plan.health.check, plan.health.service) = (HealthCheck::Grpc, service);
    }
    Some(())
}

fn read_health(plan: &mut Plan, from: &mut Decoder<'_>) -> Option<()> {
    // The sections may have any order.
    let called = (plan.health.check == HealthCheck::Grpc).then(|| std::mem::take(&mut plan.health.service));
    plan.health = Health {
        check: match from.number()? {
            0..=2 if called.is_some() => HealthCheck::Grpc,
            0 => HealthCheck::Http,
            1 => HealthCheck::Tcp,
            2 => HealthCheck::Off,
            _ => return None,
        },
        path: from.text()?,
        service: called.unwrap_or_default(),
        status: Statuses::of(from.list(STATUS_RANGES, |from| Some((from.small()?, from.small()?)))?),
        host: from.option()?,
        interval_us: from.number()?,
        timeout_us: from.number()?,
        fails: from.small()?,
        passes: from.small()?,
        count_5xx: from.flag()?,
    };
    Some(())
}

impl Plan {
    /// True if this program can read these bytes, and programs that wrote them can read its own.
    pub fn is_of_own_form(bytes: &[u8]) -> bool {
        Plan::decode(bytes).is_some()
    }

    /// Returns the bytes of the plan.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder(Vec::new());
        out.number(FORM);
        out.list(&self.members, |out, member| out.record(|out| out.owner(member)));
        out.list(&self.gone, |out, Gone { slot, generation, name }| {
            out.record(|out| {
                out.number((*slot).into());
                out.number(*generation);
                out.text(name);
            });
        });
        out.list(&SECTIONS, |out, section| {
            out.text(section.name);
            out.record(|out| (section.write)(self, out));
        });
        out.0
    }

    /// Returns the owners of the slots, from the bytes of any program's plan: the present addresses and those that have
    /// gone. An address has its name and its name for TLS, and defaults for the rest. `None`: the bytes are no plan.
    pub fn owners_in(bytes: &[u8]) -> Option<(Vec<Member>, Vec<Gone>)> {
        let mut from = Decoder(bytes);
        from.number()?;
        let (mut members, mut gone) = from.owners()?;
        // A program with more slots may use some that this program does not have.
        members.retain(|member| usize::from(member.slot) < SLOTS);
        gone.retain(|gone| usize::from(gone.slot) < SLOTS);
        Some((members, gone))
    }

    /// Returns the plan of these bytes. `None`: they are malformed, or have another form.
    pub fn decode(bytes: &[u8]) -> Option<Plan> {
        let mut from = Decoder(bytes);
        if from.number()? != FORM {
            return None;
        }
        let (members, gone) = from.owners()?;
        if members.iter().any(|member| usize::from(member.slot) >= SLOTS) {
            return None;
        }
        let mut plan = Plan { members, gone, ..Plan::over([]) };
        for _ in 0..from.number()? {
            let name = from.text()?;
            let section = SECTIONS.iter().find(|section| section.name == name);
            from.record(|from| section.map_or(Some(()), |section| (section.read)(&mut plan, from)))?;
        }
        from.0.is_empty().then_some(plan)
    }
}

impl Encoder {
    /// Writes the owner of a slot.
    fn owner(&mut self, member: &Member) {
        self.number(member.slot.into());
        self.number(member.generation);
        self.text(&member.name);
        match &member.address {
            Address::Tcp(address) => {
                self.number(0);
                self.text(&address.to_string());
            }
            Address::Unix(path) => {
                self.number(1);
                // The path was given as text, so nothing is lost.
                self.text(&path.to_string_lossy());
            }
        }
        self.text(&member.server_name);
    }

    /// Writes the settings of a member that has an owner's record.
    fn member(&mut self, member: &Member) {
        self.text(&member.host);
        self.number(member.weight.into());
        self.flag(member.backup);
        self.number(member.max.into());
        self.flag(member.own_host);
        self.flag(member.h2c);
    }
}

impl Decoder<'_> {
    fn owners(&mut self) -> Option<(Vec<Member>, Vec<Gone>)> {
        let most = usize::from(u16::MAX);
        let members = self.list(most, |from| from.record(|from| from.owner()))?;
        let gone = self.list(most, |from| {
            from.record(|from| Some(Gone { slot: from.small()?, generation: from.number()?, name: from.text()? }))
        })?;
        Some((members, gone))
    }

    fn owner(&mut self) -> Option<Member> {
        Some(Member {
            slot: self.small()?,
            generation: self.number()?,
            name: self.text()?,
            address: match self.number()? {
                0 => Address::Tcp(self.text()?.parse::<SocketAddr>().ok()?),
                _ => Address::Unix(PathBuf::from(self.text()?)),
            },
            server_name: self.text()?,
            host: String::new(),
            weight: 1,
            backup: false,
            max: 0,
            own_host: false,
            h2c: false,
            routes: Vec::new(),
        })
    }

    fn member(&mut self, member: &mut Member) -> Option<()> {
        member.host = self.text()?;
        member.weight = self.small()?;
        member.backup = self.flag()?;
        member.max = self.small()?;
        member.own_host = self.flag()?;
        member.h2c = self.flag()?;
        Some(())
    }
}

#[cfg(test)]
mod tests;
