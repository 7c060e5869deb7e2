//! Limits on the work that a peer causes without progress (CVE-2019-9512 to 9518, CVE-2023-44487, CVE-2024-27316,
//! CVE-2025-8671).
//!
//! There are three budgets. A frame without progress costs one of `idle`; messages, content and time earn them
//! back. In the server role a reset by the client costs one of `resets`, which only time earns back, and a reset that
//! the client makes us send costs one of `provoked`, which nothing earns back.
//!
//! These frames cost nothing, because our own actions bound them: a WINDOW_UPDATE for bytes that were
//! sent, a backend's reset of a stream that we opened, and the frames that were on their way when a stream
//! was closed.

use super::frame::{ErrorCode, Kind};
use super::{Cause, Error};
use crate::limits::{
    H2_CROSSING_FRAMES, H2_IDLE_FRAMES, H2_IDLE_FRAMES_EARNED, H2_LATE_FRAMES, H2_LATE_FRAMES_RESET,
    H2_PROVOKED_RESETS, H2_REFILL_US, H2_RESET_REFILL_US, H2_RESETS,
};

/// The credit of one peer.
#[derive(Debug)]
pub(super) struct Budget {
    idle: u32,
    resets: u32,
    provoked: u32,
    /// The budget that was overdrawn while no frame was read. The next frame ends the connection.
    overdrawn: Option<Cause>,
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
    /// The same for resets.
    resets_refilled_us: u64,
}

impl Budget {
    pub(super) fn new() -> Budget {
        Budget {
            idle: H2_IDLE_FRAMES,
            resets: H2_RESETS,
            provoked: H2_PROVOKED_RESETS,
            overdrawn: None,
            sent: 0,
            sent_on_streams: 0,
            late: 0,
            crossing: 0,
            late_bytes: 0,
            refilled_us: 0,
            resets_refilled_us: 0,
        }
    }

    /// Earns credit for the time that has passed: a PING every few seconds is no flood.
    pub(super) fn refill(&mut self, now_us: u64) {
        let elapsed = |since_us: u64, each_us: u64| now_us.saturating_sub(since_us) / each_us;
        let frames = elapsed(self.refilled_us, H2_REFILL_US);
        if frames > 0 {
            if self.refilled_us > 0 {
                self.idle = (self.idle + frames.min(H2_IDLE_FRAMES.into()) as u32).min(H2_IDLE_FRAMES);
            }
            self.refilled_us = now_us;
        }
        let resets = elapsed(self.resets_refilled_us, H2_RESET_REFILL_US);
        if self.resets_refilled_us == 0 {
            self.resets_refilled_us = now_us;
        } else if resets > 0 {
            self.resets = (self.resets + resets.min(H2_RESETS.into()) as u32).min(H2_RESETS);
            // The rest of the time counts for the next one.
            self.resets_refilled_us += resets * H2_RESET_REFILL_US;
        }
    }

    /// Names the budget of which three quarters are spent, for the log; `None` if there is none.
    pub(super) fn strain(&self) -> Option<&'static str> {
        match () {
            () if self.resets < H2_RESETS / 4 => Some("many resets by the client"),
            () if self.provoked < H2_PROVOKED_RESETS / 4 => Some("many streams that the client makes us reset"),
            () if self.idle < H2_IDLE_FRAMES / 4 => Some("many frames without progress"),
            () => None,
        }
    }

    /// Charges a frame without progress.
    pub(super) fn spend(&mut self, kind: Kind) -> Result<(), Error> {
        self.idle = self.idle.checked_sub(1).ok_or(calm(Cause::Flood(kind)))?;
        Ok(())
    }

    /// Earns credit for progress.
    pub(super) fn earn(&mut self) {
        self.idle = (self.idle + H2_IDLE_FRAMES_EARNED).min(H2_IDLE_FRAMES);
    }

    /// Charges a reset by the client.
    pub(super) fn spend_reset(&mut self) {
        match self.resets.checked_sub(1) {
            Some(rest) => self.resets = rest,
            None => self.overdrawn = Some(Cause::Resets),
        }
    }

    /// Charges a reset that the client makes us send.
    pub(super) fn spend_provoked(&mut self) {
        match self.provoked.checked_sub(1) {
            Some(rest) => self.provoked = rest,
            None => self.overdrawn = Some(Cause::Provoked),
        }
    }

    /// Charges a frame with a few bytes of content, because the client's window admits no more. It earned nothing.
    pub(super) fn dribbled(&mut self) {
        match self.idle.checked_sub(1 + H2_IDLE_FRAMES_EARNED) {
            Some(rest) => self.idle = rest,
            None => self.overdrawn = Some(Cause::Windows),
        }
    }

    /// Fails if a budget is overdrawn.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.overdrawn.map_or(Ok(()), |cause| Err(calm(cause)))
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
            _ => self.spend(Kind::WindowUpdate)?,
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
            None => self.late(Kind::RstStream)?,
        }
        Ok(())
    }

    /// Charges fields or an end on a closed stream.
    pub(super) fn late(&mut self, kind: Kind) -> Result<(), Error> {
        match self.late.checked_sub(1) {
            Some(rest) => self.late = rest,
            None => self.spend(kind)?,
        }
        Ok(())
    }

    /// Charges content on a closed stream.
    pub(super) fn late_content(&mut self, length: u32) -> Result<(), Error> {
        match self.late_bytes.checked_sub(length.into()) {
            Some(rest) => self.late_bytes = rest,
            None => self.spend(Kind::Data)?,
        }
        Ok(())
    }
}

