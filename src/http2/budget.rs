//! Limits on the work that a peer causes without progress (CVE-2019-9512 to 9518, CVE-2023-44487, CVE-2024-27316,
//! CVE-2025-8671).
//!
//! There are two budgets. A frame without progress costs one of `idle`; messages, content and time earn them
//! back. In the server role a request that ends without its response costs one of `resets`, regardless of the
//! side that resets it; a complete response and time earn them back. Content does not, because it would pay for a flood.
//!
//! These frames cost nothing, because our own actions bound them: a WINDOW_UPDATE for bytes that were
//! sent, a backend's reset of a stream that we opened, and the frames that were on their way when a stream
//! was closed.

use super::Error;
use super::frame::ErrorCode;
use crate::limits::{
    H2_CROSSING_FRAMES, H2_IDLE_FRAMES, H2_IDLE_FRAMES_EARNED, H2_LATE_FRAMES, H2_LATE_FRAMES_RESET, H2_REFILL_US,
    H2_RESETS, H2_RESETS_EARNED,
};

/// The credit of one peer.
#[derive(Debug)]
pub(super) struct Budget {
    idle: u32,
    /// Negative if `forget` has spent more credit than there was. The next frame then ends the connection.
    resets: i32,
    /// Bytes of content that were sent and that no WINDOW_UPDATE has returned: on the connection, and on its streams
    /// together.
    sent: u64,
    sent_on_streams: u64,
    /// Frames that may still come for streams that we have reset.
    late: u32,
    /// Resets that may still come for streams that both sides have closed.
    crossing: u32,
    /// Bytes of content that may still come for streams that we have reset.
    late_bytes: u64,
    /// The time up to which credit was earned, in microseconds; 0 before the first.
    refilled_us: u64,
}

impl Budget {
    pub(super) fn new() -> Budget {
        Budget {
            idle: H2_IDLE_FRAMES,
            resets: H2_RESETS,
            sent: 0,
            sent_on_streams: 0,
            late: 0,
            crossing: 0,
            late_bytes: 0,
            refilled_us: 0,
        }
    }

    /// Earns credit for the time that has passed: a PING every few seconds is no flood.
    pub(super) fn refill(&mut self, now_us: u64) {
        let elapsed = now_us.saturating_sub(self.refilled_us) / H2_REFILL_US;
        if elapsed == 0 {
            return;
        }
        if self.refilled_us > 0 {
            let earned = elapsed.min(H2_IDLE_FRAMES.into()) as u32;
            self.idle = (self.idle + earned).min(H2_IDLE_FRAMES);
            self.resets = (self.resets + earned as i32).min(H2_RESETS);
        }
        self.refilled_us = now_us;
    }

    /// Charges a frame without progress.
    pub(super) fn spend(&mut self) -> Result<(), Error> {
        self.idle = self.idle.checked_sub(1).ok_or(CALM)?;
        Ok(())
    }

    /// Earns credit for progress.
    pub(super) fn earn(&mut self) {
        self.idle = (self.idle + H2_IDLE_FRAMES_EARNED).min(H2_IDLE_FRAMES);
    }

    /// Earns credit for a complete response of the server.
    pub(super) fn responded(&mut self) {
        self.earn();
        self.resets = (self.resets + H2_RESETS_EARNED).min(H2_RESETS);
    }

    /// Charges a request that the client made end without its response.
    pub(super) fn spend_reset(&mut self) {
        self.resets = self.resets.saturating_sub(1);
    }

