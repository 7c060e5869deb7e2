//! What is counted, and where. A metric is one line in one of the tables here.
//!
//! Each process has a block of cells in the memory that all share, which it alone writes, with
//! plain stores; whoever is asked adds the blocks up. A block has the process's own cells first and
//! then an area for each slot, which begins with the generation whose counts they are: an area of
//! another generation than the slot's owner counts for nothing.
//!
//! Times are kept in microseconds, and shown in seconds.

mod histogram;
mod text;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

pub use histogram::{BOUNDS_US, Histogram};
pub use text::{CONTENT_TYPE, Exposition, Labelled, Sources};

/// What kind a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// A counter of microseconds, shown as seconds.
    Seconds,
}

/// One line of a table. Lines of one family stand together, each with another label.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name, without the prefix that all have but those that begin with `process_`.
    pub family: &'static str,
    /// A label of its own, such as `code="2xx"`; empty for none.
    pub label: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// What it tells.
    pub help: &'static str,
}

/// Makes a table, and the names by which its lines are counted.
macro_rules! table {
    ($(#[doc = $doc:literal])* $name:ident $($line:ident $kind:ident $family:literal $label:literal $help:literal;)*) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $(#[doc = $help] $line),*
        }

        impl $name {
            /// The table.
            pub const METRICS: &[Metric] = &[
                $(Metric { family: $family, label: $label, kind: Kind::$kind, help: $help }),*
            ];
        }
    };
}

table! {
    /// What a worker counts, backends apart.
    Count
    Clients Counter "client_connections_total" "" "Connections accepted from clients.";
    ClientsNow Gauge "client_connections" "" "Connections from clients that are open.";
    FromClients Counter "client_received_bytes_total" "" "Bytes received from clients.";
    ToClients Counter "client_sent_bytes_total" "" "Bytes sent to clients.";
    Own2xx Counter "own_responses_total" "code=\"2xx\"" "Responses made here, without a backend, by class of status.";
    Own4xx Counter "own_responses_total" "code=\"4xx\"" "Responses made here, without a backend, by class of status.";
    Own5xx Counter "own_responses_total" "code=\"5xx\"" "Responses made here, without a backend, by class of status.";
    RetryConnect Counter "retries_total" "reason=\"connect\"" "Requests given to another backend or connection, by what went wrong.";
    RetryStale Counter "retries_total" "reason=\"stale\"" "Requests given to another backend or connection, by what went wrong.";
    RetryBroken Counter "retries_total" "reason=\"broken\"" "Requests given to another backend or connection, by what went wrong.";
    RetryRefused Counter "retries_refused_total" "" "Requests that the retry budget did not allow to be sent again.";
    Waited Counter "waits_total" "" "Requests that waited for a backend to be below its limit.";
    WaitedInVain Counter "waits_failed_total" "" "Requests that were refused because every backend stayed at its limit.";
    FailOpen Counter "fail_open_total" "" "Requests given to a backend that is down because all are.";
    Exhausted Counter "connects_exhausted_total" "" "Connections to backends that were not begun for want of a descriptor or memory.";
    Cut Counter "requests_cut_total" "" "Requests that were cut off because draining came to its end.";
    CpuTime Seconds "process_cpu_seconds_total" "" "Processor time that all worker processes have used together; the master's own is not in it.";
    Resident Gauge "process_resident_memory_bytes" "" "Memory that all worker processes hold together, what they share counted for each; the master's own is not in it.";
    Virtual Gauge "process_virtual_memory_bytes" "" "Bytes of addresses that all worker processes have in use together; the master's own are not in it.";
    Descriptors Gauge "process_open_fds" "" "Descriptors that all worker processes have open together; the master's own are not in it.";
}

table! {
    /// What the master counts.
    Global
    ReloadsDone Counter "reloads_total" "result=\"done\"" "Changes of the configuration file that were looked at, by what came of it.";
    ReloadsRefused Counter "reloads_total" "result=\"refused\"" "Changes of the configuration file that were looked at, by what came of it.";
    PlanEdition Gauge "plan_edition" "" "The edition of the plan that the workers follow; each change of backends or settings makes one.";
    Upgrades Gauge "upgrade_generation" "" "Upgrades in place since the first start.";
    UpgradesRefused Counter "upgrades_refused_total" "" "Upgrades in place that were refused.";
    Respawns Counter "worker_restarts_total" "" "Workers that died and were replaced.";
    Moves Counter "dns_changes_total" "" "Changes of the addresses of names.";
    Unused Gauge "dns_addresses_unused" "" "Addresses of names that are not used, because there is no room for more.";
    LookupsFailed Counter "dns_failures_total" "" "Names whose lookup has begun to fail.";
    Insecure Gauge "insecure" "" "1 where backends' certificates are not verified, 0 where they are.";
    Workers Gauge "workers" "" "Worker processes that there are to be.";
    Started Gauge "process_start_time_seconds" "" "When the program started, in seconds since 1970.";
    MaxDescriptors Gauge "process_max_fds" "" "Descriptors that a process may have open.";
}

