//! One stream of a virtual client that speaks HTTP/2: the progress of its request, and the checks of its response.

use super::client::is_allowed_reply;
use super::h2_frames::{CANCEL, INTERNAL_ERROR, NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM};
use super::h2_plan::Request;
use super::message::{Trailers, are_trailers, trailers};
use super::network::{Entry, Net, say};
use super::pattern::{Way, matches};
use super::plan::SECOND_US;
use super::tunnel::{Last, last, lengths};

/// The time within which a request must be answered if nothing is slower than a scenario's pace.
const ANSWER_US: u64 = 60 * SECOND_US;

/// The progress of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    Content,
    Ended,
    /// One side has reset the stream.
    Reset,
}

/// The progress of the response.
#[derive(Debug)]
pub(super) enum Response {
    Awaited,
    Reading(Reading),
    Complete,
    /// None comes, or no more of it: the client has given the stream up, or the proxy has refused or cut it.
    Over,
}

/// The final response that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    /// The delivery that a backend answers; `None` for a reply of the proxy itself.
    delivery: Option<usize>,
    length: Option<usize>,
    /// The content length that the head announces.
    announced: Option<usize>,
    bare: bool,
}

/// The state of the client that decides about the response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// Its number.
    pub(super) client: usize,
    pub(super) misbehaved: bool,
    /// It has ended its direction.
    pub(super) has_ended: bool,
    /// A request may have been given up since, because nothing had come for it in time.
    pub(super) is_late: bool,
}

pub(super) struct Stream {
    /// The place in the script.
    pub(super) request: Request,
    pub(super) sending: Sending,
    pub(super) response: Response,
    /// The response has made it a tunnel.
    pub(super) is_tunnel: bool,
    /// The bytes of content that were sent, and those that have arrived.
    pub(super) sent: usize,
    pub(super) got: usize,
    /// The bytes that the proxy lets the client send.
    pub(super) window: i64,
    /// The bytes that have arrived and are not credited.
    pub(super) due: u32,
    pub(super) opened_us: u64,
    /// The time at which the request was complete.
    pub(super) sent_us: Option<u64>,
    /// The time until which the content waits for 100 (Continue).
    pub(super) hold_until_us: u64,
}

impl Stream {
    /// True if nothing more happens on the stream.
    pub(super) fn is_over(&self) -> bool {
        self.sending != Sending::Content && matches!(self.response, Response::Complete | Response::Over)
    }

    /// Returns the number of bytes of content that the client sends.
    pub(super) fn size(&self, net: &Net) -> usize {
        let entry = &net.ledger[self.request.id];
        match (self.request.malformed, entry.connect) {
            (true, _) => 0,
            (false, true) => lengths(self.request.id).0,
            (false, false) => entry.size,
        }
    }

    /// True if the client ends its direction of the tunnel only after the backend's.
    pub(super) fn waits(&self, net: &Net) -> bool {
        let id = self.request.id;
        net.ledger[id].connect && last(id, Way::Up) == Last::Waits && self.is_wanted()
    }

    /// True if the client still wants the response.
    pub(super) fn is_wanted(&self) -> bool {
        matches!(self.response, Response::Awaited | Response::Reading(_))
    }

    /// The client gives the stream up, or the proxy refuses it: no response is expected any more.
    pub(super) fn give_up(&mut self, net: &mut Net) {
        net.ledger[self.request.id].begun = false;
        (self.sending, self.response) = (Sending::Reset, Response::Over);
    }

    /// Handles a stream that the proxy says it has not served.
    pub(super) fn refused(&mut self, net: &mut Net, facts: Facts) {
        let (id, deliveries) = (self.request.id, net.ledger[self.request.id].deliveries);
        if deliveries > 0 {
            net.fail(format!("client {}: {id} is refused, and was delivered {deliveries} times", facts.client));
        }
        say!(net, "client {}: {id} is refused", facts.client);
        self.give_up(net);
    }

