//! USR2: the process becomes the program in the file that it was started from. Every listener stays open, and every
//! connection is served to its end.
//!
//! ```text
//! Idle ──USR2──▶ Asked: the file runs as a child, and is asked whether it could take over
//!   ▲              │ it says so: the process becomes it, and its workers take the old ones' place
//!   └──────────────┘ anything else, or nothing for too long: this is logged, and nothing has changed
//! ```
//!
//! The child loads the configuration, the certificates' roots and the account, and tries the new addresses, the shared
//! memory and the plan. It answers with a line on its stdout, because any other program may exit with status 0. A child
//! that does not know form 3 of the handover is asked again in form 2.

mod form2;
pub mod handover;
pub(super) mod inherited;
pub(super) mod old_memory;
pub(super) mod old_workers;
pub(super) mod rollback;

use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use self::handover::{Form, Handover, QUESTION, UNKNOWN_FORM, VARIABLE};
use crate::args::Options;
use crate::config::{Backend, Config, Plan, Purpose};
use crate::limits::{PREFLIGHT_TEXT_BYTES, PREFLIGHT_US, SECOND_US};
use crate::log::Level;
use crate::metrics::{Block, Global};
use crate::process::duties::{Duties, Previous};
use crate::process::exit::{FAILED, Failure, USAGE};
use crate::process::journal::Journal;
use crate::process::start::memory::share_memory;
use crate::process::start::worker_count;
use crate::process::start::{account, listen};
use crate::shared::Region;
use crate::sys::exec::Program;
use crate::sys::fork::{self, Ended, Pid};
use crate::tls;

/// The state of upgrading.
pub(super) struct Upgrade {
    program: Option<Program>,
    globals: Option<Block>,
    asked: Option<Asked>,
    /// The form of the handover, once the file has answered that it could take over.
    approved: Option<Form>,
    /// True if USR2 came during another upgrade.
    again: bool,
}

/// A child that is asked.
struct Asked {
    form: Form,
    /// The question in form 2, for a program that does not know form 3.
    in_form_2: Option<String>,
    pid: Pid,
    said: UnixStream,
    complained: UnixStream,
    /// When it has taken too long, in microseconds.
    until_us: u64,
    /// It has.
    late: bool,
}

impl Upgrade {
    /// Creates the idle state. `again`: an upgrade is requested. `globals`: the block that counts refused
    /// upgrades.
    pub(super) fn new(globals: Option<Block>, again: bool) -> Upgrade {
        Upgrade { program: Program::started(), globals, asked: None, approved: None, again }
    }

    /// Handles USR2. During an upgrade, another one follows it.
    pub(super) fn ask_for(&mut self) {
        self.again = true;
    }

    /// True if an upgrade is to begin as soon as possible.
    pub(super) fn is_wanted(&self) -> bool {
        self.again && self.asked.is_none() && self.approved.is_none()
    }

    /// True if an upgrade was asked for after the one under way.
    pub(super) fn is_wanted_again(&self) -> bool {
        self.again
    }

    /// Asks the file whether it could take over the state in `left`.
    pub(super) fn begin(&mut self, left: &Handover, journal: &mut Journal, now_us: u64) {
        self.again = false;
        let Some(program) = &self.program else {
            return self.refuse(journal, "the file that this program was started from is not known");
        };
        let path = program.path().display();
        journal.line(Level::Info, "upgrade", format_args!("asking {path} whether it can take over"));
        self.ask(Form::Three, &left.to_string(), left.in_form_2(), now_us + PREFLIGHT_US, journal);
    }

    /// Asks the file in a form. `in_form_2`: the question for a program that does not know form 3.
    fn ask(&mut self, form: Form, question: &str, in_form_2: Option<String>, until_us: u64, journal: &mut Journal) {
        let Some(program) = &self.program else { return };
        match ask(program, question) {
            Ok((pid, said, complained)) => {
                self.asked = Some(Asked { form, in_form_2, pid, said, complained, until_us, late: false });
            }
            Err(error) => self.refuse(journal, &format!("{} cannot be run: {error}", program.path().display())),
        }
    }

