//! An HTTP/2 backend that is scripted frame by frame.

use super::{Backend, Balancer, Mode, Peer};
use zzz_lb::hpack;
use zzz_lb::http2::frame::{self, ACK, END_HEADERS, END_STREAM, HEADER_BYTES, Header, Kind, PREFACE};

/// One connection of a backend, frame by frame.
pub struct Frames(pub Peer);

impl Frames {
    /// Reads the preface and sends SETTINGS.
    pub fn begin(mut peer: Peer, settings: &[u8]) -> Option<Frames> {
        assert_eq!(peer.exactly(PREFACE.len()).ok()?, PREFACE);
        let mut frames = Frames(peer);
        frames.send(Kind::Settings, 0, 0, settings);
        Some(frames)
    }

    /// Sends a frame. Returns false if the connection is gone.
    pub fn send(&mut self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let mut out = Vec::new();
        frame::write(&mut out, kind, flags, stream, payload);
        self.0.try_send(out).is_ok()
    }

    /// The next frame; `None` at the end.
    pub fn read(&mut self) -> Option<(Header, Vec<u8>)> {
        let header = Header::read(&self.0.exactly(HEADER_BYTES).ok()?)?;
        Some((header, self.0.exactly(header.length as usize).ok()?))
    }

    /// The stream of the next request. Frames before it get their required replies.
    pub fn request(&mut self) -> Option<u32> {
        loop {
            let (header, payload) = self.read()?;
            match header.kind {
                Kind::Headers => return Some(header.stream),
                Kind::Settings if !header.has(ACK) => self.send(Kind::Settings, ACK, 0, &[]),
                Kind::Ping if !header.has(ACK) => self.send(Kind::Ping, ACK, 0, &payload),
                _ => true,
            };
        }
    }

    /// Answers 200 with some content.
    pub fn answer(&mut self, stream: u32, content: &str) -> bool {
        self.send(Kind::Headers, END_HEADERS, stream, &[0x88])
            && self.send(Kind::Data, END_STREAM, stream, content.as_bytes())
    }
}

/// A backend that runs a script for each connection, after the preface.
pub fn scripted(settings: &'static [u8], script: impl Fn(&mut Frames, usize) + Send + Sync + 'static) -> Backend {
    Backend::serve(move |peer| {
        let nth = peer.nth;
        if let Some(mut frames) = Frames::begin(peer, settings) {
            script(&mut frames, nth);
        }
    })
}

/// A backend that follows the rules.
pub fn good() -> Backend {
    scripted(&[], |frames, _| {
        while let Some(stream) = frames.request() {
            frames.answer(stream, "good");
        }
    })
}

/// A balancer with such backends.
pub fn before(mode: Mode, backends: &[&Backend], args: &[&str]) -> Balancer {
    let specs: Vec<String> = backends.iter().map(|backend| format!("h2c://{}", backend.spec())).collect();
    let specs: Vec<&str> = specs.iter().flat_map(|spec| ["-b", spec]).collect();
    Balancer::start(mode, &[specs, args.to_vec()].concat())
}

/// Encodes fields as a block.
pub fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    list.iter().for_each(|(name, value)| hpack::encode(&mut block, name.as_bytes(), value.as_bytes()));
    block
}