table! {
    /// What a worker counts of each backend.
    SlotCount
    Requests1xx Counter "requests_total" "code=\"1xx\"" "Requests answered by the backend, by class of status.";
    Requests2xx Counter "requests_total" "code=\"2xx\"" "Requests answered by the backend, by class of status.";
    Requests3xx Counter "requests_total" "code=\"3xx\"" "Requests answered by the backend, by class of status.";
    Requests4xx Counter "requests_total" "code=\"4xx\"" "Requests answered by the backend, by class of status.";
    Requests5xx Counter "requests_total" "code=\"5xx\"" "Requests answered by the backend, by class of status.";
    RequestsOther Counter "requests_total" "code=\"other\"" "Requests answered by the backend, by class of status.";
    Failures Counter "failures_total" "" "Exchanges that failed by the backend's fault.";
    Connects Counter "connects_total" "" "Connections made to the backend.";
    ConnectsFailed Counter "connect_failures_total" "" "Connections to the backend that could not be made.";
    HandshakesFull Counter "handshakes_total" "result=\"full\"" "TLS handshakes with the backend, by what came of them.";
    HandshakesResumed Counter "handshakes_total" "result=\"resumed\"" "TLS handshakes with the backend, by what came of them.";
    HandshakesFailed Counter "handshakes_total" "result=\"failed\"" "TLS handshakes with the backend, by what came of them.";
    Reused Counter "pool_reuses_total" "" "Requests sent on a connection that had served another.";
    Stale Counter "pool_stale_total" "" "Pooled connections that turned out closed when a request was sent on them.";
    Ejections Counter "ejections_total" "" "Times that the backend was taken down.";
    ProbesPassed Counter "probes_total" "result=\"passed\"" "Probes of the backend, by how they went.";
    ProbesFailed Counter "probes_total" "result=\"failed\"" "Probes of the backend, by how they went.";
    FromBackend Counter "received_bytes_total" "" "Bytes received from the backend.";
    ToBackend Counter "sent_bytes_total" "" "Bytes sent to the backend.";
}

table! {
    /// What a worker takes the time of, for each backend.
    SlotTime
    Request Seconds "request_duration_seconds" "" "From a request's head to the end of its response.";
    Response Seconds "response_duration_seconds" "" "From a request's being sent to the head of its response.";
}

table! {
    /// What is known of each backend without being counted.
    SlotState
    Healthy Gauge "healthy" "" "1 where the backend gets requests as one that is up, 0 where it is down or has just been added and has passed no probe.";
    InFlight Gauge "in_flight" "" "Requests given to the backend and not done with.";
    Weight Gauge "weight" "" "The backend's configured weight.";
    Expiry Gauge "certificate_expiry_seconds" "" "When the backend's certificate expires, in seconds since 1970; left out where none was seen.";
}

/// Tells tables apart that count other things in the same cells.
pub const FINGERPRINT: u64 = {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let tables = [Count::METRICS, Global::METRICS, SlotCount::METRICS, SlotTime::METRICS];
    let mut table = 0;
    while table < tables.len() {
        let mut line = 0;
        while line < tables[table].len() {
            hash = fnv(fnv(hash, tables[table][line].family.as_bytes()), tables[table][line].label.as_bytes());
            line += 1;
        }
        hash = fnv(hash, b"/");
        table += 1;
    }
    let mut bound = 0;
    while bound < BOUNDS_US.len() {
        hash = fnv(hash, &BOUNDS_US[bound].to_le_bytes());
        bound += 1;
    }
    hash
};

/// Goes on with a hash (FNV-1a).
const fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

/// Cells in a line of 64 bytes: blocks of different writers share none.
const LINE: usize = 8;
/// Cells of a process. The master's fit in as many as a worker's.
const OWN: usize = Count::METRICS.len().next_multiple_of(LINE);
const _: () = assert!(Global::METRICS.len() <= OWN);
/// Cells of a slot: its generation, its counts, its times.
const SLOT: usize = (1 + SlotCount::METRICS.len() + SlotTime::METRICS.len() * Histogram::CELLS).next_multiple_of(LINE);

/// The cells that one process writes.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    cells: &'static [AtomicU64],
}

impl Block {
    /// How many cells a block with `slots` slots takes.
    pub const fn needed(slots: usize) -> usize {
        OWN + slots * SLOT
    }

    /// A view of cells that begin as zeros.
    pub fn new(cells: &'static [AtomicU64]) -> Block {
        assert!(cells.len() >= OWN, "a process's own cells are there");
        Block { cells }
    }

    fn raise(cell: &AtomicU64, by: u64) {
        // There is one writer, so that nothing comes between.
        cell.store(cell.load(Relaxed).wrapping_add(by), Relaxed);
    }

