//! Runs a configuration as processes, and returns an exit status.
//!
//! Everything that can fail is tried before the first fork: the account, the descriptor limit, the listeners.
//! Then:
//!
//! ```text
//! mp   master ── waits for signals and deaths, keeps every listener open for respawns
//! ├─ worker 0 .. N-1, each with one listener and a poll loop of its own
//! └─ demo backends, with --demo
//! sp   one process that runs the same loop; the demo backends are its only children
//! ```
//!
//! Invariants: a child is forked by a process with one thread; it closes inherited descriptors that it does not
//! need; it dies with the process that forked it (PDEATHSIG), so no orphan is left.

mod check;
mod child;
mod demo;
mod duties;
mod exit;
mod journal;
pub mod service;
mod start;
mod supervision;
pub mod upgrade;

use crate::args::Options;
use crate::config::{Config, Mode};
use crate::dns::hosts::Hosts;
use crate::log::Level;
use crate::sys;

pub use self::check::{Checked, check};
use self::duties::names;
use self::exit::USAGE;
use self::journal::Journal;
pub use self::service::healthcheck::healthcheck;
use self::start::start;
use self::supervision::master::Master;
use self::supervision::single;
use self::upgrade::handover;
use self::upgrade::inherited::Inherited;
use self::upgrade::rollback::{self, RollbackSupervisor};

/// Runs until a signal or a failure ends it. Returns the exit status: 0 drained, 1 failed or requests were cut,
/// 2 an invalid configuration (an unknown user). Errors are logged on stderr. `options` are the options from
/// outside the configuration file, and `contents` is that file, if there is one: it is followed.
pub fn run(config: Config, options: Options, contents: Option<Vec<u8>>) -> u8 {
    let mut journal = Journal::new(config.loglevel);
    for remark in &options.remarks {
        journal.line(Level::Warn, "config", format_args!("{remark}"));
    }
    let inherited = Inherited::find(&mut journal);
    match start(&inherited, config, options, contents) {
        Ok((parts, greeting)) => match parts.duties.config().mode {
            Mode::Mp => Master::new(parts, inherited).run(&greeting),
            Mode::Sp => single::run(parts, inherited, &greeting),
        },
        Err(failure) => end_or_take_care(inherited, journal, &[failure.message], failure.status),
    }
}

/// Ends a program that cannot start for these reasons, which are logged on stderr. Returns the exit status. If
/// it has already become the process of another program, it supervises that program's workers, and returns when
/// they have ended.
pub fn refuse(problems: &[String]) -> u8 {
    let mut journal = Journal::new(Level::Info);
    let inherited = Inherited::find(&mut journal);
    end_or_take_care(inherited, journal, problems, USAGE)
}

fn end_or_take_care(inherited: Inherited, mut journal: Journal, problems: &[String], status: u8) -> u8 {
    let Some(left) = inherited.into_left() else {
        let text: String = problems.iter().map(|problem| format!("load_balancer: {problem}\n")).collect();
        sys::write_stderr(text.as_bytes());
        return status;
    };
    let first = problems.first().map_or("it is not known why", String::as_str);
    let why = format!("the new program cannot start: {first}");
    let signals = rollback::signals(&mut journal);
    RollbackSupervisor::new(left, Vec::new(), signals, journal, &why).run()
}

/// The preflight question of a running program; `None` if there is none.
pub fn question() -> Option<String> {
    std::env::var(handover::QUESTION).ok()
}

/// The table of hosts of this system.
pub fn hosts() -> Hosts {
    names::system_hosts()
}

/// Tries whether this program could take over from the one that asks, and returns the answer. Errors are the
/// reasons why not. Nothing keeps running.
pub fn could_take_over(question: &str, config: &Config) -> Result<&'static str, String> {
    upgrade::could_take_over(question, config)
}
