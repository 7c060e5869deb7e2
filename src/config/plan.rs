//! The plan: the settings that can change at run time, and the backends. Workers follow it. The master
//! publishes it as bytes, and a worker that finds another edition reads them.
//!
//! Format: numbers are eight bytes, little-endian; text and lists are preceded by their length. First comes the
//! form, a number that changes whenever the meaning of the bytes changes; then the owner of each slot, in
//! records preceded by their length. Any program that knows the shared memory's magic number can read these
//! (`Plan::owners_in`), so that backends keep their slots over an upgrade that changes the rest.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::{Address, Backend, Cidr, Config, Health, HealthCheck, HostHeader, Statuses, Strategy, Timeouts};
use crate::balance::{self, Rules};
use crate::limits::{
    BACKENDS, DEFAULT_CONNECT_US, DEFAULT_DRAIN_IDLE_US, DEFAULT_DRAIN_US, DEFAULT_HALF_CLOSE_US, DEFAULT_IDLE_US,
    DEFAULT_METRICS_PATH, DEFAULT_REQUEST_US, DEFAULT_RESPONSE_US, SLOTS, STATUS_RANGES, TRUSTED_RANGES,
};
use crate::log::Level;
use crate::metrics::Detail;

/// The settings and the backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The strategy.
    pub strategy: Strategy,
    /// The lowest level of log lines that is kept.
    pub loglevel: Level,
    /// True if messages are dumped to the log.
    pub trace: bool,
    /// Every time limit a user can set.
    pub timeouts: Timeouts,
    /// The Host field for backends.
    pub host_header: HostHeader,
    /// Peers whose X-Forwarded-* fields are believed.
    pub trust: Vec<Cidr>,
    /// The pseudonym for a Via field; `None` for no Via.
    pub via: Option<String>,
    /// True if requests get ids.
    pub request_ids: bool,
    /// The health checks of backends.
    pub health: Health,
    /// The duration of slow start for a restored backend, in microseconds; 0 for none.
    pub slow_start_us: u64,
    /// The delay between a termination signal and the drain, in microseconds; 0 for none.
    pub drain_delay_us: u64,
    /// The maximum time that a worker's loop may be stuck, in microseconds; 0 for no limit.
    pub watchdog_us: u64,
    /// Retries for each hundred requests.
    pub retry_percent: u32,
    /// The path of the metrics on the main port; empty for none.
    pub metrics_path: String,
    /// The level of detail of metrics about a backend.
    pub metrics_detail: Detail,
    /// A number that changes whenever the CA certificates must be read again.
    pub authorities: u64,
    /// Every address of every backend that has one.
    pub members: Vec<Member>,
    /// Names of the backends that have no address yet.
    pub unresolved: Vec<String>,
    /// Addresses that have left a backend of the plan, and whose counts are still in their slots.
    pub gone: Vec<Gone>,
}

/// An address that has left a backend. Its counts still belong to the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Its slot.
    pub slot: u16,
    /// Distinguishes it from other owners of the slot.
    pub generation: u64,
    /// The backend as configured.
    pub name: String,
}

/// One address of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its slot, which is its own for as long as the address is configured.
    pub slot: u16,
    /// Distinguishes it from earlier owners of the slot.
    pub generation: u64,
    /// The backend as configured.
    pub name: String,
    /// The backend's own Host.
    pub host: String,
    /// The address.
    pub address: Address,
    /// Its share.
    pub weight: u16,
    /// True if the backend serves only while no other is healthy.
    pub backup: bool,
    /// Requests in flight at most; 0 is no limit.
    pub max: u32,
    /// The name in its certificate; empty without TLS.
    pub server_name: String,
    /// True if it gets its own Host, regardless of the setting for others.
    pub own_host: bool,
    /// True if it uses HTTP/2 without TLS.
    pub h2c: bool,
}

impl Member {
    /// A backend at one of its addresses, without a slot yet. `own_host`: it may get its own Host by default.
    pub fn new(backend: &Backend, address: Address, own_host: bool) -> Member {
        Member {
            slot: 0,
            generation: 0,
            name: backend.name.clone(),
            host: backend.authority().into(),
            address,
            weight: backend.weight,
            backup: backend.backup,
            max: backend.max,
            server_name: backend.server_name(),
            own_host: own_host && backend.has_own_host(),
            h2c: backend.h2c,
        }
    }
}

