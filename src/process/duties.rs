//! What the master does besides its workers, and the one process of sp besides its clients: it
//! follows the configuration file, decides which plan holds, and publishes it.
//!
//! Everything it waits for is behind one descriptor and one deadline, so that it fits beside any
//! other loop. A change that cannot be made is told, counted, and leaves all as it is.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

use super::names::Names;
use super::notify::Notify;
use super::slots::{Refused, Slots};
use super::watch::{Change, Watch};
use super::{Failure, Journal, USAGE};
use crate::args::Options;
use crate::balance::cells::State;
use crate::collections::random::Random;
use crate::config::{self, Address, Backend, Config, Host, Member, Plan, Target};
use crate::limits::{ADDRESSES, JSON_BYTES, PLAN_BYTES, PROBE_ADDED_US, SECOND_US};
use crate::log::Level;
use crate::metrics::{Block, Global};
use crate::reactor::Reactor;
use crate::shared::Region;
use crate::sys::clock;
use crate::tls;

/// What keeps a plan from being published for a while.
const NO_ROOM: &str = "too many addresses have changed within seconds";

/// Tokens of what is waited for.
const FILE: u64 = 0;

/// The state of these duties.
pub(super) struct Duties {
    /// What was given besides the file.
    options: Options,
    config: Config,
    region: Region,
    slots: Slots,
    random: Random,
    reactor: Reactor,
    watch: Option<Watch>,
    /// Where no backend has a name, nothing is looked up.
    names: Option<Names>,
    /// Where names led before an upgrade: those that backends have since lead there until they are found anew.
    before: Vec<Member>,
    /// The plan before an upgrade, until this program serves.
    plan_before: Option<Vec<u8>>,
    notify: Notify,
    /// Where clients connect.
    address: SocketAddr,
    /// How often the authorities' certificates have been read again.
    authorities: u64,
    /// Whether all workers accept.
    serving: bool,
    journal: Journal,
    /// A plan was published that workers have not been told of.
    published: bool,
    /// When the plan is made again, in microseconds, as there was no room for it; else `u64::MAX`.
    publish_us: u64,
    /// A file's contents that are taken up later.
    postponed: Option<(Vec<u8>, Later)>,
}

/// What a plan waits for.
struct Later {
    /// Names that are looked up first; none where addresses that have gone still have what it takes.
    names: Vec<String>,
    /// When it is made again at the latest, in microseconds.
    at_us: u64,
}

/// Why a plan was not published.
enum Unpublished {
    /// It cannot be.
    Never(String),
    /// It can be then.
    Later(Later),
}

impl Duties {
    /// Takes the duties up, and publishes the first plan. `contents`: of the configuration file; `address`:
    /// where clients connect; `led`: where requests went before an upgrade, unless that stands in the region.
    pub(super) fn begin(
        config: Config,
        options: Options,
        contents: Option<Vec<u8>>,
        address: SocketAddr,
        region: Region,
        led: Vec<Member>,
    ) -> Result<Duties, Failure> {
        let reactor = Reactor::new().map_err(Failure::of("wait for events"))?;
        let now_us = clock::monotonic_us();
        let watch =
            config.file.clone().zip(contents).map(|(path, contents)| Watch::new(path, contents, JSON_BYTES, now_us));
        let mut duties = Duties {
            options,
            journal: Journal::new(config.loglevel),
            slots: Slots::new(region.balance(), region.owners(), region.slots()),
            random: Random::new(clock::unix_us()),
            config,
            region,
            reactor,
            watch,
            names: None,
            before: led,
            plan_before: region.table().read().1,
            notify: Notify::from_env(),
            address,
            authorities: 0,
            serving: false,
            published: false,
            publish_us: u64::MAX,
            postponed: None,
        };
        if let Some(plan) = duties.plan_before.as_deref().and_then(Plan::decode) {
            duties.slots.resume(&plan.members, now_us);
            duties.before = plan.members;
        }
        if let Some(watch) = &duties.watch {
            if let Some(fd) = watch.fd() {
                duties.reactor.watch(fd, FILE).map_err(Failure::of("watch the configuration file"))?;
            }
            if watch.is_polling() {
                let text = format_args!("the system tells of no changes: the file is looked at once a second");
                duties.journal.line(Level::Warn, "config", text);
            }
        }
        duties.want_names(&[]).map_err(Failure::of("look names up"))?;
        duties.wait_for_names().map_err(Failure::of("wait for events"))?;
        match duties.publish() {
            Ok(()) => {}
            Err(Unpublished::Never(reason)) => return Err(Failure::new(USAGE, reason)),
            // Only after an upgrade are there addresses that have gone: until then its plan holds.
            Err(Unpublished::Later(later)) => duties.publish_us = later.at_us,
        }
        Ok(duties)
    }

