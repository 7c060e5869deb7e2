//! What a peer may have us do for nothing. Each frame that moves no message on costs one; messages
//! and content earn some back, so that an honest peer never runs out, and a flood of PINGs, empty
//! frames, resets or settings soon does (CVE-2019-9512 to 9518, CVE-2023-44487).

use super::Error;
use super::frame::ErrorCode;
use crate::limits::{H2_IDLE_FRAMES, H2_IDLE_FRAMES_EARNED};

/// What is left.
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
}

impl Budget {
    pub(super) fn new() -> Budget {
        Budget { left: H2_IDLE_FRAMES }
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
}
