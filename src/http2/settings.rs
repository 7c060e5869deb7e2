//! The settings of both sides (RFC 9113, 6.5).

use super::Error;
use super::frame::{self, ErrorCode, Kind, MAX_31};
use crate::limits::{
    H2_BACKEND_WINDOW_BYTES, H2_FRAME_BYTES, H2_LIST_BYTES, H2_STREAMS, H2_TABLE_BYTES, H2_WINDOW_BYTES,
};

/// The windows that streams and the connection begin with.
pub(super) const FIRST_WINDOW: u32 = 65_535;
/// The minimum and default of SETTINGS_MAX_FRAME_SIZE.
pub(super) const LEAST_FRAME_BYTES: u32 = 16_384;
const GREATEST_FRAME_BYTES: u32 = (1 << 24) - 1;

/// The default table size (RFC 9113, 6.5.2).
const FIRST_TABLE_BYTES: u32 = 4096;

const HEADER_TABLE_SIZE: u16 = 0x1;
const ENABLE_PUSH: u16 = 0x2;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
const MAX_FRAME_SIZE: u16 = 0x5;
const MAX_HEADER_LIST_SIZE: u16 = 0x6;
const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;

/// The peer's settings that concern us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// Streams that we may have open at once.
    pub(super) streams: u32,
    /// The window that a stream begins with.
    pub(super) window: u32,
    /// The longest payload of a frame.
    pub(super) frame: u32,
    /// The largest list of fields, each counted with 32 bytes more.
    pub(super) list: u32,
    /// The table size that the peer offers to our encoder.
    pub(super) table: u32,
    /// The table has become smaller, and our next block has to acknowledge that.
    pub(super) table_shrunk: bool,
    /// The peer accepts extended CONNECT (RFC 8441, 3).
    pub(super) connect: bool,
}

impl Settings {
    /// The settings before the peer's first SETTINGS frame.
    pub(super) const FIRST: Settings = Settings {
        streams: H2_STREAMS,
        window: FIRST_WINDOW,
        frame: LEAST_FRAME_BYTES,
        list: u32::MAX,
        table: FIRST_TABLE_BYTES,
        table_shrunk: false,
        connect: false,
    };

    /// Applies a SETTINGS frame.
    ///
    /// # Errors
    ///
    /// Invalid values are errors of the connection (RFC 9113, 6.5.2).
    pub(super) fn apply(&mut self, payload: &[u8], from_server: bool) -> Result<(), Error> {
        let (entries, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Error::new(ErrorCode::FRAME_SIZE_ERROR, "SETTINGS of a length that they cannot have"));
        }
        for &[k0, k1, v0, v1, v2, v3] in entries {
            let value = u32::from_be_bytes([v0, v1, v2, v3]);
            match u16::from_be_bytes([k0, k1]) {
                ENABLE_PUSH if value > 1 || value == 1 && from_server => {
                    return Err(Error::new(ErrorCode::PROTOCOL_ERROR, "invalid SETTINGS_ENABLE_PUSH"));
                }
                // Our own limit applies if the peer's is higher.
                MAX_CONCURRENT_STREAMS => self.streams = value.min(H2_STREAMS),
                INITIAL_WINDOW_SIZE if value > MAX_31 => {
                    return Err(Error::new(ErrorCode::FLOW_CONTROL_ERROR, "invalid SETTINGS_INITIAL_WINDOW_SIZE"));
                }
                INITIAL_WINDOW_SIZE => self.window = value,
                MAX_FRAME_SIZE if !(LEAST_FRAME_BYTES..=GREATEST_FRAME_BYTES).contains(&value) => {
                    return Err(Error::new(ErrorCode::PROTOCOL_ERROR, "invalid SETTINGS_MAX_FRAME_SIZE"));
                }
                MAX_FRAME_SIZE => self.frame = value,
                MAX_HEADER_LIST_SIZE => self.list = value,
                // A peer may not take its consent back (RFC 8441, 3).
                ENABLE_CONNECT_PROTOCOL if value > 1 || value == 0 && self.connect => {
                    return Err(Error::new(ErrorCode::PROTOCOL_ERROR, "invalid SETTINGS_ENABLE_CONNECT_PROTOCOL"));
                }
                ENABLE_CONNECT_PROTOCOL => self.connect = value == 1,
                HEADER_TABLE_SIZE => {
                    self.table_shrunk |= value < self.table;
                    self.table = value;
                }
                // Others are unknown to us (RFC 9113, 6.5.2).
                _ => {}
            }
        }
        Ok(())
    }
}

