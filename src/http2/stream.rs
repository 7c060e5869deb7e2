//! One stream: its state (RFC 9113, 5.1) and its windows (5.2).

use crate::collections::slab::Key;
use crate::limits::H2_WINDOW_MAX_BYTES;

/// The state of a stream (RFC 9113, 5.1). A closed stream is removed at once. Nothing is pushed, so that none is
/// reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has a number, and the peer does not know of it.
    Idle,
    Open,
    /// We have sent END_STREAM.
    HalfClosedLocal,
    /// The peer has sent END_STREAM.
    HalfClosedRemote,
    Closed,
}

impl State {
    /// True if we may send more of the message.
    pub(super) fn can_send(self) -> bool {
        matches!(self, State::Idle | State::Open | State::HalfClosedRemote)
    }

    /// True if the peer may send more of its message.
    pub(super) fn can_receive(self) -> bool {
        matches!(self, State::Open | State::HalfClosedLocal)
    }

    /// The state after a frame that we sent. `end`: it has END_STREAM.
    pub(super) fn after_sent(self, end: bool) -> State {
        match (self, end) {
            (State::Idle, false) => State::Open,
            (State::Idle | State::Open, true) => State::HalfClosedLocal,
            (State::HalfClosedRemote, true) => State::Closed,
            (state, _) => state,
        }
    }

    /// The state after an END_STREAM from the peer.
    pub(super) fn after_end(self) -> State {
        match self {
            State::Idle | State::Open => State::HalfClosedRemote,
            State::HalfClosedLocal => State::Closed,
            state => state,
        }
    }
}

/// A stream that is not closed.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    /// The owner's key; `None` until the stream has an owner.
    pub(super) owner: Option<Key>,
    pub(super) state: State,
    /// The head of the peer's message has arrived.
    pub(super) has_head: bool,
    /// The stream is in the line of those with something to send.
    pub(super) in_line: bool,
    /// The bytes that we may send; negative if the peer has reduced the initial window (RFC 9113, 6.9.2).
    pub(super) send_window: i64,
    /// The bytes that the peer may send.
    pub(super) receive_window: u32,
    /// The bytes that were delivered and are not credited to the peer yet.
    pub(super) delivered: u32,
    /// The size of the receive window when everything is delivered and credited.
    pub(super) window: u32,
}

/// The growth that a window may have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spare {
    /// A smaller window grows to this size at once.
    pub free: u32,
    /// A window that is not smaller grows by at most this.
    pub lent: u32,
}

impl Stream {
    pub(super) fn new(id: u32, state: State, send_window: u32, window: u32) -> Stream {
        Stream {
            id,
            owner: None,
            state,
            has_head: false,
            in_line: false,
            send_window: send_window.into(),
            receive_window: window,
            delivered: 0,
            window,
        }
    }

    /// Takes the credit that is due to the peer, once it is at least half the window. Returns the increment of the
    /// window, and the part of it that comes from `spare`.
    pub(super) fn credit(&mut self, spare: Spare) -> Option<(u32, u32)> {
        if !self.state.can_receive() || self.delivered < self.window / 2 {
            return None;
        }
        let free = spare.free.saturating_sub(self.window);
        let growth = if free > 0 { 0 } else { self.window.min(H2_WINDOW_MAX_BYTES - self.window).min(spare.lent) };
        let increment = std::mem::take(&mut self.delivered) + free + growth;
        self.window += free + growth;
        self.receive_window += increment;
        Some((increment, growth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{H2_BACKEND_WINDOW_BYTES, H2_WINDOW_BYTES};

    #[test]
    fn the_states_follow_the_diagram_of_the_rfc() {
        let sent = |state: State| (state.after_sent(false), state.after_sent(true));
        assert_eq!(sent(State::Idle), (State::Open, State::HalfClosedLocal));
        assert_eq!(sent(State::Open), (State::Open, State::HalfClosedLocal));
        assert_eq!(sent(State::HalfClosedRemote), (State::HalfClosedRemote, State::Closed));
        assert_eq!(sent(State::HalfClosedLocal), (State::HalfClosedLocal, State::HalfClosedLocal));
        assert_eq!(State::Open.after_end(), State::HalfClosedRemote);
        assert_eq!(State::HalfClosedLocal.after_end(), State::Closed);
        for (state, sends, receives) in [
            (State::Idle, true, false),
            (State::Open, true, true),
            (State::HalfClosedLocal, false, true),
            (State::HalfClosedRemote, true, false),
            (State::Closed, false, false),
        ] {
            assert_eq!((state.can_send(), state.can_receive()), (sends, receives), "{state:?}");
        }
    }

    #[test]
    fn a_window_is_credited_by_halves_and_grows_if_nothing_waits() {
        let lent = |lent| Spare { free: 0, lent };
        let mut stream = Stream::new(1, State::Open, 0, H2_WINDOW_BYTES);
        let take = |stream: &mut Stream, n: u32| {
            stream.receive_window -= n;
            stream.delivered += n;
        };
        take(&mut stream, H2_WINDOW_BYTES / 2 - 1);
        assert_eq!(stream.credit(lent(u32::MAX)), None);
        take(&mut stream, 1);
        assert_eq!(stream.credit(lent(0)), Some((H2_WINDOW_BYTES / 2, 0)));
        assert_eq!(stream.receive_window, H2_WINDOW_BYTES);
        take(&mut stream, H2_WINDOW_BYTES);
        assert_eq!(stream.credit(lent(5)), Some((H2_WINDOW_BYTES + 5, 5)));
        let mut all = 5;
        for _ in 0..20 {
            let window = stream.window;
            take(&mut stream, window);
            all += stream.credit(lent(u32::MAX)).unwrap().1;
        }
        assert_eq!((stream.window, stream.receive_window), (H2_WINDOW_MAX_BYTES, H2_WINDOW_MAX_BYTES));
        assert_eq!(all, H2_WINDOW_MAX_BYTES - H2_WINDOW_BYTES);
        let mut small = Stream::new(3, State::Open, 0, H2_BACKEND_WINDOW_BYTES);
        let free = Spare { free: H2_WINDOW_BYTES, lent: 5 };
        for (window, growth) in [(H2_WINDOW_BYTES, 0), (H2_WINDOW_BYTES + 5, 5), (H2_WINDOW_BYTES + 10, 5)] {
            let before = small.window;
            take(&mut small, before);
            assert_eq!(small.credit(free), Some((window, growth)));
            assert_eq!((small.window, small.receive_window), (window, window));
        }
        stream.state = stream.state.after_end();
        take(&mut stream, H2_WINDOW_MAX_BYTES);
        assert_eq!(stream.credit(lent(u32::MAX)), None);
    }
}
