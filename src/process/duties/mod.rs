//! The duties of the master beside its workers, and of the one process of sp beside its clients: to follow the
//! configuration file and those of certificates, to decide which plan and which secrets hold, and to publish them.
//!
//! All their events are behind one descriptor and one deadline, so that they fit beside any other loop. A change that
//! cannot be made is logged and counted, and changes nothing.

pub(super) mod cookie_key;
pub(super) mod names;
mod plan;
mod reload;
pub(super) mod secrets;
mod slots;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

use self::names::Names;
use self::plan::{Later, Unpublished};
use self::secrets::Kept;
use self::slots::Slots;
use self::watch::Watch;
use crate::args::Options;
use crate::collections::random::Random;
use crate::config::{Backend, Config, Gone, Listen, Member, Plan, Purpose};
use crate::limits::{JSON_BYTES, PAIR_SETTLE_US, SUSPECTS_LOOK_US};
use crate::log::Level;
use crate::metrics::{Block, Global};
use crate::process::exit::{Failure, USAGE};
use crate::process::journal::Journal;
use crate::process::service::notify::Notify;
use crate::reactor::Reactor;
use crate::shared::Region;
use crate::sys::{self, clock};

/// The state before an upgrade, unless the region has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Previous {
    /// The addresses that had a slot.
    pub(super) members: Vec<Member>,
    /// The addresses that had had a slot.
    pub(super) gone: Vec<Gone>,
    /// The bytes of the secrets: of the program before an upgrade, or as root has read them.
    pub(super) secrets: Option<Vec<u8>>,
}

/// The tokens of the poller.
const FILE: u64 = 0;

/// The state of these duties.
pub(super) struct Duties {
    /// The options of the command line and the environment.
    options: Options,
    config: Config,
    region: Region,
    slots: Slots,
    random: Random,
    reactor: Reactor,
    watch: Option<Watch>,
    /// `None` if no backend has a name.
    names: Option<Names>,
    /// The addresses of names before an upgrade. They hold until the names are resolved again.
    before: Vec<Member>,
    /// The plan before an upgrade, until this program serves.
    plan_before: Option<Vec<u8>>,
    /// The secrets that hold, and the doubts about their files.
    kept: Kept,
    notify: Notify,
    /// The address for clients.
    address: SocketAddr,
    /// The purposes for which a service manager has opened the listeners. The program opens no others for them.
    activated: Vec<Purpose>,
    /// The number of times that the authorities' certificates were read again.
    authorities: u64,
    /// True once all workers accept.
    serving: bool,
    journal: Journal,
    /// True if a plan was published and the workers are not yet notified.
    published: bool,
    /// The slots of addresses that names have led to, by the plan that holds.
    looked_up: Vec<(u16, String)>,
    /// Names that have more addresses than their share of the room.
    cut: Vec<String>,
    /// When it is looked next whether any of them does not work, in microseconds.
    suspects_us: u64,
    /// The time of the next attempt to make the plan, in microseconds, if there was no room for it; otherwise
    /// `u64::MAX`.
    publish_us: u64,
    /// A reload needs an upgrade, which nothing prevents.
    wants_upgrade: bool,
    /// A file's contents that are taken up later.
    postponed: Option<(Vec<u8>, Later)>,
}

