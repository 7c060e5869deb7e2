//! Deadlines by slot number, updated lazily: postponing a deadline is one store.
//!
//! A wheel of coarse ticks lists each armed number once, at a tick not later than its deadline. When that tick
//! comes, a number with a later deadline moves to the tick of that deadline. A busy connection, whose deadline
//! moves with every byte, thus costs one visit per turn of the wheel, and memory is bounded by the numbers in
//! use. A deadline never fires early, and at most one tick late.

use crate::limits::{TIMER_TICK_US, TIMER_TICKS};

const NIL: u32 = u32::MAX;
/// The deadline of a disarmed number.
pub const NEVER: u64 = u64::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    deadline_us: u64,
    /// The tick in whose list the node is; `NEVER` if it is in none.
    tick: u64,
    before: u32,
    after: u32,
}

const UNLINKED: Node = Node { deadline_us: NEVER, tick: NEVER, before: NIL, after: NIL };

/// The deadlines of a slab's slots.
#[derive(Debug)]
pub struct Timers {
    nodes: Vec<Node>,
    /// The first node of each tick's list.
    wheel: Vec<u32>,
    /// One bit for each list that may contain nodes.
    occupied: Vec<u64>,
    /// The first tick that has not been visited.
    tick: u64,
}

impl Timers {
    /// Creates an empty set at a time in microseconds.
    pub fn new(now_us: u64) -> Timers {
        Timers {
            nodes: Vec::new(),
            wheel: vec![NIL; TIMER_TICKS],
            occupied: vec![0; TIMER_TICKS / 64],
            tick: now_us / TIMER_TICK_US,
        }
    }

    /// Sets the deadline of a number, in microseconds; `NEVER` disarms it.
    pub fn set(&mut self, index: usize, deadline_us: u64) {
        if index >= self.nodes.len() {
            if deadline_us == NEVER {
                return;
            }
            self.nodes.resize(index + 1, UNLINKED);
        }
        let node = &mut self.nodes[index];
        node.deadline_us = deadline_us;
        // The node is listed at a tick not after the deadline, so it will be visited in time.
        let wanted = deadline_us.div_ceil(TIMER_TICK_US);
        if deadline_us == NEVER || node.tick <= wanted {
            return;
        }
        if node.tick != NEVER {
            self.unlink(index);
        }
        self.link(index, wanted);
    }

    /// Disarms a number before its slot is reused.
    pub fn clear(&mut self, index: usize) {
        if let Some(node) = self.nodes.get(index) {
            if node.tick != NEVER {
                self.unlink(index);
            }
            self.nodes[index] = UNLINKED;
        }
    }

    /// The deadline of a number, in microseconds.
    pub fn get(&self, index: usize) -> u64 {
        self.nodes.get(index).map_or(NEVER, |node| node.deadline_us)
    }

    /// Moves the numbers whose deadline is not after `now_us` to `due`, and disarms them.
    pub fn expire(&mut self, now_us: u64, due: &mut Vec<usize>) {
        let last = now_us / TIMER_TICK_US;
        // After a long pause, one turn of the wheel visits every list.
        self.tick = self.tick.max((last + 1).saturating_sub(TIMER_TICKS as u64));
        while self.tick <= last {
            let slot = (self.tick % TIMER_TICKS as u64) as usize;
            self.tick += 1;
            if self.occupied[slot / 64] & 1 << (slot % 64) == 0 {
                continue;
            }
            self.occupied[slot / 64] &= !(1 << (slot % 64));
            let mut at = std::mem::replace(&mut self.wheel[slot], NIL);
            while at != NIL {
                let index = at as usize;
                at = self.nodes[index].after;
                let deadline_us = self.nodes[index].deadline_us;
                self.nodes[index] = UNLINKED;
                if deadline_us <= now_us {
                    due.push(index);
                } else {
                    self.set(index, deadline_us);
                }
            }
        }
    }

    /// The time of the next `expire`, in microseconds; `NEVER` if nothing is armed.
    pub fn next_us(&self) -> u64 {
        let words = self.occupied.len();
        let first = (self.tick % TIMER_TICKS as u64) as usize;
        for step in 0..=words {
            let at = (first / 64 + step) % words;
            let mut word = self.occupied[at];
            if step == 0 {
                word &= !0 << (first % 64);
            } else if step == words {
                word &= !(!0 << (first % 64));
            }
            if word != 0 {
                let slot = at * 64 + word.trailing_zeros() as usize;
                let ahead = (slot + TIMER_TICKS - first) % TIMER_TICKS;
                return (self.tick + ahead as u64) * TIMER_TICK_US;
            }
        }
        NEVER
    }

