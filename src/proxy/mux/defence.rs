//! The end of a mux because of its client: each GOAWAY is counted by its reason. A fault of the client is one log
//! line with a tally of its frames, and so is the GOAWAY that precedes it, because the client may leave then.

use super::super::Proxy;
use super::super::record::Cause;
use crate::collections::slab::Key;
use crate::http2::frame::Kind;
use crate::http2::{self, ErrorCode};
use crate::metrics::Count;

/// The reason for a GOAWAY to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goodbye {
    /// The proxy drains.
    Drain,
    /// The mux has served many requests.
    Requests,
    /// Most of a budget for frames or resets is spent.
    Strained,
    /// The mux had no streams for too long.
    Idle,
    /// The client's fault, or a limit.
    Fault(http2::Cause),
}

impl Goodbye {
    fn count(self) -> Count {
        match self {
            Goodbye::Drain => Count::H2GoawayDrain,
            Goodbye::Requests => Count::H2GoawayRequests,
            Goodbye::Strained => Count::H2GoawayStrained,
            Goodbye::Idle => Count::H2GoawayIdle,
            Goodbye::Fault(http2::Cause::Protocol) => Count::H2GoawayProtocol,
            Goodbye::Fault(http2::Cause::Limit) => Count::H2GoawayLimit,
            Goodbye::Fault(http2::Cause::Resets) => Count::H2GoawayResets,
            Goodbye::Fault(http2::Cause::Provoked) => Count::H2GoawayProvoked,
            Goodbye::Fault(http2::Cause::Unread) => Count::H2GoawayUnread,
            Goodbye::Fault(http2::Cause::Windows) => Count::H2GoawayWindows,
            Goodbye::Fault(http2::Cause::Flood(kind)) => match kind {
                Kind::Data => Count::H2GoawayData,
                Kind::Headers => Count::H2GoawayHeaders,
                Kind::Priority => Count::H2GoawayPriority,
                Kind::RstStream => Count::H2GoawayResets,
                Kind::Settings => Count::H2GoawaySettings,
                Kind::Ping => Count::H2GoawayPing,
                Kind::WindowUpdate => Count::H2GoawayWindowUpdate,
                Kind::Continuation => Count::H2GoawayContinuation,
                Kind::Goaway | Kind::PushPromise | Kind::Unknown => Count::H2GoawayOther,
            },
        }
    }
}

impl Proxy {
    pub(super) fn count_goodbye(&self, reason: Goodbye) {
        self.shared.block.add(reason.count(), 1);
    }

    /// Counts and logs a fault of a client, for which its mux ends.
    pub(super) fn note_client_fault(&mut self, key: Key, error: http2::Error) {
        self.count_goodbye(Goodbye::Fault(error.cause));
        self.log_goodbye(key, error.reason, error.code);
    }

    /// Logs a GOAWAY because of the client's frames, with a tally of them.
    pub(super) fn log_goodbye(&mut self, key: Key, reason: &'static str, code: ErrorCode) {
        let cause = Cause::Http2(reason);
        if !self.admits_line((None, cause, false)) {
            return;
        }
        let Some(mux) = self.connections.get(key).and_then(|one| one.codec.mux()) else { return };
        let (client, tally) = (self.client_text(key), mux.h2.tally());
        let text = format_args!("{client}: {reason}: GOAWAY {code} after {tally}");
        self.log.line(cause.level(), "client", text);
    }

    /// Counts the end of a client's stream by a reset. `code`: that of the proxy; `None` if the client reset it.
    pub(super) fn count_reset(&self, code: Option<ErrorCode>) {
        let count = match code {
            None => Count::H2ResetsClient,
            Some(ErrorCode::REFUSED_STREAM) => Count::H2ResetsLimit,
            Some(ErrorCode::ENHANCE_YOUR_CALM) => Count::H2ResetsBudget,
            Some(_) => Count::H2ResetsProxy,
        };
        self.shared.block.add(count, 1);
    }
}