impl Plan {
    /// The plan for a configuration: its settings, its backends, and the number of times that the CA
    /// certificates have been read again.
    pub fn new(config: &Config, authorities: u64, members: Vec<Member>, unresolved: Vec<String>) -> Plan {
        Plan {
            strategy: config.strategy,
            loglevel: config.loglevel,
            trace: config.trace,
            timeouts: config.timeouts,
            host_header: config.host_header.clone(),
            trust: config.trust.clone(),
            via: config.via.clone(),
            request_ids: config.request_ids,
            health: config.health.clone(),
            slow_start_us: config.slow_start_us,
            drain_delay_us: config.drain_delay_us,
            watchdog_us: config.watchdog_us,
            retry_percent: config.retry_percent,
            metrics_path: config.metrics_path.clone().unwrap_or_default(),
            metrics_detail: config.metrics_detail,
            authorities,
            members,
            unresolved,
            gone: Vec::new(),
        }
    }

    /// The default settings, and backends at these addresses in the first slots, which are not
    /// probed: for tests and benches.
    pub fn over(addresses: impl IntoIterator<Item = SocketAddr>) -> Plan {
        let member = |(slot, address): (usize, SocketAddr)| Member {
            slot: slot as u16,
            generation: 1,
            ..Member::new(&Backend::at(address), Address::Tcp(address), false)
        };
        Plan {
            strategy: Strategy::default(),
            loglevel: Level::Info,
            trace: false,
            timeouts: Timeouts {
                connect_us: DEFAULT_CONNECT_US,
                request_us: DEFAULT_REQUEST_US,
                response_us: DEFAULT_RESPONSE_US,
                idle_us: DEFAULT_IDLE_US,
                half_close_us: DEFAULT_HALF_CLOSE_US,
                drain_us: DEFAULT_DRAIN_US,
                drain_idle_us: DEFAULT_DRAIN_IDLE_US,
            },
            host_header: HostHeader::Preserve,
            trust: Vec::new(),
            via: None,
            request_ids: true,
            health: Health {
                check: HealthCheck::Http,
                path: "/".into(),
                status: Statuses::range(200, 499),
                host: None,
                interval_us: 0,
                timeout_us: 0,
                fails: 3,
                passes: 2,
                count_5xx: false,
            },
            slow_start_us: 0,
            drain_delay_us: 0,
            watchdog_us: 0,
            retry_percent: 20,
            metrics_path: DEFAULT_METRICS_PATH.into(),
            metrics_detail: Detail::Backend,
            authorities: 0,
            members: addresses.into_iter().enumerate().map(member).collect(),
            unresolved: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// The settings of the balancer.
    pub fn rules(&self) -> Rules {
        Rules {
            strategy: self.strategy,
            fails: self.health.fails,
            passes: self.health.passes,
            interval_us: self.health.interval_us,
            slow_start_us: self.slow_start_us,
            retry_percent: self.retry_percent,
        }
    }

    /// The members of the balancer.
    pub fn picked_from(&self) -> impl Iterator<Item = balance::Member> {
        self.members.iter().map(|member| balance::Member {
            slot: member.slot,
            weight: member.weight,
            backup: member.backup,
            max: member.max,
        })
    }

    /// A number that changes whenever the meaning of a plan's bytes changes: a hash of the bytes of one plan.
    fn form() -> u64 {
        let plan = Plan::over([SocketAddr::from(([127, 0, 0, 1], 1))]);
        let mut out = Encoder(Vec::new());
        plan.encode_owners(&mut out);
        plan.encode_rest(&mut out);
        out.0.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    /// True if this program reads and writes this form.
    pub fn is_of_own_form(bytes: &[u8]) -> bool {
        Decoder(bytes).number() == Some(Plan::form())
    }

    /// The plan as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder(Vec::new());
        out.number(Plan::form());
        self.encode_owners(&mut out);
        self.encode_rest(&mut out);
        out.0
    }

    /// Encodes the owner of each slot.
    fn encode_owners(&self, out: &mut Encoder) {
        out.number(self.members.len() as u64);
        self.members.iter().for_each(|member| out.record(|out| out.owner(member)));
        out.number(self.gone.len() as u64);
        for Gone { slot, generation, name } in &self.gone {
            out.record(|out| {
                out.number((*slot).into());
                out.number(*generation);
                out.text(name);
            });
        }
    }

    fn encode_rest(&self, out: &mut Encoder) {
        out.text(self.strategy.name);
        out.number(self.loglevel as u64);
        out.flag(self.trace);
        let Timeouts { connect_us, request_us, response_us, idle_us, half_close_us, drain_us, drain_idle_us } =
            self.timeouts;
        let limits = [connect_us, request_us, response_us, idle_us, half_close_us, drain_us, drain_idle_us];
        limits.into_iter().for_each(|limit| out.number(limit));
        match &self.host_header {
            HostHeader::Preserve => out.number(0),
            HostHeader::Backend => out.number(1),
            HostHeader::Name(name) => {
                out.number(2);
                out.text(name);
            }
        }
        out.number(self.trust.len() as u64);
        for range in &self.trust {
            out.text(&range.address.to_string());
            out.number(range.prefix.into());
        }
        out.flag(self.via.is_some());
        out.text(self.via.as_deref().unwrap_or_default());
        out.flag(self.request_ids);
        let Health { check, path, status, host, interval_us, timeout_us, fails, passes, count_5xx } = &self.health;
        out.number(*check as u64);
        out.text(path);
        out.number(status.ranges().len() as u64);
        status.ranges().iter().flat_map(|&(first, last)| [first, last]).for_each(|end| out.number(end.into()));
        out.flag(host.is_some());
        out.text(host.as_deref().unwrap_or_default());
        [*interval_us, *timeout_us, u64::from(*fails), u64::from(*passes)].into_iter().for_each(|n| out.number(n));
        out.flag(*count_5xx);
        out.number(self.slow_start_us);
        out.number(self.drain_delay_us);
        out.number(self.watchdog_us);
        out.number(self.retry_percent.into());
        out.text(&self.metrics_path);
        out.number(self.metrics_detail as u64);
        out.number(self.authorities);
        self.members.iter().for_each(|member| out.member(member));
        out.number(self.unresolved.len() as u64);
        self.unresolved.iter().for_each(|name| out.text(name));
    }

    /// The owners of slots in the bytes of any program's plan: its addresses, with only name, address and TLS
    /// name, and those that are gone. `None` if the bytes are not a plan.
    pub fn owners_in(bytes: &[u8]) -> Option<(Vec<Member>, Vec<Gone>)> {
        let mut from = Decoder(bytes);
        from.number()?;
        let owners = from.owners()?;
        // A program with more slots may have filled some that this one does not have.
        let (mut members, mut gone) = owners;
        members.retain(|member| usize::from(member.slot) < SLOTS);
        gone.retain(|gone| usize::from(gone.slot) < SLOTS);
        Some((members, gone))
    }

    /// Decodes a plan; `None` if the bytes are not one.
    pub fn decode(bytes: &[u8]) -> Option<Plan> {
        let mut from = Decoder(bytes);
        if from.number()? != Plan::form() {
            return None;
        }
        let (mut members, gone) = from.owners()?;
        let strategy = Strategy::named(&from.text()?)?;
        let level = from.number()?;
        let plan = Plan {
            strategy,
            loglevel: Level::NAMES.into_iter().map(|(_, one)| one).find(|&one| one as u64 == level)?,
            trace: from.flag()?,
            timeouts: Timeouts {
                connect_us: from.number()?,
                request_us: from.number()?,
                response_us: from.number()?,
                idle_us: from.number()?,
                half_close_us: from.number()?,
                drain_us: from.number()?,
                drain_idle_us: from.number()?,
            },
            host_header: match from.number()? {
                0 => HostHeader::Preserve,
                1 => HostHeader::Backend,
                _ => HostHeader::Name(from.text()?),
            },
            trust: from.list(TRUSTED_RANGES, |from| {
                let address: IpAddr = from.text()?.parse().ok()?;
                Some(Cidr { address, prefix: from.small()? })
            })?,
            via: {
                let given = from.flag()?;
                Some(from.text()?).filter(|_| given)
            },
            request_ids: from.flag()?,
            health: Health {
                check: {
                    let number = from.number()?;
                    HealthCheck::NAMES.into_iter().map(|(_, one)| one).find(|&one| one as u64 == number)?
                },
                path: from.text()?,
                status: Statuses::of(from.list(STATUS_RANGES, |from| Some((from.small()?, from.small()?)))?),
                host: {
                    let given = from.flag()?;
                    Some(from.text()?).filter(|_| given)
                },
                interval_us: from.number()?,
                timeout_us: from.number()?,
                fails: from.small()?,
                passes: from.small()?,
                count_5xx: from.flag()?,
            },
            slow_start_us: from.number()?,
            drain_delay_us: from.number()?,
            watchdog_us: from.number()?,
            retry_percent: from.small()?,
            metrics_path: from.text()?,
            metrics_detail: if from.number()? == Detail::Backend as u64 { Detail::Backend } else { Detail::Address },
            authorities: from.number()?,
            members: {
                let in_range = |slot: u16| usize::from(slot) < SLOTS;
                members.iter_mut().try_for_each(|member| from.member(member).filter(|()| in_range(member.slot)))?;
                members
            },
            unresolved: from.list(BACKENDS, Decoder::text)?,
            gone,
        };
        from.0.is_empty().then_some(plan)
    }
}

struct Encoder(Vec<u8>);

impl Encoder {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn flag(&mut self, flag: bool) {
        self.number(flag.into());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    /// A part with its length before it.
    fn record(&mut self, write: impl FnOnce(&mut Encoder)) {
        let mut part = Encoder(Vec::new());
        write(&mut part);
        self.number(part.0.len() as u64);
        self.0.extend_from_slice(&part.0);
    }

    /// Encodes the owner of a slot.
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
                // The path was given as text, so it is valid text.
                self.text(&path.to_string_lossy());
            }
        }
        self.text(&member.server_name);
    }

