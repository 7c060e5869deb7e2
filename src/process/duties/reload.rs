//! Following the configuration file: its new contents are taken up whole, later, or not at all.

use std::fmt;

use super::Duties;
use super::plan::{Later, NO_ROOM, Unpublished};
use crate::config::{self, Changes, Config, Listen, Purpose};
use crate::limits::SECOND_US;
use crate::log::Level;
use crate::metrics::Global;
use crate::process::duties::watch::Change;
use crate::process::start::listen;
use crate::sys::clock;
use crate::tls;

impl Duties {
    /// HUP has come.
    pub(in crate::process) fn hang_up(&mut self) {
        let now_us = clock::monotonic_us();
        if let Some(names) = &mut self.names {
            names.refresh(now_us);
        }
        let (renewed, edition) = (self.renew_authorities(), self.region.table().edition());
        let has_certificate = self.config.tls.has_certificate();
        if has_certificate {
            self.read_secrets_again();
        }
        let reloads = self.globals().get_global(Global::ReloadsDone);
        let watched = self.watch.as_mut().zip(self.config.file.as_ref());
        match watched.and_then(|(watch, path)| watch.read_now(path, now_us)) {
            Some(Ok(contents)) => self.on_change(Change::Contents(contents)),
            Some(Err(error)) => self.on_change(Change::Unreadable(error)),
            None if renewed => {}
            None if has_certificate => {
                self.journal.line(Level::Info, "tls", format_args!("HUP: certificates and keys are read again"));
            }
            None if self.names.is_some() => {
                self.journal.line(Level::Info, "config", format_args!("HUP: names are looked up again"));
            }
            None => self.journal.line(Level::Info, "config", format_args!("HUP: there is nothing to read again")),
        }
        // A reload has read it.
        if self.globals().get_global(Global::ReloadsDone) == reloads {
            self.reload_cookie_key();
        }
        if renewed && self.region.table().edition() == edition {
            self.publish_again();
        }
    }

    pub(super) fn on_change(&mut self, change: Change) {
        let told = self.postponed.take().is_some_and(|(_, later)| later.names.is_empty());
        match change {
            Change::Contents(contents) => self.reload(contents, told),
            Change::Unreadable(error) => self.refuse([format!("{}: {error}", self.path())]),
        }
    }

    pub(super) fn path(&self) -> String {
        self.config.file.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }

