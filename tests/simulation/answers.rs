//! The responses of a virtual backend over HTTP/2, step by step, proper or faulty.

use zzz_lb::hpack;
use zzz_lb::http2::ErrorCode;

use super::message::trailers;
use super::network::{Entry, Net, Sabotage, say};
use super::pattern::{Way, content};
use super::plan::{BackendPlan, Fault, size};
use super::tunnel::{Last, last, lengths};

/// The next step on a stream.
pub(super) enum Step {
    AwaitRequest,
    Pause(u64),
    /// A header block; true if it ends the stream.
    Fields(Vec<u8>, bool),
    /// Content; true if it ends the stream.
    Data(Vec<u8>, bool),
    Give(ErrorCode),
    Halt,
    /// The following bytes are not HTTP/2.
    Garbage(Vec<u8>),
    Close,
    Reset,
}

/// Draws a response and its steps.
pub(super) fn plan_response(net: &mut Net, backend: usize, plan: &BackendPlan, id: usize) -> Vec<Step> {
    let fault = net.dice.percent(plan.fault_percent).then(|| net.dice.pick(&plan.faults));
    let mut steps = Vec::new();
    if net.ledger[id].expects && net.dice.percent(70) {
        steps.push(Step::Fields(fields(&[(":status", "100"), ("x-id", &id.to_string())]), false));
    }
    let early = matches!(fault, Some(Fault::Early));
    if net.ledger[id].websocket {
        // The request ends with the tunnel.
    } else if early {
        net.ledger[id].early = true;
    } else if fault.is_none() || net.dice.percent(60) {
        steps.push(Step::AwaitRequest);
    } else {
        net.ledger[id].early = true;
    }
    if net.dice.percent(10) {
        steps.push(Step::Fields(fields(&[(":status", "103"), ("x-id", &id.to_string())]), false));
    }
    let think_us = net.dice.below(plan.think_us as usize + 1) as u64;
    if think_us > 0 {
        steps.push(Step::Pause(think_us));
    }
    if let Some(fault) = fault {
        say!(net, "backend {} has in store for {id}: {fault:?}", backend);
        net.ledger[id].excused = true;
    }
    match fault {
        None | Some(Fault::Early) => {
            steps.extend(response(net, id));
            if early && net.dice.percent(50) {
                // The backend does not want the rest of the request.
                steps.push(Step::Give(ErrorCode::NO_ERROR));
            }
        }
        Some(Fault::Silence | Fault::HalfClose) => steps.push(Step::Halt),
        Some(Fault::CloseInstead) => steps.push(Step::Close),
        Some(Fault::ResetInstead) => steps.push(Step::Reset),
        Some(Fault::Switch) => steps.push(Step::Fields(fields(&[(":status", "101")]), false)),
        Some(Fault::MalformedHead) => {
            let text = net.dice.pick(&["transfer-encoding", "connection", "Upper", "a b", ":path", ""]);
            let mut block = fields(&[(":status", "200")]);
            block.extend([0, text.len() as u8]);
            block.extend_from_slice(text.as_bytes());
            block.extend([1, b'x']);
            steps.extend([Step::Fields(block, false), Step::Halt]);
        }
        Some(Fault::Garbage) => {
            let length = net.dice.between(20, 500);
            steps.extend([Step::Garbage(content(id + 7, Way::Up, length)), Step::Close]);
        }
        Some(Fault::LeftOver) if net.ledger[id].method == "HEAD" || net.ledger[id].websocket => steps.push(Step::Halt),
        Some(Fault::LeftOver) => {
            // The content is shorter than its announced length.
            let (number, delivery) = (id.to_string(), net.ledger[id].deliveries);
            let list =
                [(":status", "200"), ("x-id", &number), ("x-delivery", &delivery.to_string()), ("x-length", "10")];
            let block = fields(&[&list[..], &[("content-length", "10")]].concat());
            steps.extend([Step::Fields(block, false), Step::Data(content(id, Way::Down, 5), true)]);
            net.ledger[id].cut.push(delivery);
        }
        Some(Fault::CutResponse | Fault::ResetResponse | Fault::Stall) => {
            let mut whole = response(net, id).into_iter();
            let delivery = net.ledger[id].deliveries;
            if let (Some(head @ Step::Fields(_, false)), Some(Step::Data(mut body, _))) = (whole.next(), whole.next()) {
                net.ledger[id].cut.push(delivery);
                body.truncate(net.dice.below(body.len().max(1)));
                let ends = net.sabotage == Sabotage::CutAsEnd && net.ledger[id].websocket;
                steps.extend([head, Step::Data(body, ends)]);
            }
            steps.push(match fault {
                Some(Fault::Stall) => Step::Halt,
                Some(Fault::ResetResponse) => Step::Give(ErrorCode::INTERNAL_ERROR),
                _ => Step::Close,
            });
        }
    }
    steps
}

pub(super) fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    list.iter().for_each(|(name, value)| hpack::encode(&mut block, name.as_bytes(), value.as_bytes()));
    block
}

/// Returns a tunnel.
fn tunnel(net: &mut Net, id: usize) -> Vec<Step> {
    let entry = &mut net.ledger[id];
    entry.switched.push(entry.deliveries);
    let (number, delivery) = (id.to_string(), entry.deliveries.to_string());
    let head = Step::Fields(fields(&[(":status", "200"), ("x-id", &number), ("x-delivery", &delivery)]), false);
    let body = content(id, Way::Down, lengths(id).1);
    match last(id, Way::Down) {
        Last::Waits => vec![head, Step::Data(body, false), Step::AwaitRequest, Step::Data(Vec::new(), true)],
        _ => vec![head, Step::Data(body, true)],
    }
}

/// Returns a proper response.
fn response(net: &mut Net, id: usize) -> Vec<Step> {
    if net.ledger[id].websocket && net.dice.percent(75) {
        return tunnel(net, id);
    }
    let length = size(&mut net.dice, net.bulky).max(1);
    let dice = &mut net.dice;
    let entry = &net.ledger[id];
    let status = dice.pick(&["200", "200", "200", "201", "204", "304", "404", "503", "299"]);
    let status = if entry.websocket && status.starts_with('2') { "404" } else { status };
    let bare = entry.method == "HEAD" || status == "204" || status == "304";
    let (number, text, delivery) = (id.to_string(), length.to_string(), entry.deliveries.to_string());
    let mut list = vec![(":status", status), ("x-id", &number), ("x-delivery", &delivery), ("x-length", &text)];
    if status != "204" && dice.percent(50) {
        list.push(("content-length", &text));
    }
    let block = fields(&list);
    if bare {
        return vec![Step::Fields(block, true)];
    }
    let body = content(id, Way::Down, length);
    match dice.below(3) {
        0 => vec![Step::Fields(block, false), Step::Data(body, true)],
        1 => vec![Step::Fields(block, false), Step::Data(body, false), Step::Data(Vec::new(), true)],
        _ => {
            let delivery = entry.deliveries;
            let sent = trailers(&Entry::tag(id, Some(delivery)));
            let list: Vec<(&str, &str)> = sent.iter().map(|(_, value)| ("x-trailer", value.as_str())).collect();
            net.ledger[id].trailed.push(delivery);
            vec![Step::Fields(block, false), Step::Data(body, false), Step::Fields(fields(&list), true)]
        }
    }
}