    /// Has the names looked up that backends have, these ones besides, and no others.
    fn want_names(&mut self, besides: &[Backend]) -> io::Result<()> {
        let backends = self.config.backends.iter().chain(besides);
        let named: Vec<&Backend> = backends.filter(|backend| backend.host_name().is_some()).collect();
        let wanted: Vec<&str> = named.iter().filter_map(|backend| backend.host_name()).collect();
        // One that comes again later is looked up like any other.
        self.before.retain(|member| named.iter().any(|backend| backend.name == member.name));
        let now_us = clock::monotonic_us();
        if self.names.is_none() && !wanted.is_empty() {
            self.names = Some(Names::new(&self.reactor, now_us)?);
        }
        if let Some(names) = &mut self.names {
            names.want(&wanted, now_us);
        }
        Ok(())
    }

    /// Waits a while for each name to be found, or not to be.
    fn wait_for_names(&mut self) -> io::Result<()> {
        loop {
            let now_us = clock::monotonic_us();
            self.attend_names(now_us);
            let Some(Later { at_us, .. }) = self.awaited(now_us) else { return Ok(()) };
            self.reactor.poll(self.next_us().min(at_us).saturating_sub(now_us))?;
            self.take_events();
        }
    }

    /// The names that are to be waited for, as their backends have no address before; None where there are
    /// none.
    fn awaited(&self, now_us: u64) -> Option<Later> {
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

    /// Heeds the events of the last poll.
    fn take_events(&mut self) {
        let now_us = clock::monotonic_us();
        let mut at = 0;
        while let Some(event) = self.reactor.event(at) {
            at += 1;
            if event.token != FILE {
                self.names.iter_mut().for_each(|names| names.heed(event, now_us));
            } else if let Some(watch) = &mut self.watch {
                watch.ready(now_us);
            }
        }
    }

    /// Sees to the names; whether an address has changed.
    fn attend_names(&mut self, now_us: u64) -> bool {
        let globals = self.globals();
        let Some(names) = &mut self.names else { return false };
        names.expire(now_us);
        names.carry_out(&self.reactor, &mut self.journal, globals, now_us)
    }

    /// Whether a plan was published since this was last asked.
    pub(super) fn take_published(&mut self) -> bool {
        std::mem::take(&mut self.published)
    }

    /// All workers accept: a service manager is told so.
    pub(super) fn serving(&mut self) {
        self.serving = true;
        self.plan_before = None;
        let count = self.config.backends.len();
        let plural = if count == 1 { "" } else { "s" };
        self.notify.ready(format_args!("serving {count} backend{plural} at {}", self.address));
    }

    /// Gives the upgrade up: the plan before holds again.
    pub(super) fn take_back(&self) {
        if let Some(bytes) = &self.plan_before {
            self.region.table().publish(bytes);
        }
    }

    /// Another program is about to take over.
    pub(super) fn upgrading(&mut self) {
        self.notify.reloading();
    }

    /// The process has begun to end.
    pub(super) fn stopping(&mut self) {
        self.notify.stopping();
    }

    /// Where what it does is counted.
    pub(super) fn globals(&self) -> Block {
        self.region.globals()
    }

    /// The configuration that holds.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Publishes the plan that the configuration and the addresses make. Where that cannot be, the plan
    /// before holds.
    fn publish(&mut self) -> Result<(), Unpublished> {
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
    fn publish_again(&mut self) {
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
    fn addresses(&self, backend: &Backend) -> Vec<Address> {
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
    fn led_before(&self, backend: &Backend) -> Vec<Address> {
        let own = self.before.iter().filter(|member| member.name == backend.name);
        own.map(|member| member.address.clone()).collect()
    }

    fn heed(&mut self, change: Change) {
        let told = self.postponed.take().is_some_and(|(_, later)| later.names.is_empty());
        match change {
            Change::Contents(contents) => self.reload(contents, told),
            Change::Unreadable(error) => self.refuse([format!("{}: {error}", self.path())]),
        }
    }

    fn path(&self) -> String {
        self.config.file.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }

    /// Follows the file's new contents, or refuses all of them; or does so later. That there is no room is
    /// told unless it was `told` already.
    fn reload(&mut self, contents: Vec<u8>, told: bool) {
        self.notify.reloading();
        if let Some(later) = self.try_reload(&contents) {
            if !later.names.is_empty() {
                let text = format_args!("the file is taken up once it is known where {} leads", later.names.join(", "));
                self.journal.line(Level::Debug, "config", text);
            } else if !told {
                let text = format_args!("{NO_ROOM}: the file is taken up as soon as there is room");
                self.journal.line(Level::Warn, "config", text);
            }
            self.postponed = Some((contents, later));
        }
        if self.serving {
            self.serving();
        }
    }

    /// Takes the file's contents up, or refuses them: `None`. Else what they wait for.
    fn try_reload(&mut self, contents: &[u8]) -> Option<Later> {
        let mut config = match self.read(contents) {
            Ok(config) => config,
            Err(problems) => {
                self.refuse(problems);
                return None;
            }
        };
        let fixed = config::keep_fixed(&mut config, &self.config);
        let before = std::mem::replace(&mut self.config, config);
        // Until it is known which configuration holds, the names of both are followed.
        let wanted = self.want_names(&before.backends);
        // What the hosts table has is known at once.
        let now_us = clock::monotonic_us();
        let moved = self.attend_names(now_us);
        let wanted = wanted.map_err(|error| Unpublished::Never(format!("cannot look names up: {error}")));
        // Those that serve stay until it is known whether others can.
        let known = wanted.and_then(|()| self.awaited(now_us).map_or(Ok(()), |later| Err(Unpublished::Later(later))));
        let later = match known.and_then(|()| self.publish()) {
            Ok(()) => {
                self.tell_reloaded(&before, &fixed);
                None
            }
            Err(unpublished) => {
                self.config = before;
                if moved {
                    self.publish_again();
                }
                match unpublished {
                    Unpublished::Never(problem) => {
                        self.refuse([problem]);
                        None
                    }
                    Unpublished::Later(later) => Some(later),
                }
            }
        };
        if later.is_none() {
            // It could look them up with others besides.
            let _ = self.want_names(&[]);
        }
        later
    }

    /// The configuration that the file's contents make, or what is wrong with them.
    fn read(&self, contents: &[u8]) -> Result<Config, Vec<String>> {
        let options = config::file::read(contents, &self.path(), self.options.clone()).map_err(lines)?;
        let config = config::resolve(options).map_err(lines)?;
        if has_tls(&config) && !has_tls(&self.config) {
            self.try_tls().map_err(|problem| vec![problem])?;
        }
        Ok(config)
    }

    /// Whether workers can make what sessions with backends share, or why not.
    fn try_tls(&self) -> Result<(), String> {
        let Config { ca_file, insecure, tls_trace, .. } = &self.config;
        tls::client(ca_file.as_deref(), *insecure, *tls_trace).map(drop)
    }

    /// Has the workers read the authorities' certificates again, with the next plan; whether they are to.
    fn renew_authorities(&mut self) -> bool {
        if !has_tls(&self.config) || self.config.insecure {
            return false;
        }
        match self.try_tls() {
            Ok(()) => {
                self.authorities += 1;
                self.journal.line(Level::Info, "tls", format_args!("HUP: certificate authorities are read again"));
                true
            }
            Err(problem) => {
                self.journal.line(Level::Err, "tls", format_args!("{problem}: the authorities before stay"));
                false
            }
        }
    }

    fn tell_reloaded(&mut self, before: &Config, fixed: &[&str]) {
        self.journal.set_level(self.config.loglevel);
        self.globals().add_global(Global::ReloadsDone, 1);
        let text = format!("{}: {}", self.path(), Difference::between(&before.backends, &self.config.backends));
        self.journal.line(Level::Info, "config", format_args!("{text}"));
        // After an upgrade it is whom it was.
        let (user, others): (Vec<&str>, Vec<&str>) = fixed.iter().partition(|name| **name == "user");
        for (names, needed) in [(others, "an upgrade"), (user, "another start")] {
            if !names.is_empty() {
                let text = format_args!("{} cannot change while it runs: that needs {needed}", names.join(", "));
                self.journal.line(Level::Warn, "config", text);
            }
        }
    }

    fn refuse(&mut self, problems: impl IntoIterator<Item = String>) {
        self.globals().add_global(Global::ReloadsRefused, 1);
        for problem in problems {
            self.journal.line(Level::Err, "config", format_args!("{problem}"));
        }
        self.journal.line(Level::Err, "config", format_args!("refused: the configuration before stays"));
    }
}

impl Duties {
    /// What to poll for readability.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.reactor.fd()
    }

    /// When `turn` is to be called though there is nothing to read, in microseconds.
    pub(super) fn next_us(&self) -> u64 {
        let file_us = self.watch.as_ref().map_or(u64::MAX, Watch::next_deadline_us);
        let names_us = self.names.as_ref().map_or(u64::MAX, Names::next_us);
        let later_us = self.postponed.as_ref().map_or(u64::MAX, |(_, later)| later.at_us).min(self.publish_us);
        file_us.min(names_us).min(later_us).min(self.notify.next_us())
    }

    /// Does what is to be done now. Errors are those of the poller.
    pub(super) fn turn(&mut self) -> io::Result<()> {
        self.reactor.poll(0)?;
        self.take_events();
        let now_us = clock::monotonic_us();
        self.notify.beat(now_us);
        if self.attend_names(now_us) || self.publish_us <= now_us {
            self.publish_again();
        }
        if let Some(change) = self.watch.as_mut().and_then(|watch| watch.expire(now_us)) {
            self.heed(change);
        }
        let names = self.names.as_ref();
        let is_undecided = |name: &String| names.is_some_and(|names| names.is_undecided(name));
        let are_known = |later: &Later| !later.names.is_empty() && !later.names.iter().any(is_undecided);
        let is_due = |later: &Later| later.at_us <= now_us || are_known(later);
        if let Some((contents, later)) = self.postponed.take_if(|(_, later)| is_due(later)) {
            self.reload(contents, later.names.is_empty());
        }
        Ok(())
    }

    /// HUP has come.
    pub(super) fn hang_up(&mut self) {
        let now_us = clock::monotonic_us();
        if let Some(names) = &mut self.names {
            names.refresh(now_us);
        }
        let (renewed, edition) = (self.renew_authorities(), self.region.table().edition());
        match self.watch.as_mut().map(|watch| watch.read_now(now_us)) {
            Some(Ok(contents)) => self.heed(Change::Contents(contents)),
            Some(Err(error)) => self.heed(Change::Unreadable(error)),
            None if renewed => {}
            None if self.names.is_some() => {
                self.journal.line(Level::Info, "config", format_args!("HUP: names are looked up again"));
            }
            None => self.journal.line(Level::Info, "config", format_args!("HUP: there is nothing to read again")),
        }
        if renewed && self.region.table().edition() == edition {
            self.publish_again();
        }
    }
}

fn has_tls(config: &Config) -> bool {
    config.backends.iter().any(|backend| backend.tls)
}

fn lines<T: fmt::Display>(errors: Vec<T>) -> Vec<String> {
    errors.iter().map(T::to_string).collect()
}

/// How many backends one configuration has that the one before had not, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Difference {
    added: usize,
    removed: usize,
    changed: usize,
}

impl Difference {
    fn between(before: &[Backend], after: &[Backend]) -> Difference {
        let known: BTreeMap<&str, &Backend> = before.iter().map(|backend| (backend.name.as_str(), backend)).collect();
        let mut difference = Difference { added: 0, removed: 0, changed: 0 };
        for backend in after {
            match known.get(backend.name.as_str()) {
                None => difference.added += 1,
                Some(&one) => difference.changed += usize::from(one != backend),
            }
        }
        difference.removed = before.len() + difference.added - after.len();
        difference
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{} \u{2212}{} ~{} backends", self.added, self.removed, self.changed)
    }
}

#[cfg(test)]
mod tests;