    /// Uses the file's new contents, or refuses them as a whole, or delays them. A lack of room is logged
    /// unless it was already (`told`).
    pub(super) fn reload(&mut self, contents: Vec<u8>, told: bool) {
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

    /// Uses the file's contents, or refuses them (`None`). Otherwise returns the condition for which they wait.
    pub(super) fn try_reload(&mut self, contents: &[u8]) -> Option<Later> {
        let mut config = match self.read(contents) {
            Ok(config) => config,
            Err(problems) => {
                self.refuse(problems);
                return None;
            }
        };
        let added = config::added_listeners(&config, &self.config);
        let fixed = config::keep_fixed(&mut config, &self.config);
        // If anything else waits for an upgrade, its time is the user's decision.
        let opens = fixed == ["listen"] && !added.is_empty() && !self.is_activated();
        let tried = if opens { try_listeners(&added) } else { Ok(()) };
        let tried = tried.and_then(|()| self.try_secrets(&config.tls)).and_then(|()| self.try_cookie_key(&config));
        if let Err(problem) = tried {
            self.refuse([problem]);
            return None;
        }
        let before = std::mem::replace(&mut self.config, config);
        // Until it is known which configuration holds, the names of both are followed.
        let wanted = self.want_names(&before.backends);
        // Names in the hosts table are resolved at once.
        let now_us = clock::monotonic_us();
        let moved = self.attend_names(now_us);
        let wanted = wanted.map_err(|error| Unpublished::Never(format!("cannot look names up: {error}")));
        // Those that serve stay until it is known whether others can.
        let known = wanted.and_then(|()| self.awaited(now_us).map_or(Ok(()), |later| Err(Unpublished::Later(later))));
        let later = match known.and_then(|()| self.publish()) {
            Ok(()) => {
                self.tell_reloaded(&before, &fixed, opens);
                self.tell_unopened(&added);
                self.reload_secrets(before.tls != self.config.tls);
                self.reload_cookie_key();
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
            // A failure to look up the additional names does not prevent the others.
            let _ = self.want_names(&[]);
        }
        later
    }

    /// The configuration with the file's contents, or the errors.
    pub(super) fn read(&self, contents: &[u8]) -> Result<Config, Vec<String>> {
        let options = config::file::read(contents, &self.path(), self.options.clone()).map_err(lines)?;
        let config = config::resolve(options).map_err(lines)?;
        if has_tls(&config) && !has_tls(&self.config) {
            self.try_tls().map_err(|problem| vec![problem])?;
        }
        Ok(config)
    }

    /// Tries whether workers can create the shared data of backend sessions; the error is the reason.
    pub(super) fn try_tls(&self) -> Result<(), String> {
        let Config { ca_file, insecure, tls_trace, .. } = &self.config;
        tls::client::configure(ca_file.as_deref(), *insecure, *tls_trace).map(drop)
    }

    /// Makes the workers read the CA certificates again with the next plan. Returns true if they will.
    pub(super) fn renew_authorities(&mut self) -> bool {
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

    /// `opens`: an upgrade follows, which opens more listeners.
    fn tell_reloaded(&mut self, before: &Config, fixed: &[&str], opens: bool) {
        self.journal.set_level(self.config.loglevel);
        self.globals().add_global(Global::ReloadsDone, 1);
        self.globals().set_global(Global::LastReload, 1);
        self.globals().set_global(Global::LastReloadAt, clock::unix_us() / SECOND_US);
        // The upgrade changes these.
        let kept = if opens { &[] } else { fixed };
        // These do not apply, after an upgrade either.
        let is_moot = |name: &str| self.is_activated() && ["port", "host", "listen"].contains(&name);
        let later: Vec<&str> = kept.iter().copied().filter(|name| !is_moot(name)).collect();
        let changes = Changes::between(before, &self.config, kept, &later);
        let level = if changes.are_incomplete() { Level::Warn } else { Level::Info };
        let text = format!("{}: {changes}", self.path());
        self.journal.line(level, "config", format_args!("{text}"));
        if opens {
            self.wants_upgrade = true;
            let text = "listeners were added, and none was removed: an upgrade opens them now";
            self.journal.line(Level::Info, "config", format_args!("{text}"));
        }
    }

    /// True if the listeners for clients are those of a service manager.
    fn is_activated(&self) -> bool {
        self.activated.contains(&Purpose::Traffic)
    }

    /// `added`: listeners that the configuration has, and the one before, if there is one, had not.
    pub(super) fn tell_unopened(&mut self, added: &[Listen]) {
        let added = added.iter().filter(|listen| self.is_activated() && listen.purpose == Purpose::Traffic);
        let addresses: Vec<String> = added.map(|listen| listen.address.to_string()).collect();
        if !addresses.is_empty() {
            let addresses = addresses.join(", ");
            let text = format_args!("not listened on: {addresses}: LISTEN_FDS has the listeners for clients");
            self.journal.line(Level::Warn, "config", text);
        }
    }

    pub(super) fn refuse(&mut self, problems: impl IntoIterator<Item = String>) {
        self.globals().add_global(Global::ReloadsRefused, 1);
        self.globals().set_global(Global::LastReload, 0);
        for problem in problems {
            self.journal.line(Level::Err, "config", format_args!("{problem}"));
        }
        self.journal.line(Level::Err, "config", format_args!("refused: the configuration before stays"));
    }
}

/// Tries whether this process can listen at these addresses; the error is the reason.
fn try_listeners(listens: &[Listen]) -> Result<(), String> {
    listens.iter().try_for_each(|&listen| listen::open(listen, 1).map(drop)).map_err(|failure| failure.message)
}

fn has_tls(config: &Config) -> bool {
    config.backends.iter().any(|backend| backend.tls)
}

fn lines<T: fmt::Display>(errors: Vec<T>) -> Vec<String> {
    errors.iter().map(T::to_string).collect()
}
