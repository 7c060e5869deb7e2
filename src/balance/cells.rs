//! The shared state of the backends: one area of atomic cells for each slot, and a few cells for all. They are in
//! memory that the processes share. A process may die at any moment while it writes, so no cell depends on another
//! one for its meaning.
//!
//! A line has 64 bytes, eight cells. Cells that are written with every request have a line of their own, so that the
//! other cells stay in the caches of the other processors.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// Cells in a line.
const LINE: usize = 8;
/// Cells of a slot.
pub const SLOT: usize = 2 * LINE;
/// Cells for all slots together, before the first slot.
pub const COMMON: usize = 4 * LINE;

/// The names of a slot's first cells, by which another program finds the state of a backend. A cell whose meaning
/// changes gets another name.
pub const NAMES: [&str; 7] =
    ["state", "failures", "probe_failures", "probe_passes", "changed_us", "probe_due_us", "expiry_s"];

/// A common cell: the number of changes that concern the rotation.
const EPOCH: usize = 0;
/// A common cell: no backend of group 0 is healthy, and that was logged.
const OUTAGE: usize = 1;
/// A common cell: when the next retry beyond the percentage may be made.
const RETRY: usize = LINE;
/// A common cell: the number of picks of group 0.
const TURN: usize = 2 * LINE;
/// A common cell: a backend's address may be wrong since the last look.
const SUSPECTS: usize = 3 * LINE;

const STATE: usize = 0;
const FAILURES: usize = 1;
const PROBE_FAILURES: usize = 2;
const PROBE_PASSES: usize = 3;
const CHANGED_US: usize = 4;
const PROBE_DUE_US: usize = 5;
const EXPIRY_S: usize = 6;
const SUSPECT: usize = 7;
const IN_FLIGHT: usize = LINE;
/// The first of the cells that count the picks of further groups. A group has no slot, but cells beside those of one.
const GROUP_TURNS: usize = LINE + 1;
/// The number of these cells of a slot.
const GROUPS_OF_A_SLOT: usize = LINE - 2;
/// The cell for the outages of these groups.
const GROUP_OUTAGE: usize = LINE + 7;

/// The state of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is no failure yet: the backend gets requests.
    Unproven,
    /// The backend has responded properly: it gets requests.
    Healthy,
    /// The backend has failed too often: it gets no requests while others can serve.
    Down,
    /// The backend was added while others served, and has proved nothing: it gets no requests while others can serve.
    Added,
}

impl State {
    fn of(cell: u64) -> State {
        let others = [State::Unproven, State::Healthy, State::Added];
        others.into_iter().find(|&state| state as u64 == cell).unwrap_or(State::Down)
    }

    /// True if the backend gets requests like any other.
    pub fn is_up(self) -> bool {
        matches!(self, State::Unproven | State::Healthy)
    }
}

/// A view of the cells of all slots.
#[derive(Clone, Copy, Debug)]
pub struct Cells {
    cells: &'static [AtomicU64],
}

impl Cells {
    /// Returns the number of cells for `slots` slots.
    pub const fn needed(slots: usize) -> usize {
        COMMON + slots * SLOT
    }

    /// Returns a view of cells that begin as zeros.
    pub fn new(cells: &'static [AtomicU64]) -> Cells {
        assert!(cells.len() >= COMMON, "the common cells are there");
        Cells { cells }
    }

    /// Sets all cells to zero.
    pub fn wipe(self) {
        self.cells.iter().for_each(|cell| cell.store(0, Relaxed));
    }

    /// Returns the number of slots.
    pub fn slots(self) -> usize {
        (self.cells.len() - COMMON) / SLOT
    }