/// The error of a connection whose peer has overdrawn a budget.
fn calm(cause: Cause) -> Error {
    let reason = match cause {
        Cause::Resets => "too many streams reset by the client",
        Cause::Provoked => "too many streams that the client makes us reset",
        Cause::Windows => "windows of a few bytes",
        Cause::Flood(Kind::Data) => "too many DATA frames without progress",
        Cause::Flood(Kind::Headers) => "too many HEADERS frames without progress",
        Cause::Flood(Kind::Priority) => "too many PRIORITY frames without progress",
        Cause::Flood(Kind::RstStream) => "too many RST_STREAM frames without progress",
        Cause::Flood(Kind::Settings) => "too many SETTINGS frames without progress",
        Cause::Flood(Kind::Ping) => "too many PING frames without progress",
        Cause::Flood(Kind::WindowUpdate) => "too many WINDOW_UPDATE frames without progress",
        Cause::Flood(Kind::Continuation) => "too many CONTINUATION frames without progress",
        _ => "too many frames without progress",
    };
    Error { code: ErrorCode::ENHANCE_YOUR_CALM, reason, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_earns_what_idle_frames_cost_and_a_flood_ends_it() {
        let mut budget = Budget::new();
        for _ in 0..H2_IDLE_FRAMES {
            for _ in 0..H2_IDLE_FRAMES_EARNED {
                budget.spend(Kind::Ping).unwrap();
            }
            budget.earn();
        }
        for _ in 0..H2_IDLE_FRAMES {
            budget.spend(Kind::Ping).unwrap();
        }
        assert_eq!(budget.spend(Kind::Ping).unwrap_err().code, ErrorCode::ENHANCE_YOUR_CALM);
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
        (0..H2_IDLE_FRAMES).for_each(|_| budget.spend(Kind::Ping).unwrap());
        (0..H2_RESETS).for_each(|_| budget.spend_reset());
        assert!(budget.check().is_ok() && budget.strain().is_some());
        budget.refill(5 * H2_REFILL_US + H2_RESET_REFILL_US - 1);
        assert_eq!((budget.idle, budget.resets), (0, 0));
        budget.refill(8 * H2_REFILL_US);
        assert_eq!((budget.idle, budget.resets), (3, 9));
        budget.refill(u64::MAX);
        assert_eq!((budget.idle, budget.resets), (H2_IDLE_FRAMES, H2_RESETS));
    }

    #[test]
    fn only_frames_sent_before_a_reset_are_free() {
        let mut budget = Budget::new();
        budget.stream_reset(100);
        (0..H2_LATE_FRAMES_RESET).for_each(|_| budget.late(Kind::Headers).unwrap());
        (0..100).for_each(|_| budget.late_content(1).unwrap());
        budget.stream_ended();
        budget.late_reset().unwrap();
        assert_eq!(budget.idle, H2_IDLE_FRAMES);
        budget.late_reset().unwrap();
        budget.late(Kind::Headers).unwrap();
        budget.late_content(1).unwrap();
        assert_eq!(budget.idle, H2_IDLE_FRAMES - 3);
    }
}
