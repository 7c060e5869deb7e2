//! What a peer may have us do for nothing. Each frame that moves no message on costs one; messages
//! and content earn some back, so that an honest peer never runs out, and a flood of PINGs, empty
//! frames, resets or settings soon does (CVE-2019-9512 to 9518, CVE-2023-44487). What we send is paid
//! for by WINDOW_UPDATEs, which have a budget of their own as long as they come for no less than
//! `H2_UPDATE_BYTES` each.

use super::Error;
use super::frame::ErrorCode;
use crate::limits::{H2_IDLE_FRAMES, H2_IDLE_FRAMES_EARNED, H2_UPDATE_BYTES, H2_UPDATES};

/// What is left.
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    /// WINDOW_UPDATEs that content sent has paid for.
    updates: u32,
}

impl Budget {
    pub(super) fn new() -> Budget {
        Budget { left: H2_IDLE_FRAMES, updates: 0 }
    }

    /// A frame came that moves nothing on.
    pub(super) fn spend(&mut self) -> Result<(), Error> {
        self.left = self
            .left
            .checked_sub(1)
            .ok_or(Error::new(ErrorCode::ENHANCE_YOUR_CALM, "too many frames that move nothing on"))?;
        Ok(())
    }

    /// Something was moved on.
    pub(super) fn earn(&mut self) {
        self.left = (self.left + H2_IDLE_FRAMES_EARNED).min(H2_IDLE_FRAMES);
    }

    /// Content was sent in a frame, which the peer will tell us that it has taken: on the stream and on
    /// the connection, piece by piece.
    pub(super) fn sent(&mut self, length: usize) {
        self.earn();
        self.updates = (self.updates + 2 + 2 * length as u32 / H2_UPDATE_BYTES).min(H2_UPDATES);
    }

    /// A WINDOW_UPDATE came.
    pub(super) fn update(&mut self) -> Result<(), Error> {
        match self.updates.checked_sub(1) {
            Some(left) => self.updates = left,
            None => self.spend()?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_earns_what_idle_frames_cost_and_a_flood_ends_it() {
        let mut budget = Budget::new();
        for _ in 0..H2_IDLE_FRAMES {
            for _ in 0..H2_IDLE_FRAMES_EARNED {
                budget.spend().unwrap();
            }
            budget.earn();
        }
        for _ in 0..H2_IDLE_FRAMES {
            budget.spend().unwrap();
        }
        assert_eq!(budget.spend().unwrap_err().code, ErrorCode::ENHANCE_YOUR_CALM);
    }
    #[test]
    fn window_updates_are_paid_for_by_what_was_sent() {
        let mut budget = Budget::new();
        budget.sent(16 * 1024);
        for _ in 0..2 + 2 * 16 * 1024 / H2_UPDATE_BYTES {
            budget.update().unwrap();
        }
        assert_eq!(budget.left, H2_IDLE_FRAMES);
        for _ in 0..H2_IDLE_FRAMES {
            budget.update().unwrap();
        }
        assert_eq!(budget.update().unwrap_err().code, ErrorCode::ENHANCE_YOUR_CALM);
        (0..1_000_000).for_each(|_| budget.sent(16 * 1024));
        assert_eq!(budget.updates, H2_UPDATES, "and no more can be saved up");
    }
}
