//! A stream of a mux: the states of the message that arrives on it and of the message that is sent on it.
//!
//! The input of a stream holds content, and behind it the trailer section if there is one. `Incoming` is the state
//! of the message that arrives, and `Sending` is the state of the message that is sent.

use crate::collections::slab::Key;
use crate::hpack;
use crate::http::fields::{Field, Name};
use crate::http::framing::Body;
use crate::http::grpc::{self, is_grpc};
use crate::http::head::{Head, HeadRef};
use crate::http::part::Part;
use crate::http2::{self, ErrorCode};

/// A stream of a mux, as its exchange sees it.
#[derive(Debug)]
pub(in crate::proxy) struct Stream {
    pub(in crate::proxy) mux: Key,
    /// Its number; 0 before it is open.
    pub(in crate::proxy) id: u32,
    incoming: Incoming,
    pub(in crate::proxy) sending: Sending,
    /// The form of a reply of the proxy to a client's request.
    pub(in crate::proxy) reply: ReplyForm,
    /// The encoded trailer section that ends the message being sent.
    pub(in crate::proxy) trailers: Box<[u8]>,
    /// The bytes that its mux is charged for it, if it is a client's.
    pub(in crate::proxy) charged: usize,
    /// The growth of its window, in bytes.
    pub(in crate::proxy) growth: u32,
    /// The client that takes the content, once the window has grown.
    pub(in crate::proxy) consumer: Option<Key>,
    /// The error code of the RST_STREAM if it is given up.
    pub(in crate::proxy) code: ErrorCode,
}

/// The form of a reply of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum ReplyForm {
    /// A head and content.
    Content,
    /// A head, because the method is HEAD.
    Head,
    /// A head with the status of a gRPC call.
    Grpc,
}

impl ReplyForm {
    /// Returns the form for a request. The request may be malformed, or too large to be read to its end.
    pub(in crate::proxy) fn of(head: HeadRef<'_>, is_whole: bool) -> ReplyForm {
        match is_whole && head.method() == b"HEAD" {
            true => ReplyForm::Head,
            false if head.values(Name::ContentType).any(is_grpc) => ReplyForm::Grpc,
            false => ReplyForm::Content,
        }
    }
}

/// The state of the message that arrives on a stream. Its content goes to its consumer at once, or waits in the
/// stream's input while no backend takes it.
#[derive(Debug)]
enum Incoming {
    /// The head has not been accepted.
    Head,
    /// So many bytes of content are to come, according to the head.
    Bytes(u64),
    /// The head does not say how many.
    Any,
    /// All has arrived, and a trailer section waits behind the content.
    Trailers(Box<HeldTrailers>),
    /// All has arrived, and the end waits behind the content.
    End,
    /// The end was decoded.
    Over,
}

/// A trailer section at the end of a stream's input.
#[derive(Debug)]
struct HeldTrailers {
    /// The number of its bytes, which are the last ones of the input.
    length: usize,
    /// The fields. Their spans refer to these bytes.
    fields: Vec<Field>,
}

/// The state of the message that is sent on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Sending {
    /// More of the message may be queued.
    Open,
    /// The bytes of a tunnel may be queued, once it has begun. Only the tunnel's own end ends the direction.
    Tunnel,
    /// The message is complete; END_STREAM follows the queued data.
    Ending,
    /// END_STREAM was sent.
    Ended,
}

impl Stream {
    /// A stream that waits to be opened.
    pub(in crate::proxy) fn new(mux: Key) -> Stream {
        Stream::opened(mux, 0)
    }

    /// A stream that is open.
    pub(in crate::proxy) fn opened(mux: Key, id: u32) -> Stream {
        Stream {
            mux,
            id,
            incoming: Incoming::Head,
            sending: Sending::Open,
            reply: ReplyForm::Content,
            trailers: Box::default(),
            charged: 0,
            growth: 0,
            consumer: None,
            code: ErrorCode::CANCEL,
        }
    }