/// The part of our settings that a server chooses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    /// Streams that the client may have at once.
    pub(super) streams: u32,
    /// Extended CONNECT is accepted.
    pub(super) connect: bool,
}

/// Writes our settings. To a server they disable push; to a client they make the offer.
pub(super) fn write_ours(out: &mut Vec<u8>, to_server: bool, offer: Offer) {
    const { assert!(H2_FRAME_BYTES == LEAST_FRAME_BYTES as usize && H2_TABLE_BYTES == FIRST_TABLE_BYTES as usize) };
    let push = to_server.then_some((ENABLE_PUSH, 0));
    let streams = (!to_server).then_some((MAX_CONCURRENT_STREAMS, offer.streams));
    let connect = (!to_server && offer.connect).then_some((ENABLE_CONNECT_PROTOCOL, 1));
    let window = if to_server { H2_BACKEND_WINDOW_BYTES } else { H2_WINDOW_BYTES };
    let others = [(INITIAL_WINDOW_SIZE, window), (MAX_HEADER_LIST_SIZE, H2_LIST_BYTES as u32)];
    let mut payload = Vec::with_capacity(24);
    for (key, value) in push.into_iter().chain(streams).chain(connect).chain(others) {
        payload.extend_from_slice(&key.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame::write(out, Kind::Settings, 0, 0, &payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(key: u16, value: u32) -> Vec<u8> {
        [&key.to_be_bytes()[..], &value.to_be_bytes()].concat()
    }

    #[test]
    fn valid_settings_are_applied_and_invalid_ones_refused() {
        let mut settings = Settings::FIRST;
        let said = [of(3, 7), of(4, 100), of(5, 20_000), of(0x99, 5), of(1, 0), of(4, 90), of(6, 900)].concat();
        settings.apply(&said, true).unwrap();
        assert_eq!(
            settings,
            Settings { streams: 7, window: 90, frame: 20_000, list: 900, table: 0, table_shrunk: true, connect: false }
        );
        settings.apply(&of(3, u32::MAX), true).unwrap();
        assert_eq!(settings.streams, H2_STREAMS, "our own limit applies nevertheless");
        for (payload, code) in [
            (of(2, 1), ErrorCode::PROTOCOL_ERROR),
            (of(2, 2), ErrorCode::PROTOCOL_ERROR),
            (of(4, 1 << 31), ErrorCode::FLOW_CONTROL_ERROR),
            (of(5, 16_383), ErrorCode::PROTOCOL_ERROR),
            (of(5, 1 << 24), ErrorCode::PROTOCOL_ERROR),
            (vec![0; 5], ErrorCode::FRAME_SIZE_ERROR),
        ] {
            assert_eq!(settings.apply(&payload, true).unwrap_err().code, code, "{payload:?}");
        }
        assert!(settings.apply(&of(2, 1), false).is_ok(), "a client may take pushes");
        settings.apply(&[of(8, 0), of(8, 1), of(8, 1)].concat(), true).unwrap();
        for value in [0, 2] {
            let error = settings.apply(&of(8, value), true).unwrap_err();
            assert_eq!(error.code, ErrorCode::PROTOCOL_ERROR, "extended CONNECT stays allowed");
        }
    }

    #[test]
    fn ours_are_ones_that_a_peer_takes() {
        for (to_server, window) in [(true, H2_BACKEND_WINDOW_BYTES), (false, H2_WINDOW_BYTES)] {
            let mut out = Vec::new();
            write_ours(&mut out, to_server, Offer { streams: H2_STREAMS, connect: true });
            let mut settings = Settings::FIRST;
            settings.apply(&out[frame::HEADER_BYTES..], !to_server).unwrap();
            assert_eq!((settings.window, settings.connect), (window, !to_server));
        }
    }
}
