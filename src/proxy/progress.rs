//! The progress of the two messages of an exchange: its request and its response.

/// The progress of a message in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The head has not arrived.
    Waiting,
    /// The head has arrived, and the end has not.
    Flowing,
    /// The message is complete.
    Ended,
}