    /// Counts content that arrived. Returns false if it exceeds Content-Length (RFC 9113, 8.1.1).
    pub(in crate::proxy) fn count(&mut self, length: usize) -> bool {
        let Incoming::Bytes(bytes) = self.incoming else { return true };
        bytes.checked_sub(length as u64).map(|rest| self.incoming = Incoming::Bytes(rest)).is_some()
    }

    /// True if the content is as long as the head said.
    pub(in crate::proxy) fn is_complete(&self) -> bool {
        !matches!(self.incoming, Incoming::Bytes(1..))
    }

    /// Notes that the message in the input has this trailer section, whose bytes were appended to the input.
    pub(in crate::proxy) fn hold_trailers(&mut self, trailers: HeadRef<'_>) {
        let (length, fields) = (trailers.bytes.len(), trailers.head.fields.clone());
        self.incoming = Incoming::Trailers(Box::new(HeldTrailers { length, fields }));
    }

    /// Notes that the message in the input is complete.
    pub(in crate::proxy) fn hold_end(&mut self) {
        if !matches!(self.incoming, Incoming::Trailers(_)) {
            self.incoming = Incoming::End;
        }
    }

    /// Decodes the next part of the message in the input.
    pub(in crate::proxy) fn decode(&mut self, bytes: &[u8], head: &mut Head) -> Part {
        let trailers = if let Incoming::Trailers(trailers) = &self.incoming { trailers.length } else { 0 };
        match bytes.len().saturating_sub(trailers) {
            0 => {}
            content => return Part::Data(content),
        }
        match std::mem::replace(&mut self.incoming, Incoming::Over) {
            Incoming::Trailers(trailers) => {
                head.fields.clear();
                head.fields.extend_from_slice(&trailers.fields);
                self.incoming = Incoming::End;
                Part::Trailers(trailers.length)
            }
            Incoming::End => Part::End,
            more => {
                self.incoming = more;
                Part::NeedMore
            }
        }
    }

    /// Sets the framing of the content of the message that arrives.
    pub(in crate::proxy) fn read_body(&mut self, body: Body) {
        self.incoming = match body {
            Body::None => Incoming::Bytes(0),
            Body::Length(length) => Incoming::Bytes(length),
            Body::Chunked | Body::UntilClose => Incoming::Any,
        }
    }

    /// Ends the message that is sent, with the trailers if there are any.
    pub(in crate::proxy) fn write_end(&mut self, trailers: Option<HeadRef<'_>>) {
        if self.sending == Sending::Open {
            self.sending = Sending::Ending;
        }
        if let Some(trailers) = trailers {
            let mut block = Vec::new();
            http2::head::write_trailers(&mut block, trailers);
            self.trailers = block.into_boxed_slice();
        }
    }

    /// Ends the response to a gRPC call with this status. Returns false if the response has its end already, or if its
    /// request was no gRPC call.
    pub(in crate::proxy) fn end_call(&mut self, status: grpc::Status, message: &str) -> bool {
        if self.reply != ReplyForm::Grpc || self.sending != Sending::Open {
            return false;
        }
        let mut block = Vec::new();
        hpack::encode(&mut block, b"grpc-status", status.0.to_string().as_bytes());
        hpack::encode(&mut block, b"grpc-message", grpc::encode_message(message).as_bytes());
        (self.sending, self.trailers) = (Sending::Ending, block.into_boxed_slice());
        true
    }

    /// Makes the stream a tunnel. Its end may have arrived already.
    pub(in crate::proxy) fn tunnel(&mut self) {
        if matches!(self.incoming, Incoming::Head | Incoming::Bytes(_)) {
            self.incoming = Incoming::Any;
        }
        if self.sending == Sending::Open {
            self.sending = Sending::Tunnel;
        }
    }

    /// True if the next bytes begin a message.
    pub(in crate::proxy) fn awaits_head(&self) -> bool {
        matches!(self.incoming, Incoming::Head)
    }

    /// True if nothing can be decoded without another byte, because the end of the message has not arrived.
    pub(in crate::proxy) fn needs_bytes(&self) -> bool {
        !matches!(self.incoming, Incoming::Trailers(_) | Incoming::End)
    }
}
