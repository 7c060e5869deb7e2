//! The state of the reader of a connection: its position, and the field block that it collects.

use super::Error;

/// The position in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Before a client's first frame.
    Preface,
    Frame,
    /// In a DATA frame: the remaining content, the remaining padding, and its END_STREAM.
    Data {
        stream: u32,
        left: u32,
        padding: u32,
        end: bool,
    },
    /// In a frame that is skipped.
    Skip(u32),
    /// Between a frame and the event of its END_STREAM.
    End(u32),
    /// After input above a limit that cannot be skipped.
    Over(Error),
}

/// An incomplete field block.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) end: bool,
    pub(super) frames: u32,
    pub(super) bytes: Vec<u8>,
}
