//! One stream: how far either direction has come, and what may still be sent on it (RFC 9113, 5.1
//! and 5.2).

use crate::collections::slab::Key;
use crate::limits::{H2_WINDOW_BYTES, H2_WINDOW_MAX_BYTES};

/// What a connection knows about a stream that is open. One that is not is gone.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    /// Whose it is; `None` until somebody has taken it.
    pub(super) owner: Option<Key>,
    /// The peer knows of it.
    pub(super) begun: bool,
    /// The head of the message that is received has come.
    pub(super) has_head: bool,
    /// The peer may send more.
    pub(super) receiving: bool,
    /// We may send more.
    pub(super) sending: bool,
    /// It is in the line of those with something to send.
    pub(super) in_line: bool,
    /// What the peer lets us send; negative after it has changed its mind (RFC 9113, 6.9.2).
    pub(super) send_window: i64,
    /// What the peer may still send.
    pub(super) receive_window: u32,
    /// What came and was delivered, and the peer was not told yet.
    pub(super) delivered: u32,
    /// How large the window is, when all is delivered.
    pub(super) window: u32,
}

impl Stream {
    pub(super) fn new(id: u32, send_window: u32) -> Stream {
        Stream {
            id,
            owner: None,
            begun: false,
            has_head: false,
            receiving: true,
            sending: true,
            in_line: false,
            send_window: send_window.into(),
            receive_window: H2_WINDOW_BYTES,
            delivered: 0,
            window: H2_WINDOW_BYTES,
        }
    }

    /// How much more the peer may be told that it may send, and how much of that is growth, `spare` bytes
    /// at most: half a window or more at once.
    pub(super) fn credit(&mut self, spare: u32) -> Option<(u32, u32)> {
        if !self.receiving || self.delivered < self.window / 2 {
            return None;
        }
        let growth = self.window.min(H2_WINDOW_MAX_BYTES - self.window).min(spare);
        let increment = std::mem::take(&mut self.delivered) + growth;
        self.window += growth;
        self.receive_window += increment;
        Some((increment, growth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_given_back_by_halves_and_grows_where_nothing_waits() {
        let mut stream = Stream::new(1, 0);
        let take = |stream: &mut Stream, n: u32| {
            stream.receive_window -= n;
            stream.delivered += n;
        };
        take(&mut stream, H2_WINDOW_BYTES / 2 - 1);
        assert_eq!(stream.credit(u32::MAX), None);
        take(&mut stream, 1);
        assert_eq!(stream.credit(0), Some((H2_WINDOW_BYTES / 2, 0)));
        assert_eq!(stream.receive_window, H2_WINDOW_BYTES);
        take(&mut stream, H2_WINDOW_BYTES);
        assert_eq!(stream.credit(5), Some((H2_WINDOW_BYTES + 5, 5)));
        let mut all = 5;
        for _ in 0..20 {
            let window = stream.window;
            take(&mut stream, window);
            all += stream.credit(u32::MAX).unwrap().1;
        }
        assert_eq!((stream.window, stream.receive_window), (H2_WINDOW_MAX_BYTES, H2_WINDOW_MAX_BYTES));
        assert_eq!(all, H2_WINDOW_MAX_BYTES - H2_WINDOW_BYTES);
        stream.receiving = false;
        take(&mut stream, H2_WINDOW_MAX_BYTES);
        assert_eq!(stream.credit(u32::MAX), None);
    }
}
