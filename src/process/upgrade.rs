//! USR2: making the file that this program was started from, whatever it is by now, this process's
//! program, with every listener open and every connection served on.
//!
//! ```text
//! Idle ──USR2──▶ Asked: the file runs as a child, and is asked whether it could take over
//!   ▲              │ it says so: the process becomes it, and its workers take the old ones' place
//!   └──────────────┘ anything else, or nothing for too long: one line says what, and nothing has changed
//! ```
//!
//! What is asked loads the configuration, the certificates' roots and the account, and tries the
//! addresses that are new. It says by a line on its stdout that it could, for any program would do as
//! exit status 0 goes.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::handover::{ANSWER, Handover, QUESTION, VARIABLE};
use super::{Failure, Journal, USAGE, account, listen, worker_count};
use crate::config::Config;
use crate::limits::{PREFLIGHT_TEXT_BYTES, PREFLIGHT_US};
use crate::log::Level;
use crate::metrics::{Block, Global};
use crate::sys::exec::Program;
use crate::sys::fork::{self, Ended, Pid};
use crate::tls;

/// The state of upgrading.
pub(super) struct Upgrade {
    program: Option<Program>,
    globals: Block,
    asked: Option<Asked>,
    /// It said that it could take over.
    approved: bool,
    /// USR2 came while another upgrade was under way.
    again: bool,
}

/// A child that is asked.
struct Asked {
    pid: Pid,
    said: UnixStream,
    complained: UnixStream,
    /// When it has taken too long, in microseconds.
    until_us: u64,
    /// It has.
    late: bool,
}

impl Upgrade {
    /// None is under way. `globals`: where those are counted that are refused.
    pub(super) fn new(globals: Block) -> Upgrade {
        Upgrade { program: Program::started(), globals, asked: None, approved: false, again: false }
    }

    /// USR2 has come. Where an upgrade is under way, another follows it.
    pub(super) fn ask_for(&mut self) {
        self.again = true;
    }

    /// Whether one is to begin as soon as it can.
    pub(super) fn is_wanted(&self) -> bool {
        self.again && self.asked.is_none() && !self.approved
    }

    /// Whether one was asked for after the one under way.
    pub(super) fn is_wanted_again(&self) -> bool {
        self.again
    }

    /// Asks the file whether it could take over what `left` says.
    pub(super) fn begin(&mut self, left: &Handover, journal: &mut Journal, now_us: u64) {
        self.again = false;
        let Some(program) = &self.program else {
            return refuse(journal, self.globals, "it is not known which file this program was started from");
        };
        let path = program.path().display();
        match ask(program, left) {
            Ok((pid, said, complained)) => {
                journal.line(Level::Info, "upgrade", format_args!("asking {path} whether it can take over"));
                let until_us = now_us + PREFLIGHT_US;
                self.asked = Some(Asked { pid, said, complained, until_us, late: false });
            }
            Err(error) => refuse(journal, self.globals, &format!("{path} cannot be run: {error}")),
        }
    }

    /// When `expire` is to be called, in microseconds.
    pub(super) fn next_us(&self) -> u64 {
        self.asked.as_ref().filter(|asked| !asked.late).map_or(u64::MAX, |asked| asked.until_us)
    }

    /// Ends a child that takes too long. Its end is heard of as any other's.
    pub(super) fn expire(&mut self, now_us: u64) {
        if let Some(asked) = &mut self.asked
            && now_us >= asked.until_us
        {
            asked.late = true;
            fork::kill(asked.pid);
        }
    }

    /// A child has ended; whether it was the one that is asked.
    pub(super) fn heed(&mut self, dead: Pid, ended: Ended, journal: &mut Journal) -> bool {
        let Some(asked) = self.asked.take_if(|asked| asked.pid == dead) else { return false };
        let path = self.program.as_ref().map(|program| program.path().display().to_string()).unwrap_or_default();
        let (said, complaint) = (text_of(asked.said), text_of(asked.complained));
        let first = complaint.lines().next().unwrap_or_default();
        let first = first.strip_prefix("load_balancer: ").unwrap_or(first);
        if asked.late {
            refuse(
                journal,
                self.globals,
                &format!("{path} did not say within {} s whether it can take over", PREFLIGHT_US / 1_000_000),
            );
        } else if ended == Ended::Status(0) && said.lines().next() == Some(ANSWER) {
            self.approved = true;
        } else if ended == Ended::Status(0) {
            refuse(journal, self.globals, &format!("{path} is no load_balancer that can take over from this one"));
        } else if first.is_empty() {
            refuse(journal, self.globals, &format!("{path} ended: {ended}"));
        } else {
            refuse(journal, self.globals, &format!("{path} says: {first} ({ended})"));
        }
        true
    }