    fn link(&mut self, index: usize, wanted: u64) {
        // A deadline beyond the wheel is listed at its far end and moved on from there.
        let tick = wanted.clamp(self.tick, self.tick + TIMER_TICKS as u64 - 1);
        let slot = (tick % TIMER_TICKS as u64) as usize;
        let first = std::mem::replace(&mut self.wheel[slot], index as u32);
        if first != NIL {
            self.nodes[first as usize].before = index as u32;
        }
        let node = &mut self.nodes[index];
        (node.tick, node.before, node.after) = (tick, NIL, first);
        self.occupied[slot / 64] |= 1 << (slot % 64);
    }

    fn unlink(&mut self, index: usize) {
        let Node { tick, before, after, .. } = self.nodes[index];
        let slot = (tick % TIMER_TICKS as u64) as usize;
        match before {
            NIL => self.wheel[slot] = after,
            _ => self.nodes[before as usize].after = after,
        }
        if after != NIL {
            self.nodes[after as usize].before = before;
        }
        if self.wheel[slot] == NIL {
            self.occupied[slot / 64] &= !(1 << (slot % 64));
        }
        let node = &mut self.nodes[index];
        (node.tick, node.before, node.after) = (NEVER, NIL, NIL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collections::random::Random;

    fn due(timers: &mut Timers, now_us: u64) -> Vec<usize> {
        let mut due = Vec::new();
        timers.expire(now_us, &mut due);
        due.sort_unstable();
        due
    }

    #[test]
    fn fires_never_early_and_within_a_tick() {
        let mut timers = Timers::new(0);
        timers.set(3, 1_000_000);
        assert_eq!(due(&mut timers, 999_999), []);
        let next = timers.next_us();
        assert!((1_000_000..1_000_000 + TIMER_TICK_US).contains(&next), "{next}");
        assert_eq!(due(&mut timers, next), [3]);
        assert_eq!(timers.next_us(), NEVER);
    }

    #[test]
    fn a_deadline_moved_later_or_earlier_fires_once_at_the_new_time() {
        let mut timers = Timers::new(0);
        timers.set(0, 1_000_000);
        timers.set(0, 5_000_000);
        timers.set(1, 9_000_000);
        timers.set(1, 2_000_000);
        timers.set(2, 1_000_000);
        timers.clear(2);
        assert_eq!(due(&mut timers, 3_000_000), [1]);
        assert_eq!(due(&mut timers, 4_900_000), []);
        assert_eq!(due(&mut timers, 60_000_000), [0]);
    }

    /// A deadline that is reported too early makes the poller spin.
    #[test]
    fn a_deadline_beyond_the_wheel_is_looked_at_once_in_a_turn_of_it() {
        let turn_us = TIMER_TICKS as u64 * TIMER_TICK_US;
        let mut timers = Timers::new(0);
        let (deadline_us, mut looks, mut now_us) = (10 * turn_us, 0, 0);
        timers.set(0, deadline_us);
        while due(&mut timers, now_us).is_empty() {
            (now_us, looks) = (timers.next_us(), looks + 1);
            assert!(looks <= 20, "{now_us} of {deadline_us} us after {looks} looks");
        }
        assert!((deadline_us..deadline_us + TIMER_TICK_US).contains(&now_us), "{now_us}");
    }

    #[test]
    fn agrees_with_a_plain_list_over_random_operations() {
        let mut random = Random::new(7);
        let mut now = 123_456_789;
        let mut timers = Timers::new(now);
        let mut plain = [NEVER; 50];
        for _ in 0..20_000 {
            let index = random.below(50) as usize;
            match random.below(4) {
                0 => {
                    timers.clear(index);
                    plain[index] = NEVER;
                }
                1 => {
                    now += random.below(3_000_000);
                    let fired = due(&mut timers, now);
                    for (index, deadline) in plain.iter_mut().enumerate() {
                        if fired.contains(&index) {
                            assert!(*deadline <= now);
                            *deadline = NEVER;
                        } else {
                            assert!(*deadline == NEVER || *deadline + TIMER_TICK_US > now, "{index} is late");
                        }
                    }
                    let soonest = plain.iter().copied().min().unwrap_or(NEVER);
                    assert!(soonest == NEVER || timers.next_us() <= soonest + TIMER_TICK_US);
                }
                _ => {
                    plain[index] = now + random.below(100_000_000);
                    timers.set(index, plain[index]);
                }
            }
        }
    }
}