    /// Returns a cell of a slot. Slots are below `slots()`, which the reader of the plan checks.
    fn of(self, slot: usize, cell: usize) -> &'static AtomicU64 {
        &self.cells[COMMON + slot * SLOT + cell]
    }

    /// Returns a number that changes whenever the rotation may change.
    pub(super) fn epoch(self) -> u64 {
        self.cells[EPOCH].load(Acquire)
    }

    fn next_epoch(self) {
        self.cells[EPOCH].fetch_add(1, AcqRel);
    }

    /// Returns the cell that counts the picks of a group.
    pub(super) fn turn(self, group: usize) -> &'static AtomicU64 {
        match group.checked_sub(1) {
            None => &self.cells[TURN],
            Some(_) if self.slots() == 0 => &self.cells[TURN],
            // If there are more groups than cells, some share a cell, which makes their turns less even.
            Some(n) => self.of(n % self.slots(), GROUP_TURNS + n / self.slots() % GROUPS_OF_A_SLOT),
        }
    }

    /// Returns the cell that says whether the outage of a group was logged.
    pub(super) fn outage(self, group: usize) -> &'static AtomicU64 {
        match group.checked_sub(1) {
            None => &self.cells[OUTAGE],
            Some(_) if self.slots() == 0 => &self.cells[OUTAGE],
            Some(n) => self.of(n % self.slots(), GROUP_OUTAGE),
        }
    }

    /// Returns the cell for when the next retry beyond the percentage may be made, in microseconds.
    pub(super) fn retry(self) -> &'static AtomicU64 {
        &self.cells[RETRY]
    }

    /// Sets the requests in flight to zero. There are none, but a worker may have died and miscounted.
    pub fn reclaim(self, slot: usize) {
        self.of(slot, IN_FLIGHT).store(0, Relaxed);
    }

    /// Resets a slot for another backend, which begins in this state. Its first probe is due then.
    pub fn clear(self, slot: usize, state: State, probe_due_us: u64) {
        self.of(slot, STATE).store(state as u64, Relaxed);
        for cell in [FAILURES, PROBE_FAILURES, PROBE_PASSES, CHANGED_US, EXPIRY_S] {
            self.of(slot, cell).store(0, Relaxed);
        }
        self.of(slot, PROBE_DUE_US).store(probe_due_us, Release);
        self.next_epoch();
    }

    /// Returns the state of a slot's backend.
    pub fn state(self, slot: usize) -> State {
        State::of(self.of(slot, STATE).load(Acquire))
    }

    /// Notes when the backend's certificate expires, in seconds since 1970.
    pub fn set_expiry(self, slot: usize, seconds: u64) {
        self.of(slot, EXPIRY_S).store(seconds, Relaxed);
    }

    /// Returns when the backend's certificate expires, in seconds since 1970; 0 if none was seen.
    pub fn expiry(self, slot: usize) -> u64 {
        self.of(slot, EXPIRY_S).load(Relaxed)
    }

    /// Notes that a backend's address may be wrong. This costs no system call, because the master looks at it.
    pub fn suspect(self, slot: usize) {
        self.of(slot, SUSPECT).store(1, Relaxed);
        self.cells[SUSPECTS].store(1, Release);
    }

    /// Takes the note that any backend's address may be wrong.
    pub fn take_suspects(self) -> bool {
        self.cells[SUSPECTS].load(Relaxed) != 0 && self.cells[SUSPECTS].swap(0, Acquire) != 0
    }

    /// Takes the note that a slot's address may be wrong.
    pub fn take_suspect(self, slot: usize) -> bool {
        self.of(slot, SUSPECT).load(Relaxed) != 0 && self.of(slot, SUSPECT).swap(0, Relaxed) != 0
    }

    /// Returns when the state last changed, in microseconds; 0 for never.
    pub(super) fn changed_us(self, slot: usize) -> u64 {
        self.of(slot, CHANGED_US).load(Relaxed)
    }

    /// Returns the requests in flight of all workers.
    pub fn in_flight(self, slot: usize) -> u64 {
        self.of(slot, IN_FLIGHT).load(Relaxed).cast_signed().max(0).cast_unsigned()
    }

    /// Returns the same number as stored, which may be negative for a moment. A process that sees the store of a
    /// worker sees that worker's earlier stores too.
    pub(super) fn entered(self, slot: usize) -> i64 {
        self.of(slot, IN_FLIGHT).load(Acquire).cast_signed()
    }

    /// Counts a request, unless `max` are in flight already; 0 for no limit.
    pub(super) fn enter(self, slot: usize, max: u32) -> bool {
        let cell = self.of(slot, IN_FLIGHT);
        let before = cell.fetch_add(1, Release).cast_signed();
        if max > 0 && before >= i64::from(max) {
            cell.fetch_sub(1, Release);
            return false;
        }
        true
    }

    /// Subtracts `requests` that a worker has finished, or that died with it.
    pub fn leave(self, slot: usize, requests: u64) {
        self.of(slot, IN_FLIGHT).fetch_sub(requests, Release);
    }

    /// Counts a failed exchange. Returns the number of failures in a row.
    pub(super) fn fail(self, slot: usize) -> u64 {
        self.of(slot, FAILURES).fetch_add(1, AcqRel) + 1
    }

    /// Notes an exchange that succeeded.
    pub(super) fn succeed(self, slot: usize) {
        let failures = self.of(slot, FAILURES);
        self.prove(slot);
        if failures.load(Relaxed) != 0 {
            failures.store(0, Release);
        }
    }

    /// Notes that a backend has responded properly. A backend that is down stays down.
    pub(super) fn prove(self, slot: usize) {
        let before = State::of(self.of(slot, STATE).load(Relaxed));
        if matches!(before, State::Unproven | State::Added)
            && self.become_from(slot, before, State::Healthy)
            && before == State::Added
        {
            self.next_epoch();
        }
    }

    /// Lets an added backend get requests although it has proved nothing.
    pub(super) fn admit(self, slot: usize) {
        if self.state(slot) == State::Added && self.become_from(slot, State::Added, State::Unproven) {
            self.next_epoch();
        }
    }

    /// Changes the state from one to another. Returns false if it was another one.
    fn become_from(self, slot: usize, from: State, to: State) -> bool {
        self.of(slot, STATE).compare_exchange(from as u64, to as u64, AcqRel, Relaxed).is_ok()
    }

    /// Lets a backend that is down be tried again. The next failure, of `fails` in a row, takes it down.
    pub(super) fn give_chance(self, slot: usize, fails: u64, now_us: u64) {
        if self.of(slot, STATE).load(Relaxed) == State::Down as u64 {
            self.of(slot, FAILURES).store(fails.saturating_sub(1), Relaxed);
            if self.become_from(slot, State::Down, State::Unproven) {
                self.of(slot, CHANGED_US).store(now_us, Relaxed);
                self.next_epoch();
            }
        }
    }

    /// Notes the result of a probe. Returns the number of equal results in a row.
    pub(super) fn probed(self, slot: usize, passed: bool) -> u64 {
        let (count, other) = if passed { (PROBE_PASSES, PROBE_FAILURES) } else { (PROBE_FAILURES, PROBE_PASSES) };
        self.of(slot, other).store(0, Relaxed);
        self.of(slot, count).fetch_add(1, AcqRel) + 1
    }

    /// Takes a backend down. Returns false if it is down already.
    pub(super) fn take_down(self, slot: usize, now_us: u64) -> bool {
        self.change(slot, now_us, State::Down)
    }

    /// Brings a backend up. Returns false if it is up already.
    pub(super) fn bring_up(self, slot: usize, now_us: u64) -> bool {
        self.change(slot, now_us, State::Healthy)
    }

    fn change(self, slot: usize, now_us: u64, to: State) -> bool {
        let from = |from: State| self.become_from(slot, from, to);
        let changed = match to {
            State::Down => from(State::Unproven) || from(State::Healthy) || from(State::Added),
            _ => from(State::Down),
        };
        if changed {
            self.of(slot, CHANGED_US).store(now_us, Relaxed);
            if to == State::Down {
                self.suspect(slot);
            }
            for count in [FAILURES, PROBE_FAILURES, PROBE_PASSES] {
                self.of(slot, count).store(0, Relaxed);
            }
            self.next_epoch();
        }
        changed
    }

    /// Returns when the next probe is due, in microseconds.
    pub(super) fn probe_due_us(self, slot: usize) -> u64 {
        self.of(slot, PROBE_DUE_US).load(Acquire)
    }

    /// Takes a probe that is due. Returns false if another worker has taken it.
    pub(super) fn claim_probe(self, slot: usize, due_us: u64, again_us: u64) -> bool {
        self.of(slot, PROBE_DUE_US).compare_exchange(due_us, again_us, AcqRel, Relaxed).is_ok()
    }
}