    /// The rest.
    fn member(&mut self, member: &Member) {
        self.text(&member.host);
        self.number(member.weight.into());
        self.flag(member.backup);
        self.number(member.max.into());
        self.flag(member.own_host);
        self.flag(member.h2c);
    }
}

struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Option<T> {
        self.number()?.try_into().ok()
    }

    fn flag(&mut self) -> Option<bool> {
        Some(self.number()? != 0)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.small()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    fn list<T>(&mut self, most: usize, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count: usize = self.small().filter(|&count| count <= most)?;
        (0..count).map(|_| read(self)).collect()
    }

    /// Reads a record preceded by its length. Additional data is from a later program and is skipped.
    fn record<T>(&mut self, read: impl FnOnce(&mut Decoder<'a>) -> Option<T>) -> Option<T> {
        let length = self.small()?;
        let (part, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        read(&mut Decoder(part))
    }

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
mod tests {
    use super::*;

    fn plan() -> Plan {
        let mut plan = Plan::over([SocketAddr::from(([127, 0, 0, 1], 1)), "[::1]:2".parse().unwrap()]);
        plan.strategy = Strategy::named("random").unwrap();
        plan.loglevel = Level::Warn;
        plan.trace = true;
        plan.host_header = HostHeader::Name("api".into());
        plan.trust = vec![Cidr { address: "10.0.0.0".parse().unwrap(), prefix: 8 }];
        plan.via = Some("edge".into());
        plan.request_ids = false;
        plan.health.path = "/up".into();
        plan.health.check = HealthCheck::Tcp;
        plan.health.status = Statuses::of(vec![(200, 299), (401, 401)]);
        plan.health.host = Some("probe.example".into());
        plan.authorities = 3;
        plan.metrics_path = "/m".into();
        plan.metrics_detail = Detail::Address;
        plan.members[1].address = Address::Unix("/run/socket".into());
        plan.members[1].backup = true;
        plan.members[1].max = 9;
        plan.members[0].server_name = "api.example".into();
        plan.members[0].own_host = true;
        plan.members[1].h2c = true;
        plan.unresolved = vec!["api.example:80".into()];
        plan.gone = vec![Gone { slot: 7, generation: 2, name: "api.example:80".into() }];
        plan
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let plan = plan();
        assert_eq!(Plan::decode(&plan.encode()), Some(plan));
        let plain = Plan::over([]);
        assert_eq!(Plan::decode(&plain.encode()), Some(plain));
    }

    #[test]
    fn what_is_no_plan_is_none() {
        let bytes = plan().encode();
        for length in 0..bytes.len() {
            assert_eq!(Plan::decode(&bytes[..length]), None, "{length}");
        }
        assert_eq!(Plan::decode(&[&bytes[..], b"x"].concat()), None);
        assert_eq!(Plan::decode(&[0xff; 4096]), None);
    }

    #[test]
    fn whose_each_slot_is_can_be_read_though_the_form_is_another() {
        let plan = plan();
        let mut bytes = plan.encode();
        bytes[0] ^= 1;
        // The rest may be anything.
        bytes.truncate(bytes.len() - 40);
        assert_eq!(Plan::decode(&bytes), None);
        assert!(!Plan::is_of_own_form(&bytes) && Plan::is_of_own_form(&plan.encode()));
        let (members, gone) = Plan::owners_in(&bytes).unwrap();
        let owner = |member: &Member| (member.slot, member.generation, member.name.clone(), member.address.clone());
        assert_eq!(members.iter().map(owner).collect::<Vec<_>>(), plan.members.iter().map(owner).collect::<Vec<_>>());
        assert_eq!((members[0].server_name.as_str(), gone), ("api.example", plan.gone));
        assert_eq!(Plan::owners_in(&bytes[..60]), None);
    }
}