    /// Whether the file may take over now; it is told once.
    pub(super) fn take_approved(&mut self) -> bool {
        std::mem::take(&mut self.approved)
    }

    /// Whether the file may take over now.
    pub(super) fn is_approved(&self) -> bool {
        self.approved
    }

    /// Becomes the file's program. Returns only where that fails: nothing has changed then.
    pub(super) fn become_it(&self, left: &Handover, kept: &[std::os::fd::BorrowedFd<'_>], journal: &mut Journal) {
        if let Some(program) = &self.program {
            let error = program.become_it((VARIABLE, &left.to_string()), kept);
            refuse(journal, self.globals, &format!("{} cannot be run: {error}", program.path().display()));
        }
    }

    /// Says that an upgrade failed for want of something.
    pub(super) fn refuse(&self, journal: &mut Journal, error: &io::Error) {
        refuse(journal, self.globals, &format!("this process cannot be copied: {error}"));
    }

    /// Ends the child that is asked, as everything ends.
    pub(super) fn abandon(&mut self) {
        self.again = false;
        if let Some(asked) = self.asked.take() {
            fork::kill(asked.pid);
        }
    }
}

fn refuse(journal: &mut Journal, globals: Block, why: &str) {
    globals.add_global(Global::UpgradesRefused, 1);
    journal.line(Level::Err, "upgrade", format_args!("refused: {}; this program goes on", crate::args::Shown(why)));
}

/// Runs the file with the question. Errors are those of running it.
fn ask(program: &Program, left: &Handover) -> io::Result<(Pid, UnixStream, UnixStream)> {
    let (said, out) = UnixStream::pair()?;
    let (complained, err) = UnixStream::pair()?;
    // There is nothing to read for it; and there may be no /dev/null, in a container of one file.
    let (input, _) = UnixStream::pair()?;
    said.set_nonblocking(true)?;
    complained.set_nonblocking(true)?;
    let arguments: Vec<OsString> = program.arguments().to_vec();
    let mut command = Command::new(program.path());
    if let Some((name, others)) = arguments.split_first() {
        command.arg0(name).args(others);
    }
    command.env_remove(VARIABLE).env(QUESTION, left.to_string());
    command.stdin(OwnedFd::from(input)).stdout(OwnedFd::from(out)).stderr(OwnedFd::from(err));
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok((Pid::of_child(pid), said, complained))
}

/// What a child that has ended had written.
fn text_of(mut from: UnixStream) -> String {
    let mut bytes = vec![0; PREFLIGHT_TEXT_BYTES];
    let mut length = 0;
    // It is non-blocking: what a child's child may still write is not waited for.
    while let Some(room) = bytes.get_mut(length..).filter(|room| !room.is_empty()) {
        match from.read(room) {
            Ok(0) | Err(_) => break,
            Ok(n) => length += n,
        }
    }
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// What is asked of a program that is to take over: whether it could. Errors are why it could not.
pub(super) fn could_take_over(question: &str, config: &Config) -> Result<(), String> {
    let Some(left) = Handover::parse(question) else {
        return Err("the program that runs hands over in a form that this one does not know".to_owned());
    };
    try_all(&left, config).map_err(|failure| failure.message)
}

fn try_all(left: &Handover, config: &Config) -> Result<(), Failure> {
    config.user.as_deref().map(account::look_up).transpose()?;
    if config.backends.iter().any(|backend| backend.tls) {
        tls::client(config.ca_file.as_deref(), config.insecure, config.tls_trace)
            .map_err(|error| Failure::new(USAGE, error))?;
    }
    if !left.activated && !is_same_place(left.address, config.listen) {
        drop(listen::open(config.listen, worker_count(config))?);
    }
    if let Some(address) = config.admin
        && !left.admin.is_some_and(|(_, held)| is_same_place(held, address))
    {
        drop(listen::open(address, 1)?);
    }
    Ok(())
}

/// Whether what listens at one address does what another asks for: port 0 is any.
pub(super) fn is_same_place(held: std::net::SocketAddr, wanted: std::net::SocketAddr) -> bool {
    held.ip() == wanted.ip() && (wanted.port() == 0 || wanted.port() == held.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_port_is_the_one_that_is_held() {
        let at = |text: &str| text.parse().unwrap();
        assert!(is_same_place(at("127.0.0.1:80"), at("127.0.0.1:80")));
        assert!(is_same_place(at("127.0.0.1:4711"), at("127.0.0.1:0")));
        assert!(!is_same_place(at("127.0.0.1:80"), at("127.0.0.1:81")));
        assert!(!is_same_place(at("127.0.0.1:80"), at("0.0.0.0:80")));
    }
}