    /// Fails if the budget is used up.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.resets < 0 { Err(CALM) } else { Ok(()) }
    }

    /// Accounts for content that was sent in a frame.
    pub(super) fn sent(&mut self, length: usize) {
        self.earn();
        self.sent += length as u64;
        self.sent_on_streams += length as u64;
    }

    /// Charges a WINDOW_UPDATE. It is free for bytes that were sent. A larger one enlarges a window and leaves
    /// the account unchanged, because the updates for these bytes may still arrive.
    pub(super) fn update(&mut self, of_stream: bool, increment: u32) -> Result<(), Error> {
        let sent = if of_stream { &mut self.sent_on_streams } else { &mut self.sent };
        match sent.checked_sub(increment.into()) {
            Some(rest) if increment > 0 => *sent = rest,
            _ => self.spend()?,
        }
        Ok(())
    }

    /// Accounts for our reset of a stream on which the peer may still send this many bytes.
    pub(super) fn stream_reset(&mut self, window: u32) {
        self.late = (self.late + H2_LATE_FRAMES_RESET).min(H2_LATE_FRAMES);
        self.late_bytes += u64::from(window);
    }

    /// Allows for a reset of a stream that both sides have just ended.
    pub(super) fn stream_ended(&mut self) {
        self.crossing = (self.crossing + 1).min(H2_CROSSING_FRAMES);
    }

    /// Charges a reset of a closed stream.
    pub(super) fn late_reset(&mut self) -> Result<(), Error> {
        match self.crossing.checked_sub(1) {
            Some(rest) => self.crossing = rest,
            None => self.late()?,
        }
        Ok(())
    }

    /// Charges fields or an end on a closed stream.
    pub(super) fn late(&mut self) -> Result<(), Error> {
        match self.late.checked_sub(1) {
            Some(rest) => self.late = rest,
            None => self.spend()?,
        }
        Ok(())
    }

    /// Charges content on a closed stream.
    pub(super) fn late_content(&mut self, length: u32) -> Result<(), Error> {
        match self.late_bytes.checked_sub(length.into()) {
            Some(rest) => self.late_bytes = rest,
            None => self.spend()?,
        }
        Ok(())
    }
}

const CALM: Error =
    Error { code: ErrorCode::ENHANCE_YOUR_CALM, reason: "too many frames that move nothing on", is_limit: false };

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
    fn window_updates_for_bytes_that_were_sent_are_free_whatever_their_size() {
        let mut budget = Budget::new();
        budget.sent(16 * 1024);
        for _ in 0..16 * 1024 {
            budget.update(false, 1).unwrap();
            budget.update(true, 1).unwrap();
        }
        assert_eq!(budget.idle, H2_IDLE_FRAMES);
        for _ in 0..H2_IDLE_FRAMES {
            budget.update(true, 1).unwrap();
        }
        assert_eq!(budget.update(false, 1).unwrap_err().code, ErrorCode::ENHANCE_YOUR_CALM);
        budget.sent(512);
        budget.update(false, 513).unwrap();
        budget.update(false, 512).unwrap();
        assert_eq!(budget.idle, H2_IDLE_FRAMES_EARNED - 1, "the growth costs one, the return nothing");
        assert!(budget.update(false, 0).is_ok() && budget.idle == H2_IDLE_FRAMES_EARNED - 2, "nothing is no return");
    }

    #[test]
    fn time_earns_credit_but_no_more_than_a_peer_begins_with() {
        let mut budget = Budget::new();
        budget.refill(5 * H2_REFILL_US);
        (0..H2_IDLE_FRAMES).for_each(|_| budget.spend().unwrap());
        (0..H2_RESETS).for_each(|_| budget.spend_reset());
        budget.refill(6 * H2_REFILL_US - 1);
        assert_eq!((budget.idle, budget.resets), (0, 0));
        budget.refill(8 * H2_REFILL_US);
        assert_eq!((budget.idle, budget.resets), (3, 3));
        budget.refill(u64::MAX);
        assert_eq!((budget.idle, budget.resets), (H2_IDLE_FRAMES, H2_RESETS));
    }

    #[test]
    fn only_frames_sent_before_a_reset_are_free() {
        let mut budget = Budget::new();
        budget.stream_reset(100);
        (0..H2_LATE_FRAMES_RESET).for_each(|_| budget.late().unwrap());
        (0..100).for_each(|_| budget.late_content(1).unwrap());
        budget.stream_ended();
        budget.late_reset().unwrap();
        assert_eq!(budget.idle, H2_IDLE_FRAMES);
        budget.late_reset().unwrap();
        budget.late().unwrap();
        budget.late_content(1).unwrap();
        assert_eq!(budget.idle, H2_IDLE_FRAMES - 3);
    }
}