/// Notes in a cell whether there is an outage. Returns true if that is news.
pub(super) fn note_outage(cell: &AtomicU64, outage: bool) -> bool {
    cell.load(Relaxed) != u64::from(outage) && cell.swap(u64::from(outage), AcqRel) != u64::from(outage)
}

/// Returns cells for one process alone, as tests and benches use them. Their memory is never freed, but `wipe` sets
/// them to zero for another use.
pub fn private(slots: usize) -> Cells {
    let cells: Vec<AtomicU64> = (0..Cells::needed(slots)).map(|_| AtomicU64::new(0)).collect();
    Cells::new(Box::leak(cells.into_boxed_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_and_a_place_that_is_left_can_be_taken() {
        let cells = private(2);
        assert!(cells.enter(1, 2) && cells.enter(1, 2) && !cells.enter(1, 2));
        assert_eq!((cells.in_flight(0), cells.in_flight(1)), (0, 2));
        cells.leave(1, 1);
        assert!(cells.enter(1, 2) && !cells.enter(1, 2));
        cells.leave(0, 1);
        assert_eq!(cells.in_flight(0), 0);
    }

    #[test]
    fn a_change_of_state_happens_once() {
        let cells = private(1);
        let epoch = cells.epoch();
        assert!(!cells.bring_up(0, 5));
        cells.prove(0);
        assert_eq!(cells.state(0), State::Healthy);
        assert!(cells.take_down(0, 7) && !cells.take_down(0, 8));
        assert_eq!((cells.state(0), cells.changed_us(0)), (State::Down, 7));
        assert!(cells.bring_up(0, 9) && !cells.bring_up(0, 10));
        assert_eq!(cells.epoch(), epoch + 2);
    }

    #[test]
    fn a_suspect_is_found_once_and_one_that_is_taken_down_is_one() {
        let cells = private(2);
        assert!(!cells.take_suspects());
        cells.suspect(1);
        assert!(cells.take_suspects() && !cells.take_suspects());
        assert!(!cells.take_suspect(0) && cells.take_suspect(1) && !cells.take_suspect(1));
        cells.take_down(0, 5);
        assert!(cells.take_suspects() && cells.take_suspect(0));
        cells.bring_up(0, 6);
        assert!(!cells.take_suspects() && !cells.take_suspect(0));
    }

    #[test]
    fn a_due_probe_is_claimed_by_one() {
        let cells = private(1);
        cells.clear(0, State::Unproven, 100);
        assert!(cells.claim_probe(0, 100, 600) && !cells.claim_probe(0, 100, 601));
        assert_eq!(cells.probe_due_us(0), 600);
    }

    #[test]
    fn counts_in_a_row_begin_anew_when_it_goes_the_other_way() {
        let cells = private(1);
        assert_eq!((cells.fail(0), cells.fail(0)), (1, 2));
        cells.succeed(0);
        assert_eq!(cells.fail(0), 1);
        assert_eq!((cells.probed(0, true), cells.probed(0, false), cells.probed(0, false)), (1, 1, 2));
        assert_eq!(cells.probed(0, true), 1);
    }
}
