//! The frames that a client sends although its requests do not need them just then: credit in odd pieces, changes of its
//! settings, resets of its streams, and frames that mean nothing.

use super::super::h2_frames::{
    self, FLOW_CONTROL_ERROR, HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE, MOST, NO_ERROR, PROTOCOL_ERROR,
};
use super::super::h2_plan::{How, When};
use super::super::network::{Net, Sabotage, say};
use super::Http2Client;

/// The number of frames without progress that the client sends at most, which is far below the proxy's limits.
const CHATTER: usize = 50;

impl Http2Client {
    /// Gives up the streams whose time for that has come.
    pub(super) fn cancel_due(&mut self, net: &mut Net) {
        for (&number, one) in &mut self.streams {
            let Some((when, how)) = one.request.cancel.filter(|_| one.is_wanted()) else { continue };
            let is_due = match when {
                When::Sent(bytes) => one.sent >= bytes,
                When::Got(bytes) => one.got >= bytes,
                When::After(us) => net.now_us >= one.opened_us + us,
            };
            if !is_due {
                continue;
            }
            say!(net, "client {} gives up {}: {how:?}", self.number, one.request.id);
            match how {
                How::Reset => {
                    let code = net.dice.pick(&[h2_frames::CANCEL, NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR]);
                    h2_frames::write(&mut self.out, h2_frames::RST_STREAM, 0, number, &code.to_be_bytes());
                }
                How::NoUpdate => h2_frames::write(&mut self.out, h2_frames::WINDOW_UPDATE, 0, number, &[0; 4]),
                How::Overflow => (0..2).for_each(|_| {
                    h2_frames::write(&mut self.out, h2_frames::WINDOW_UPDATE, 0, number, &MOST.to_be_bytes());
                    self.wire.credit(number, MOST);
                }),
            }
            one.give_up(net);
        }
    }

    /// Credits the connection and its streams with content that has arrived, in odd pieces, now or a little later.
    pub(super) fn give_credit(&mut self, net: &mut Net) {
        let mut dues = vec![(0, &mut self.due)];
        dues.extend(self.streams.iter_mut().filter(|(_, one)| one.is_wanted()).map(|(&id, one)| (id, &mut one.due)));
        for (number, due) in dues.into_iter().filter(|(_, due)| **due > 0) {
            if net.dice.percent(30) {
                net.tick(self.link, 10_000);
                continue;
            }
            let mut left = std::mem::take(due);
            while left > 0 {
                // The proxy takes pieces of a small window for an attack.
                let whole = number > 0 && self.plan.window < 10_000 || net.dice.percent(50);
                let bytes = if whole { left } else { net.dice.between(1, left as usize) as u32 };
                // The first bit means nothing.
                let payload = bytes | if net.dice.percent(20) { MOST + 1 } else { 0 };
                h2_frames::write(&mut self.out, h2_frames::WINDOW_UPDATE, 0, number, &payload.to_be_bytes());
                if net.sabotage != Sabotage::StrayCredit {
                    self.wire.credit(number, bytes);
                }
                left -= bytes;
            }
        }
    }

    /// Changes the windows of streams for a while, and the size of the table for good.
    pub(super) fn resize(&mut self, net: &mut Net) {
        if net.now_us >= self.reopen_us {
            self.reopen_us = u64::MAX;
            self.tell(INITIAL_WINDOW_SIZE, self.plan.window);
            self.wire.allow(self.plan.window);
            self.frames.told(None);
        } else if self.plan.habits.resizes
            && self.reopen_us == u64::MAX
            && self.chatter < CHATTER
            && self.quiet_us.is_none()
            && net.dice.percent(5)
        {
            self.chatter += 2;
            let after_us = net.dice.between(1, 400_000) as u64;
            self.reopen_us = net.now_us + after_us;
            net.tick(self.link, after_us);
            let window = net.dice.pick(&[0, 1_000, 70_000]);
            self.tell(INITIAL_WINDOW_SIZE, window);
            self.wire.allow(window);
            self.frames.told(None);
            let table = net.dice.pick(&[0, 100, 4096]);
            self.tell(HEADER_TABLE_SIZE, table);
            self.wire.allow_same();
            self.frames.told(Some(table as usize));
        }
    }

    fn tell(&mut self, setting: u16, value: u32) {
        let payload = [&setting.to_be_bytes()[..], &value.to_be_bytes()].concat();
        h2_frames::write(&mut self.out, h2_frames::SETTINGS, 0, 0, &payload);
    }

    /// Sends a frame that nothing needs.
    pub(super) fn chat(&mut self, net: &mut Net) {
        if self.chatter >= CHATTER || self.quiet_us.is_some() || !net.dice.percent(self.plan.habits.chatter) {
            return;
        }
        self.chatter += 1;
        match net.dice.below(3) {
            0 => {
                let payload = net.dice.0.any().to_be_bytes();
                h2_frames::write(&mut self.out, h2_frames::PING, 0, 0, &payload);
                self.pings.push_back(payload);
            }
            1 => {
                let number = net.dice.below(20) as u32 * 2 + 1;
                h2_frames::write(&mut self.out, h2_frames::PRIORITY, 0, number, &[0, 0, 0, 0, 9]);
            }
            _ => h2_frames::write(&mut self.out, h2_frames::UNKNOWN, 0xff, 0, b"nothing"),
        }
    }
}