    /// The time of the next `expire`, in microseconds.
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

    /// Handles the end of a child. Returns true if it was the preflight.
    pub(super) fn on_child_exit(&mut self, dead: Pid, ended: Ended, journal: &mut Journal) -> bool {
        let Some(asked) = self.asked.take_if(|asked| asked.pid == dead) else { return false };
        let path = self.program.as_ref().map(|program| program.path().display().to_string()).unwrap_or_default();
        let (said, complaint) = (text_of(asked.said), text_of(asked.complained));
        // There may be warnings before it.
        let told = complaint.lines().find_map(|line| line.strip_prefix("load_balancer: "));
        let first = told.or(complaint.lines().next()).unwrap_or_default();
        if asked.late {
            let seconds = PREFLIGHT_US / SECOND_US;
            self.refuse(journal, &format!("{path} did not say within {seconds} s whether it can take over"));
        } else if ended == Ended::Status(0) && said.lines().next() == Some(asked.form.answer()) {
            self.approved = Some(asked.form);
        } else if let (UNKNOWN_FORM, Some(question)) = (first, asked.in_form_2) {
            self.ask(Form::Two, &question, None, asked.until_us, journal);
        } else if ended == Ended::Status(0) {
            self.refuse(journal, &format!("{path} is no load_balancer that can take over from this one"));
        } else if first.is_empty() {
            self.refuse(journal, &format!("{path} ended: {ended}"));
        } else {
            self.refuse(journal, &format!("{path} says: {first} ({ended})"));
        }
        true
    }

    /// Returns the form of the handover if the file may take over now. Returns it once.
    pub(super) fn take_approved(&mut self) -> Option<Form> {
        self.approved.take()
    }

    /// True if the file may take over now.
    pub(super) fn is_approved(&self) -> bool {
        self.approved.is_some()
    }