impl Duties {
    /// Begins the duties, and publishes the first plan. `contents`: of the configuration file. `address`: for
    /// clients.
    pub(super) fn begin(
        config: Config,
        options: Options,
        contents: Option<Vec<u8>>,
        address: SocketAddr,
        region: Region,
        previous: Previous,
    ) -> Result<Duties, Failure> {
        let reactor = Reactor::new().map_err(Failure::of("wait for events"))?;
        let now_us = clock::monotonic_us();
        let mut duties = Duties {
            options,
            journal: Journal::new(config.loglevel),
            slots: Slots::new(region.balance(), region.owners(), region.slots()),
            random: Random::new(clock::unix_us()),
            config,
            region,
            reactor,
            watch: None,
            names: None,
            before: Vec::new(),
            plan_before: region.table().read().1,
            kept: Kept::default(),
            notify: Notify::from_env(),
            address,
            activated: Vec::new(),
            authorities: 0,
            serving: false,
            published: false,
            looked_up: Vec::new(),
            suspects_us: 0,
            cut: Vec::new(),
            publish_us: u64::MAX,
            wants_upgrade: false,
            postponed: None,
        };
        let plan = duties.plan_before.as_deref().and_then(Plan::decode);
        let Previous { members, gone, secrets: previous_secrets } = previous;
        let (members, gone) = plan.map_or((members, gone), |plan| (plan.members, plan.gone));
        if region.owners().load(Relaxed) > 0 {
            duties.slots.resume(&members, gone, now_us);
            duties.before = members;
        }
        if let Some((path, contents)) = duties.config.file.clone().zip(contents) {
            duties
                .follow_file(path, Some(contents), JSON_BYTES)
                .map_err(Failure::of("watch the configuration file"))?;
        }
        duties.begin_secrets(previous_secrets).map_err(|problem| Failure::new(USAGE, problem))?;
        duties.begin_cookie_key().map_err(|problem| Failure::new(USAGE, problem))?;
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

    /// Follows a file too, whose contents are known; `None` if it cannot be read.
    fn follow_file(&mut self, path: PathBuf, contents: Option<Vec<u8>>, most: usize) -> io::Result<()> {
        let now_us = clock::monotonic_us();
        if self.watch.is_none() {
            let watch = Watch::new();
            if let Some(fd) = watch.fd() {
                self.reactor.watch(fd, FILE)?;
            }
            if watch.is_polling() {
                let text = format_args!("the system tells of no changes: files are looked at once a second");
                self.journal.line(Level::Warn, "config", text);
            }
            self.watch = Some(watch);
        }
        self.watch.iter_mut().for_each(|watch| watch.add(path.clone(), contents.clone(), most, now_us));
        Ok(())
    }

    /// Sets the names to resolve: those of the backends and of these additional ones.
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

    /// Handles the events of the last poll.
    fn take_events(&mut self) {
        let now_us = clock::monotonic_us();
        let mut at = 0;
        while let Some(event) = self.reactor.event(at) {
            at += 1;
            if event.token != FILE {
                self.names.iter_mut().for_each(|names| names.on_event(event, now_us));
            } else if let Some(watch) = &mut self.watch {
                watch.ready(now_us);
            }
        }
    }

    /// Has the names looked up again that led to addresses which do not work, or whose backends were taken out.
    fn look_up_suspects(&mut self, now_us: u64) {
        let Some(names) = self.names.as_mut().filter(|_| self.suspects_us <= now_us) else { return };
        self.suspects_us = now_us.saturating_add(SUSPECTS_LOOK_US);
        let cells = self.region.balance();
        if cells.take_suspects() {
            let suspects = self.looked_up.iter().filter(|(slot, _)| cells.take_suspect(usize::from(*slot)));
            suspects.for_each(|(_, name)| names.suspect(name, now_us));
        }
    }

    /// Handles the names. Returns true if an address has changed.
    fn attend_names(&mut self, now_us: u64) -> bool {
        let globals = self.globals();
        let Some(names) = &mut self.names else { return false };
        names.expire(now_us);
        names.carry_out(&self.reactor, &mut self.journal, globals, now_us)
    }

    /// True if a plan was published since the last call.
    pub(super) fn take_published(&mut self) -> bool {
        std::mem::take(&mut self.published)
    }

    /// Sets the purposes for which a service manager has opened the listeners.
    pub(super) fn set_activated(&mut self, activated: Vec<Purpose>) {
        self.activated = activated;
        // The first listener is there without an option.
        let further: Vec<Listen> = self.config.listen.iter().skip(1).copied().collect();
        self.tell_unopened(&further);
    }

    /// True if a reload since the last call needs an upgrade, which nothing prevents.
    pub(super) fn take_wants_upgrade(&mut self) -> bool {
        std::mem::take(&mut self.wants_upgrade)
    }

    /// Notifies the service manager that all workers accept.
    pub(super) fn serving(&mut self) {
        self.serving = true;
        self.plan_before = None;
        self.forget_secrets();
        let count = self.config.backends.len();
        let plural = if count == 1 { "" } else { "s" };
        self.notify.ready(format_args!("serving {count} backend{plural} at {}", self.address));
    }

    /// Gives the upgrade up: the plan before holds again.
    pub(super) fn take_back(&self) {
        if let Some(bytes) = &self.plan_before {
            self.region.table().publish(bytes);
        }
        self.take_back_secrets();
    }

    /// Another program is about to take over.
    pub(super) fn upgrading(&mut self) {
        self.notify.reloading();
    }

    /// The process has begun to end.
    pub(super) fn stopping(&mut self) {
        self.notify.stopping();
    }

    /// The counters of these duties.
    pub(super) fn globals(&self) -> Block {
        self.region.globals()
    }

    /// The configuration that holds.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }
}

impl Duties {
    /// The descriptor to poll for readability.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.reactor.fd()
    }

    /// The time of the next `turn` without an event, in microseconds.
    pub(super) fn next_us(&self) -> u64 {
        let file_us = self.watch.as_ref().map_or(u64::MAX, Watch::next_deadline_us);
        let names_us = self.names.as_ref().map_or(u64::MAX, Names::next_us);
        let suspects_us = if self.looked_up.is_empty() { u64::MAX } else { self.suspects_us };
        let names_us = names_us.min(suspects_us);
        let later_us = self.postponed.as_ref().map_or(u64::MAX, |(_, later)| later.at_us).min(self.publish_us);
        file_us.min(names_us).min(later_us).min(self.secrets_us()).min(self.notify.next_us())
    }

    /// Does everything that is due. Errors are those of the poller.
    pub(super) fn turn(&mut self) -> io::Result<()> {
        self.reactor.poll(0)?;
        match sys::take_lost() {
            0 => {}
            lost => self.globals().add_global(Global::LogLost, lost),
        }
        self.take_events();
        let now_us = clock::monotonic_us();
        self.notify.beat(now_us);
        self.look_up_suspects(now_us);
        if self.attend_names(now_us) || self.publish_us <= now_us {
            self.publish_again();
        }
        while let Some((path, change)) = self.watch.as_mut().and_then(|watch| watch.expire(now_us)) {
            if self.config.file.as_ref() == Some(&path) {
                self.on_change(change);
            } else if self.is_secret(&path) {
                self.on_secret_change(Some(&path), PAIR_SETTLE_US);
            }
        }
        if self.secrets_us() <= now_us {
            self.expire_secrets(now_us);
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
}

#[cfg(test)]
mod tests;