    fn slot(self, slot: usize) -> Option<&'static [AtomicU64]> {
        self.cells.get(OWN + slot * SLOT..OWN + (slot + 1) * SLOT)
    }

    /// Adds to a count.
    pub fn add(self, count: Count, by: u64) {
        Block::raise(&self.cells[count as usize], by);
    }

    /// Sets what goes up and down, or a time.
    pub fn set(self, count: Count, to: u64) {
        self.cells[count as usize].store(to, Relaxed);
    }

    /// What a count says.
    pub fn get(self, count: Count) -> u64 {
        self.cells[count as usize].load(Relaxed)
    }

    /// Adds to a count of the master's.
    pub fn add_global(self, count: Global, by: u64) {
        Block::raise(&self.cells[count as usize], by);
    }

    /// Sets a figure of the master's.
    pub fn set_global(self, count: Global, to: u64) {
        self.cells[count as usize].store(to, Relaxed);
    }

    /// What a count of the master's is.
    pub fn get_global(self, count: Global) -> u64 {
        self.cells[count as usize].load(Relaxed)
    }

    /// Adds to a count of a slot's backend.
    pub fn add_slot(self, count: SlotCount, slot: usize, by: u64) {
        if let Some(cells) = self.slot(slot) {
            Block::raise(&cells[1 + count as usize], by);
        }
    }

    /// Counts a response of a slot's backend.
    pub fn add_response(self, slot: usize, status: u16) {
        let class = match status / 100 {
            1 => SlotCount::Requests1xx,
            2 => SlotCount::Requests2xx,
            3 => SlotCount::Requests3xx,
            4 => SlotCount::Requests4xx,
            5 => SlotCount::Requests5xx,
            _ => SlotCount::RequestsOther,
        };
        self.add_slot(class, slot, 1);
    }

    /// Notes how long something took with a slot's backend, in microseconds.
    pub fn observe(self, time: SlotTime, slot: usize, us: u64) {
        if let Some(histogram) = self.histogram(time, slot) {
            histogram.observe(us);
        }
    }

    fn histogram(self, time: SlotTime, slot: usize) -> Option<Histogram> {
        let from = 1 + SlotCount::METRICS.len() + time as usize * Histogram::CELLS;
        Some(Histogram::new(&self.slot(slot)?[from..from + Histogram::CELLS]))
    }

    /// Says whose counts a slot's are from now on. Where that is another, they begin at zero.
    pub fn adopt(self, slot: usize, generation: u64) {
        if let Some(cells) = self.slot(slot)
            && cells[0].load(Relaxed) != generation
        {
            cells[1..].iter().for_each(|cell| cell.store(0, Relaxed));
            // Whoever reads this generation also reads the zeros, or what came after them.
            cells[0].store(generation, Release);
        }
    }

    /// Sets to zero what goes up and down, as the process has ended.
    pub fn settle(self) {
        for (cell, metric) in self.cells.iter().zip(Count::METRICS) {
            if metric.kind == Kind::Gauge {
                cell.store(0, Relaxed);
            }
        }
    }

    fn slot_cell(self, slot: usize, generation: u64, at: usize) -> u64 {
        match self.slot(slot) {
            Some(cells) if cells[0].load(Acquire) == generation => cells[1 + at].load(Relaxed),
            _ => 0,
        }
    }

    fn slot_histogram(self, slot: usize, generation: u64, time: SlotTime) -> Option<Histogram> {
        self.slot(slot).filter(|cells| cells[0].load(Acquire) == generation)?;
        self.histogram(time, slot)
    }
}

/// A block for one process alone, as tests and benches have it; it is never given back.
pub fn private(slots: usize) -> Block {
    Block::new(Vec::leak((0..Block::needed(slots)).map(|_| AtomicU64::new(0)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_one_owner_are_not_shown_for_the_next() {
        let block = private(2);
        block.adopt(1, 5);
        block.add_slot(SlotCount::Connects, 1, 3);
        block.adopt(1, 5);
        assert_eq!(block.slot_cell(1, 5, SlotCount::Connects as usize), 3);
        assert_eq!(block.slot_cell(1, 6, SlotCount::Connects as usize), 0);
        block.adopt(1, 6);
        assert_eq!(block.slot_cell(1, 6, SlotCount::Connects as usize), 0);
        block.add_slot(SlotCount::Connects, 9, 3);
    }

    #[test]
    fn what_goes_up_and_down_ends_with_its_process() {
        let block = private(0);
        block.add(Count::Clients, 4);
        block.set(Count::ClientsNow, 2);
        block.settle();
        assert_eq!((block.get(Count::Clients), block.get(Count::ClientsNow)), (4, 0));
    }

    #[test]
    fn families_stand_together_and_agree() {
        for table in [Count::METRICS, Global::METRICS, SlotCount::METRICS, SlotTime::METRICS, SlotState::METRICS] {
            let mut seen: Vec<&Metric> = Vec::new();
            for metric in table {
                if let Some(before) = seen.iter().find(|before| before.family == metric.family) {
                    assert_eq!(seen.last().map(|last| last.family), Some(metric.family), "{metric:?}");
                    assert_eq!((before.kind, before.help), (metric.kind, metric.help));
                    assert_ne!(before.label, metric.label);
                }
                seen.push(metric);
            }
        }
    }
}
