//! The log of a process that writes few lines: each is written at once.

use std::fmt;

use crate::config::Plan;
use crate::log::{Level, Log};
use crate::shared::Region;
use crate::sys::{self, clock};

/// A future log line: its module and text.
pub(in crate::process) type Line = (&'static str, String);

/// A log whose lines are written at once, for processes that have few to say.
pub(in crate::process) struct Journal {
    log: Log,
}

impl Journal {
    pub(in crate::process) fn new(level: Level) -> Journal {
        Journal { log: Log::new(level) }
    }

    pub(in crate::process) fn set_level(&mut self, level: Level) {
        self.log.set_level(level);
    }

    /// From now on it keeps the lines that the plan in the region says.
    pub(in crate::process) fn follow(&mut self, region: Region) {
        if let Some(plan) = region.table().read().1.and_then(|bytes| Plan::decode(&bytes)) {
            self.set_level(plan.loglevel);
        }
    }

    pub(in crate::process) fn line(&mut self, level: Level, module: &str, text: fmt::Arguments<'_>) {
        self.log.set_clock(clock::unix_us());
        self.log.line(level, module, text);
        sys::write_stderr(self.log.text());
        self.log.clear();
    }

    pub(in crate::process) fn greet(&mut self, greeting: &[Line]) {
        for (module, text) in greeting {
            self.line(Level::Info, module, format_args!("{text}"));
        }
    }
}