    /// Becomes the program in the file, with a handover of this form. Returns only if that fails, and then nothing has
    /// changed.
    pub(super) fn exec(&self, form: Form, left: &Handover, kept: &[BorrowedFd<'_>], journal: &mut Journal) {
        let line = match form {
            Form::Two => left.in_form_2(),
            Form::Three => Some(left.to_string()),
        };
        if let (Some(program), Some(line)) = (&self.program, line) {
            let error = program.exec((VARIABLE, &line), kept);
            self.refuse(journal, &format!("{} cannot be run: {error}", program.path().display()));
        }
    }

    /// Says why there is no upgrade, and counts it.
    pub(super) fn refuse(&self, journal: &mut Journal, why: &str) {
        if let Some(globals) = self.globals {
            globals.add_global(Global::UpgradesRefused, 1);
        }
        // The text of a program has at most `PREFLIGHT_TEXT_BYTES`, and the log escapes it.
        journal.line(Level::Err, "upgrade", format_args!("refused: {why}; this program goes on"));
    }

    /// Ends the child that is asked, as everything ends.
    pub(super) fn abandon(&mut self) {
        self.again = false;
        if let Some(asked) = self.asked.take() {
            fork::kill(asked.pid);
        }
    }
}

/// Runs the file with the question. Errors are those of running it.
fn ask(program: &Program, question: &str) -> io::Result<(Pid, UnixStream, UnixStream)> {
    let (said, out) = UnixStream::pair()?;
    let (complained, err) = UnixStream::pair()?;
    // There is nothing to read for it; and there may be no /dev/null, in a container of one file.
    let (input, _) = UnixStream::pair()?;
    said.set_nonblocking(true)?;
    complained.set_nonblocking(true)?;
    let mut command = program.command((QUESTION, question), VARIABLE)?;
    command.stdin(OwnedFd::from(input)).stdout(OwnedFd::from(out)).stderr(OwnedFd::from(err));
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok((Pid::of_child(pid), said, complained))
}

/// The output of a child that has ended.
fn text_of(mut from: UnixStream) -> String {
    let mut bytes = vec![0; PREFLIGHT_TEXT_BYTES];
    let mut length = 0;
    // The descriptor is non-blocking: output of the child's own children is not awaited.
    while let Some(room) = bytes.get_mut(length..).filter(|room| !room.is_empty()) {
        match from.read(room) {
            Ok(0) | Err(_) => break,
            Ok(n) => length += n,
        }
    }
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// Answers the preflight question. Errors are the reasons why this program could not take over.
pub(super) fn could_take_over(question: &str, config: &Config) -> Result<&'static str, String> {
    let (Some(form), Some(left)) = (Form::of(question), Handover::parse(question)) else {
        return Err(UNKNOWN_FORM.to_owned());
    };
    try_all(&left, config).map(|()| form.answer()).map_err(|failure| failure.message)
}

fn try_all(left: &Handover, config: &Config) -> Result<(), Failure> {
    config.user.as_deref().map(account::look_up).transpose()?;
    if config.backends.iter().any(|backend| backend.tls) {
        tls::client::configure(config.ca_file.as_deref(), config.insecure, config.tls_trace)
            .map_err(|error| Failure::new(USAGE, error))?;
    }
    let activated = left.listeners.iter().filter(|held| held.is_activated);
    let activated: Vec<Purpose> = activated.map(|held| held.listen.purpose).collect();
    for &wanted in config.listen.iter().filter(|wanted| !activated.contains(&wanted.purpose)) {
        if !left.listeners.iter().any(|held| listen::is_same_place(held.listen, wanted)) {
            listen::try_beside(&left.listeners, wanted, worker_count(config))?;
        }
    }
    try_plan(left, config)
}

/// Tries whether there is memory to share, and whether the plan fits into it.
fn try_plan(left: &Handover, config: &Config) -> Result<(), Failure> {
    let count = worker_count(config);
    // The plan is published in private memory, because the memory of the running program is only read.
    let own = Region::private();
    let owners = inherited::left_owners(left);
    match inherited::left_memory(left, count) {
        Some(memory) => own.copy_plan(memory.region),
        None => drop(share_memory(inherited::records(count))?),
    }
    let mut config = config.clone();
    if config.demo && !left.demo.is_empty() {
        config.backends = left.demo.iter().map(|&address| Backend::at(address)).collect();
    }
    let is_known = owners.is_some();
    let (members, gone) = owners.unwrap_or_default();
    let previous = Previous { members, gone, secrets: inherited::left_secrets(left) };
    let address = config.listen[0].address;
    drop(Duties::begin(config, Options::default(), None, address, own, previous)?);
    let plan = own.table().read().1.and_then(|bytes| Plan::decode(&bytes));
    if !is_known && plan.is_some_and(|plan| plan.members.is_empty()) {
        let text = "no backend's name can be looked up, and the addresses of before cannot be taken over";
        return Err(Failure::new(FAILED, text.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Address, Host, Member, Target};
    use crate::limits::DNS_NAME_BYTES;
    use crate::sys::shm::Segment;

    #[test]
    fn it_cannot_take_over_what_it_would_lead_nowhere() {
        let segment = Segment::create(Region::bytes(1)).unwrap();
        // It is longer than a name can be, so that no server is asked.
        let name = "a".repeat(DNS_NAME_BYTES);
        let target = Target::Tcp(Host::Name(name.clone()), 80);
        let backend = Backend { name, target, ..Backend::at(([127, 0, 0, 1], 80).into()) };
        let mut config = config::resolve(Options::default()).unwrap();
        config.backends = vec![backend.clone()];
        let could = || try_plan(&Handover::of(segment.id()), &config).map_err(|failure| failure.message);
        assert!(could().unwrap_err().contains("the addresses of before cannot be taken over"));
        let region = Region::new(segment.cells());
        let plan = |members: Vec<Member>| Plan::new(&config, 0, members, Vec::new()).encode();
        let address = Address::Tcp(([127, 0, 0, 1], 80).into());
        for members in [vec![Member::new(&backend, address, false)], Vec::new()] {
            assert!(region.table().publish(&plan(members)));
            // A name without addresses before the upgrade may stay so.
            assert_eq!(could(), Ok(()));
        }
    }
}