    pub(super) fn on_fields(&mut self, net: &mut Net, facts: Facts, fields: &Trailers, end: bool) {
        let (id, client) = (self.request.id, facts.client);
        match &self.response {
            Response::Over => return,
            Response::Complete => return net.fail(format!("client {client}: fields behind the response to {id}")),
            Response::Reading(_) if !end => {
                return net.fail(format!("client {client}: two heads for {id}: {fields:?}"));
            }
            Response::Reading(_) => return self.on_complete(net, facts, fields),
            Response::Awaited => {}
        }
        let get = |wanted: &str| fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let number = |wanted: &str| get(wanted).and_then(|value| value.parse::<usize>().ok());
        let status = number(":status").filter(|_| fields[0].0 == ":status").unwrap_or(0) as u16;
        say!(net, "client {client} reads {status} for {id}");
        let barred = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "x-hop", "te"];
        let pseudo = fields.iter().filter(|(name, _)| name.starts_with(':')).count();
        if pseudo != 1 || barred.iter().any(|name| get(name).is_some()) {
            return net.fail(format!("client {client}: fields of another connection for {id}: {fields:?}"));
        }
        if (100..200).contains(&status) {
            let unasked = status == 100 && !net.ledger[id].expects;
            if end || status == 101 || unasked || number("x-id") != Some(id) {
                net.fail(format!("client {client}: {status} for {id}, {fields:?}"));
            }
            if status == 100 {
                self.hold_until_us = 0;
            }
            return;
        }
        net.ledger[id].answers += 1;
        let delivery = number("x-id").map(|_| number("x-delivery").unwrap_or(0));
        if number("x-id").is_some_and(|other| other != id) {
            return net.fail(format!("client {client}: asked {id}, and got the answer to {:?}", get("x-id")));
        }
        if delivery.is_none() {
            if !is_allowed_reply(net, id, status, facts.has_ended, facts.misbehaved) {
                net.fail(format!("client {client}: {status} of the proxy's own for {id}"));
            }
        } else if self.request.malformed {
            net.fail(format!("client {client}: a malformed request was answered by a backend"));
        } else if self.sent_us.is_none() && !net.ledger[id].early && !net.ledger[id].connect {
            net.fail(format!("client {client}: {id} was answered before it was whole"));
        }
        let bare = net.ledger[id].method == "HEAD" || status == 204 || status == 304;
        let mut length = delivery.and(number("x-length"));
        if net.ledger[id].connect {
            self.hold_until_us = 0;
            self.is_tunnel = (200..300).contains(&status);
        }
        if self.is_tunnel {
            let unproved = delivery.is_some_and(|delivery| net.ledger[id].unproved.contains(&delivery));
            if unproved || status != 200 || get("content-length").is_some() || get("sec-websocket-accept").is_some() {
                return net.fail(format!("client {client}: the tunnel {id} begins with {fields:?}"));
            }
            length = Some(lengths(id).1);
        }
        self.response = Response::Reading(Reading { delivery, length, announced: number("content-length"), bare });
        if end {
            self.on_complete(net, facts, &Trailers::new());
        }
    }

    pub(super) fn on_data(&mut self, net: &mut Net, facts: Facts, data: &[u8], end: bool) {
        let (id, client) = (self.request.id, facts.client);
        let reading = match &self.response {
            Response::Over => return,
            Response::Reading(reading) => reading,
            other => return net.fail(format!("client {client}: content for {id} in {other:?}")),
        };
        let wrong = reading.delivery.is_some() && !matches(id, Way::Down, self.got, data);
        self.got += data.len();
        let long = reading.length.is_some_and(|length| self.got > length);
        if wrong || long || reading.bare && !data.is_empty() {
            let what = if self.is_tunnel { "the tunnel " } else { "" };
            return net.fail(format!("client {client}: wrong content for {what}{id} before {}", self.got));
        }
        if end {
            self.on_complete(net, facts, &Trailers::new());
        }
    }

    fn on_complete(&mut self, net: &mut Net, facts: Facts, came: &Trailers) {
        let Response::Reading(reading) = std::mem::replace(&mut self.response, Response::Complete) else { return };
        let (id, client, got) = (self.request.id, facts.client, self.got);
        say!(net, "client {client} has all of {id}");
        let expected = reading.length.or(reading.announced);
        if !reading.bare
            && (expected.is_some_and(|length| length != got) || reading.announced.is_some_and(|n| n != got))
        {
            let what = if self.is_tunnel { "the tunnel " } else { "" };
            net.fail(format!("client {client}: {got} bytes for {what}{id}, of {reading:?}"));
        }
        if reading.delivery.is_some_and(|delivery| net.ledger[id].cut.contains(&delivery)) && !reading.bare {
            net.fail(format!("client {client}: the cut response {id} seems complete"));
        }
        if let Some(sent_us) = self.sent_us
            && net.clean
            && net.now_us - sent_us > ANSWER_US
        {
            net.fail(format!("client {client}: {id} took {} us", net.now_us - sent_us));
        }
        let delivery = reading.delivery.filter(|delivery| net.ledger[id].trailed.contains(delivery));
        let sent = delivery.map_or(Trailers::new(), |delivery| trailers(&Entry::tag(id, Some(delivery))));
        if !are_trailers(came, &sent) {
            net.fail(format!("client {client}: {id} was answered with the trailers {came:?}, not {sent:?}"));
        }
    }

    /// Handles an RST_STREAM from the proxy.
    pub(super) fn on_reset(&mut self, net: &mut Net, facts: Facts, code: u32) {
        let (id, client) = (self.request.id, facts.client);
        say!(net, "client {client}: {id} is reset with {code}");
        let entry = &net.ledger[id];
        let allowed = facts.misbehaved
            || match (&self.response, code) {
                (Response::Over, _) => true,
                // The proxy wants no more of an upload that is answered.
                (Response::Complete, NO_ERROR) => true,
                (Response::Complete, PROTOCOL_ERROR) => self.request.malformed,
                (Response::Awaited, REFUSED_STREAM) => return self.refused(net, facts),
                (Response::Awaited, PROTOCOL_ERROR) => self.request.malformed,
                (Response::Awaited, CANCEL) => facts.is_late,
                (Response::Awaited, INTERNAL_ERROR) => net.cut,
                (Response::Reading(_), INTERNAL_ERROR) if !self.is_tunnel => entry.excused || net.cut,
                // The end of a tunnel that is no proper one (RFC 8441, 5).
                (Response::Reading(_) | Response::Complete, CANCEL) => self.is_tunnel && (entry.excused || net.cut),
                _ => false,
            };
        if !allowed {
            net.fail(format!("client {client}: {id} is reset with {code} for no reason, {:?}", self.response));
        }
        if self.is_wanted() {
            return self.give_up(net);
        }
        self.sending = if self.sending == Sending::Content { Sending::Reset } else { self.sending };
    }
}
