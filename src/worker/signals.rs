//! The signals that a worker gets.

use std::io;

use super::Worker;
use crate::sys;
use crate::sys::signal::Signal;

impl Worker<'_> {
    pub(super) fn take_signals(&mut self) -> io::Result<()> {
        while let Some(signal) = self.signals.take() {
            match signal {
                Signal::Terminate | Signal::Interrupt => self.terminate(),
                Signal::Retire => self.retire(),
                Signal::Child => match &mut self.companion {
                    Some(companion) => companion.child_ended(),
                    None => sys::fork::reap_all(),
                },
                // The loop looks at the plan in every turn.
                Signal::Look => self.watch_spares(),
                Signal::Hangup => {
                    if let Some(companion) = &mut self.companion {
                        companion.hang_up();
                    }
                }
                Signal::Upgrade => {
                    if let Some(companion) = &mut self.companion {
                        companion.upgrade();
                    }
                }
                // Without effect: there is no file of log.
                Signal::Reopen => {}
            }
        }
        Ok(())
    }
}
