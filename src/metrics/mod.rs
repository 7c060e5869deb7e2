//! The metrics and their cells. A metric is one line in one of the tables in this file.
//!
//! Each process has a block of cells in shared memory. It is the block's only writer and uses plain stores. A
//! reader adds up the blocks. A block has the process's own cells first, and then an area for each slot, which
//! begins with the generation of its counts. An area whose generation differs from the slot's owner is ignored.
//!
//! Times are stored in microseconds, and shown in seconds.

mod histogram;
pub mod ids;
mod listing;
mod text;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

pub use histogram::{BOUNDS_US, Histogram};
pub use listing::{Certificate, Detail, Listing, Place};
pub use text::{CONTENT_TYPE, Exposition, Sources};

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// A counter of microseconds, shown as seconds.
    Seconds,
    /// A counter of a backend's that most backends never raise: its series appears with the first event.
    Rare,
}

/// One line of a table. Lines of one family stand together, each with another label.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name, without the prefix that all have but those that begin with `process_`.
    pub family: &'static str,
    /// A label of its own, such as `code="2xx"`; empty for none.
    pub label: &'static str,
    /// The type.
    pub kind: Kind,
    /// The help text.
    pub help: &'static str,
}

/// Makes a table, and the names by which its lines are counted.
macro_rules! table {
    (
        $(#[doc = $doc:literal])* $name:ident
        $($(#[cfg($($cfg:tt)*)])? $line:ident $kind:ident $family:literal $label:literal $help:literal;)*
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[cfg($($cfg)*)])? #[doc = $help] $line),*
        }

        impl $name {
            /// The table.
            pub const METRICS: &[Metric] = &[
                $($(#[cfg($($cfg)*)])? Metric { family: $family, label: $label, kind: Kind::$kind, help: $help }),*
            ];

            /// The lines of the table. Their order is that of the cells.
            pub const ALL: &[$name] = &[$($(#[cfg($($cfg)*)])? $name::$line),*];
        }
    };
}

table! {
    /// The counts of a worker, without those per backend.
    Count
    #[cfg(feature = "extra-metric")]
    Extra Counter "extra_total" "" "A metric that other builds do not have, to test upgrades.";
    Clients Counter "client_connections_total" "" "Connections accepted from clients.";
    ClientsNow Gauge "client_connections" "" "Open connections from clients.";
    FromClients Counter "client_received_bytes_total" "" "Bytes received from clients.";
    ToClients Counter "client_sent_bytes_total" "" "Bytes sent to clients.";
    Handshakes13Full Counter "client_handshakes_total" "version=\"1.3\",resumed=\"no\"" "TLS handshakes with clients that were completed, by version and resumption.";
    Handshakes13Resumed Counter "client_handshakes_total" "version=\"1.3\",resumed=\"yes\"" "TLS handshakes with clients that were completed, by version and resumption.";
    Handshakes12Full Counter "client_handshakes_total" "version=\"1.2\",resumed=\"no\"" "TLS handshakes with clients that were completed, by version and resumption.";
    Handshakes12Resumed Counter "client_handshakes_total" "version=\"1.2\",resumed=\"yes\"" "TLS handshakes with clients that were completed, by version and resumption.";
    HandshakesFailedClosed Counter "client_handshake_failures_total" "reason=\"closed\"" "TLS handshakes with clients that failed, by reason. No backend is blamed.";
    HandshakesFailedTimeout Counter "client_handshake_failures_total" "reason=\"timeout\"" "TLS handshakes with clients that failed, by reason. No backend is blamed.";
    HandshakesFailedPlain Counter "client_handshake_failures_total" "reason=\"not_tls\"" "TLS handshakes with clients that failed, by reason. No backend is blamed.";
    HandshakesFailedName Counter "client_handshake_failures_total" "reason=\"unknown_name\"" "TLS handshakes with clients that failed, by reason. No backend is blamed.";
    HandshakesFailedCommon Counter "client_handshake_failures_total" "reason=\"nothing_in_common\"" "TLS handshakes with clients that failed, by reason. No backend is blamed.";
    HandshakesFailedCertificate Counter "client_handshake_failures_total" "reason=\"certificate\"" "TLS handshakes with clients that failed, by reason. No backend is blamed.";
    HandshakesFailedAlert Counter "client_handshake_failures_total" "reason=\"alert\"" "TLS handshakes with clients that failed, by reason. No backend is blamed.";
    HandshakesFailedOther Counter "client_handshake_failures_total" "reason=\"protocol\"" "TLS handshakes with clients that failed, by reason. No backend is blamed.";
    TlsFloodKeyUpdates Rare "tls_floods_total" "reason=\"key_updates\"" "Connections of clients with TLS that were closed because of too many records without content, by reason.";
    TlsFloodEmptyRecords Rare "tls_floods_total" "reason=\"empty_records\"" "Connections of clients with TLS that were closed because of too many records without content, by reason.";
    TlsFloodWarnings Rare "tls_floods_total" "reason=\"warnings\"" "Connections of clients with TLS that were closed because of too many records without content, by reason.";
    TlsFloodRenegotiation Rare "tls_floods_total" "reason=\"renegotiation\"" "Connections of clients with TLS that were closed because of too many records without content, by reason.";
    TlsFloodRecords Rare "tls_floods_total" "reason=\"records\"" "Connections of clients with TLS that were closed because of too many records without content, by reason.";
    UnidentifiedUntrusted Counter "proxy_header_failures_total" "reason=\"untrusted\"" "PROXY headers that were refused, by reason. The connection was closed, and no backend is blamed.";
    UnidentifiedMalformed Counter "proxy_header_failures_total" "reason=\"malformed\"" "PROXY headers that were refused, by reason. The connection was closed, and no backend is blamed.";
    UnidentifiedIncomplete Counter "proxy_header_failures_total" "reason=\"closed\"" "PROXY headers that were refused, by reason. The connection was closed, and no backend is blamed.";
    UnidentifiedLate Counter "proxy_header_failures_total" "reason=\"timeout\"" "PROXY headers that were refused, by reason. The connection was closed, and no backend is blamed.";
    Own308 Counter "own_responses_total" "code=\"308\"" "Responses made by the balancer itself, by status. Pages such as `/metrics` are not counted.";
    Own400 Counter "own_responses_total" "code=\"400\"" "Responses made by the balancer itself, by status. Pages such as `/metrics` are not counted.";
    Own404 Counter "own_responses_total" "code=\"404\"" "Responses made by the balancer itself, by status. Pages such as `/metrics` are not counted.";
    Own405 Counter "own_responses_total" "code=\"405\"" "Responses made by the balancer itself, by status. Pages such as `/metrics` are not counted.";
    Own408 Counter "own_responses_total" "code=\"408\"" "Responses made by the balancer itself, by status. Pages such as `/metrics` are not counted.";
    Own414 Counter "own_responses_total" "code=\"414\"" "Responses made by the balancer itself, by status. Pages such as `/metrics` are not counted.";
    Own417 Counter "own_responses_total" "code=\"417\"" "Responses made by the balancer itself, by status. Pages such as `/metrics` are not counted.";
    Own421 Counter "own_responses_total" "code=\"421\"" "Responses made by the balancer itself, by status. Pages such as `/metrics` are not counted.";
    Own431 Counter "own_responses_total" "code=\"431\"" "Responses made by the balancer itself, by status. Pages such as `/metrics` are not counted.";
    Own501 Counter "own_responses_total" "code=\"501\"" "Responses made by the balancer itself, by status. Pages such as `/metrics` are not counted.";
    Own502 Counter "own_responses_total" "code=\"502\"" "Responses made by the balancer itself, by status. Pages such as `/metrics` are not counted.";
    Own503 Counter "own_responses_total" "code=\"503\"" "Responses made by the balancer itself, by status. Pages such as `/metrics` are not counted.";
    Own504 Counter "own_responses_total" "code=\"504\"" "Responses made by the balancer itself, by status. Pages such as `/metrics` are not counted.";
    Own505 Counter "own_responses_total" "code=\"505\"" "Responses made by the balancer itself, by status. Pages such as `/metrics` are not counted.";
    OwnOther Counter "own_responses_total" "code=\"other\"" "Responses made by the balancer itself, by status. Pages such as `/metrics` are not counted.";
    RetryConnect Counter "retries_total" "reason=\"connect\"" "Requests sent again on another connection or to another backend, by reason.";
    RetryStale Rare "retries_total" "reason=\"stale\"" "Requests sent again on another connection or to another backend, by reason.";
    RetryBroken Counter "retries_total" "reason=\"broken\"" "Requests sent again on another connection or to another backend, by reason.";
    RetryRefused Counter "retries_refused_total" "" "Retries that the retry budget did not allow.";
    Reused Counter "pool_reuses_total" "" "Requests sent on a backend connection that had carried another request.";
    AbortsClosed Counter "client_aborts_total" "reason=\"closed\"" "Requests whose client left before the response was complete, by reason.";
    AbortsIncomplete Counter "client_aborts_total" "reason=\"incomplete\"" "Requests whose client left before the response was complete, by reason.";
    AbortsReset Counter "client_aborts_total" "reason=\"reset\"" "Requests whose client left before the response was complete, by reason.";
    AbortsStalled Counter "client_aborts_total" "reason=\"stalled\"" "Requests whose client left before the response was complete, by reason.";
    Waited Counter "waits_total" "" "Requests that waited for a backend below its limit.";
    WaitedInVain Counter "waits_failed_total" "" "Requests that were refused because every backend stayed at its limit.";
    FailOpen Counter "fail_open_total" "" "Requests sent to a backend that is down, because all backends are down.";
    Exhausted Counter "connects_exhausted_total" "" "Connections to backends that were not begun because no descriptor or memory was left.";
    H2Streams Counter "h2_streams_total" "" "Streams that HTTP/2 clients have opened.";
    H2ResetsClient Counter "h2_resets_total" "by=\"client\"" "Streams of HTTP/2 clients that were reset, by the side or the limit that was the reason.";
    H2ResetsProxy Counter "h2_resets_total" "by=\"proxy\"" "Streams of HTTP/2 clients that were reset, by the side or the limit that was the reason.";
    H2ResetsLimit Counter "h2_resets_total" "by=\"limit\"" "Streams of HTTP/2 clients that were reset, by the side or the limit that was the reason.";
    H2ResetsBudget Counter "h2_resets_total" "by=\"budget\"" "Streams of HTTP/2 clients that were reset, by the side or the limit that was the reason.";
    H2GoawayDrain Counter "h2_goaways_total" "reason=\"drain\"" "Connections of HTTP/2 clients that were ended with GOAWAY, by reason.";
    H2GoawayRequests Counter "h2_goaways_total" "reason=\"requests\"" "Connections of HTTP/2 clients that were ended with GOAWAY, by reason.";
    H2GoawayIdle Counter "h2_goaways_total" "reason=\"idle\"" "Connections of HTTP/2 clients that were ended with GOAWAY, by reason.";
    H2GoawayStrained Counter "h2_goaways_total" "reason=\"strained\"" "Connections of HTTP/2 clients that were ended with GOAWAY, by reason.";
    H2GoawayProtocol Counter "h2_goaways_total" "reason=\"protocol\"" "Connections of HTTP/2 clients that were ended with GOAWAY, by reason.";
    H2GoawayLimit Rare "h2_goaways_total" "reason=\"limit\"" "Connections of HTTP/2 clients that were ended with GOAWAY, by reason.";
    H2GoawayResets Rare "h2_goaways_total" "reason=\"resets\"" "Connections of HTTP/2 clients that were ended with GOAWAY, by reason.";
    H2GoawayProvoked Rare "h2_goaways_total" "reason=\"provoked_resets\"" "Connections of HTTP/2 clients that were ended with GOAWAY, by reason.";
    H2GoawayUnread Rare "h2_goaways_total" "reason=\"unread\"" "Connections of HTTP/2 clients that were ended with GOAWAY, by reason.";
    H2GoawayWindows Rare "h2_goaways_total" "reason=\"windows\"" "Connections of HTTP/2 clients that were ended with GOAWAY, by reason.";
    H2GoawayData Rare "h2_goaways_total" "reason=\"data\"" "Connections of HTTP/2 clients that were ended with GOAWAY, by reason.";
    H2GoawayHeaders Rare "h2_goaways_total" "reason=\"headers\"" "Connections of HTTP/2 clients that were ended with GOAWAY, by reason.";
    H2GoawayPriority Rare "h2_goaways_total" "reason=\"priority\"" "Connections of HTTP/2 clients that were ended with GOAWAY, by reason.";
    H2GoawaySettings Rare "h2_goaways_total" "reason=\"settings\"" "Connections of HTTP/2 clients that were ended with GOAWAY, by reason.";
    H2GoawayPing Rare "h2_goaways_total" "reason=\"ping\"" "Connections of HTTP/2 clients that were ended with GOAWAY, by reason.";
    H2GoawayWindowUpdate Rare "h2_goaways_total" "reason=\"window_update\"" "Connections of HTTP/2 clients that were ended with GOAWAY, by reason.";
    H2GoawayContinuation Rare "h2_goaways_total" "reason=\"continuation\"" "Connections of HTTP/2 clients that were ended with GOAWAY, by reason.";
    H2GoawayOther Rare "h2_goaways_total" "reason=\"other\"" "Connections of HTTP/2 clients that were ended with GOAWAY, by reason.";
    H2BudgetExhausted Counter "h2_budget_exhausted_total" "" "Streams of HTTP/2 clients that were reset because the memory for them was spent.";
    Missing Counter "missing_values_total" "" "Lookups that found nothing although an invariant of the program guarantees a value. Any is a defect; please report it.";
    Cut Counter "requests_cut_total" "" "Requests that were cut when the drain time ended.";
    Accepting Gauge "accepting" "" "Workers that accept connections. Fewer than `zzz_lb_workers` if some have reached their limit or drain.";
    Draining Gauge "draining" "" "Workers that drain.";
    LogLost Counter "log_lost_bytes_total" "" "Bytes of log lines that could not be written because stderr was full.";
    CpuTime Seconds "process_cpu_seconds_total" "" "Processor time of all worker processes together, without the master.";
    Resident Gauge "process_resident_memory_bytes" "" "Resident memory of all worker processes together, without the master. Shared memory counts once for each.";
    Virtual Gauge "process_virtual_memory_bytes" "" "Virtual memory of all worker processes together, without the master.";
    Descriptors Gauge "process_open_fds" "" "Open descriptors of all worker processes together, without the master.";
}

table! {
    /// The counts of the master.
    Global
    ReloadsDone Counter "reloads_total" "result=\"done\"" "Changes of the configuration file that were read, by result.";
    ReloadsRefused Counter "reloads_total" "result=\"refused\"" "Changes of the configuration file that were read, by result.";
    LastReload Gauge "config_last_reload_successful" "" "1 if the configuration file was accepted when it was last read, else 0.";
    LastReloadAt Gauge "config_last_reload_success_timestamp_seconds" "" "When a configuration was last accepted, in seconds since 1970.";
    PairsReloaded Counter "certificate_reloads_total" "result=\"done\"" "Changes of the files of certificates, keys and client authorities, by result.";
    PairsRefused Counter "certificate_reloads_total" "result=\"refused\"" "Changes of the files of certificates, keys and client authorities, by result.";
    PlanEdition Gauge "plan_edition" "" "The edition of the plan that the workers follow. Each change of backends or settings makes a new one.";
    Upgrades Gauge "upgrade_generation" "" "Upgrades in place since the first start.";
    UpgradesRefused Counter "upgrades_refused_total" "" "Upgrades in place that were refused.";
    Respawns Counter "worker_restarts_total" "" "Workers that died and were replaced.";
    Moves Counter "dns_changes_total" "" "Changes of the addresses of names.";
    Unused Gauge "dns_addresses_unused" "" "Addresses of names that are not used, because there is no room for more.";
    LookupsFailed Counter "dns_failures_total" "" "Times that the lookup of a name began to fail.";
    LogLost Counter "log_lost_bytes_total" "" "Bytes of log lines that could not be written because stderr was full.";
    Insecure Gauge "insecure" "" "1 if the certificates of backends are not verified, else 0.";
    Workers Gauge "workers" "" "The intended number of worker processes.";
    ClientsLimit Gauge "client_connections_limit" "" "The limit of client connections of all workers together.";
    Started Gauge "process_start_time_seconds" "" "When the program started, in seconds since 1970.";
    MaxDescriptors Gauge "process_max_fds" "" "Descriptors that a process may have open.";
}

table! {
    /// The counts of a worker per backend.
    SlotCount
    #[cfg(feature = "extra-metric")]
    Extra Counter "extra_backend_total" "" "A metric that other builds do not have, to test upgrades.";
    Requests1xx Rare "requests_total" "code=\"1xx\"" "Requests sent to the backend, by class of the response status. 499: the client left before the response.";
    Requests2xx Counter "requests_total" "code=\"2xx\"" "Requests sent to the backend, by class of the response status. 499: the client left before the response.";
    Requests3xx Rare "requests_total" "code=\"3xx\"" "Requests sent to the backend, by class of the response status. 499: the client left before the response.";
    Requests4xx Counter "requests_total" "code=\"4xx\"" "Requests sent to the backend, by class of the response status. 499: the client left before the response.";
    Requests5xx Counter "requests_total" "code=\"5xx\"" "Requests sent to the backend, by class of the response status. 499: the client left before the response.";
    Requests499 Rare "requests_total" "code=\"499\"" "Requests sent to the backend, by class of the response status. 499: the client left before the response.";
    RequestsOther Rare "requests_total" "code=\"other\"" "Requests sent to the backend, by class of the response status. 499: the client left before the response.";
    FailedConnect Rare "failures_total" "reason=\"connect\"" "Requests that failed because of the backend, by reason.";
    FailedConnectTimeout Rare "failures_total" "reason=\"connect_timeout\"" "Requests that failed because of the backend, by reason.";
    FailedTls Rare "failures_total" "reason=\"tls\"" "Requests that failed because of the backend, by reason.";
    FailedClosed Rare "failures_total" "reason=\"closed\"" "Requests that failed because of the backend, by reason.";
    FailedTimeout Rare "failures_total" "reason=\"timeout\"" "Requests that failed because of the backend, by reason.";
    FailedMalformed Rare "failures_total" "reason=\"malformed\"" "Requests that failed because of the backend, by reason.";
    FailedReset Rare "failures_total" "reason=\"reset\"" "Requests that failed because of the backend, by reason.";
    FailedHttp2 Rare "failures_total" "reason=\"http2\"" "Requests that failed because of the backend, by reason.";
    FailedStatus Rare "failures_total" "reason=\"status\"" "Requests that failed because of the backend, by reason.";
    Connects Counter "connects_total" "" "Connections established to the backend.";
    ConnectsFailed Counter "connect_failures_total" "" "Connections to the backend that could not be established.";
    HandshakesFull Rare "handshakes_total" "result=\"full\"" "TLS handshakes with the backend, by result.";
    HandshakesResumed Rare "handshakes_total" "result=\"resumed\"" "TLS handshakes with the backend, by result.";
    HandshakesFailed Rare "handshakes_total" "result=\"failed\"" "TLS handshakes with the backend, by result.";
    Stale Rare "pool_stale_total" "" "Pooled connections that turned out to be closed when a request was sent on them.";
    Ejections Counter "ejections_total" "" "Times that the backend was taken down.";
    ProbesPassed Counter "probes_total" "result=\"passed\"" "Probes of the backend, by result.";
    ProbesFailed Rare "probes_total" "result=\"failed\"" "Probes of the backend, by result.";
    FromBackend Counter "received_bytes_total" "" "Bytes received from the backend.";
    ToBackend Counter "sent_bytes_total" "" "Bytes sent to the backend.";
}

table! {
    /// The times that a worker measures, without those per backend.
    OwnTime
    Request Seconds "request_duration_seconds" "" "Time from the head of a request to the end of the backend's response.";
}

table! {
    /// The times that a worker measures per backend.
    SlotTime
    Response Seconds "response_duration_seconds" "" "Time from sending a request to the head of its response.";
}

table! {
    /// The state of each backend, which is not counted.
    SlotState
    Healthy Gauge "healthy" "" "1 if the address is up. 0 if it is down, if it was added and has not passed a probe yet, or if the backend has no address.";
    InFlight Gauge "in_flight" "" "Requests in flight: sent to the backend and not completed.";
    Addresses Gauge "addresses" "" "Addresses that the name has now. Absent for a backend that is configured by its address.";
    Weight Gauge "weight" "" "The configured weight.";
    Max Gauge "max" "" "Requests that each address of the backend may have at once. Absent if there is no limit.";
    Expiry Gauge "certificate_expiry_timestamp_seconds" "" "When the backend's certificate expires, in seconds since 1970: the earliest of all addresses. Absent if none was seen.";
}

table! {
    /// The state of each certificate for clients.
    PairState
    Expiry Gauge "served_certificate_expiry_timestamp_seconds" "" "When a certificate for clients expires, in seconds since 1970.";
}

impl Global {
    /// The line of the master's table that counts the same as a worker's, if there is one.
    fn same_as(metric: &Metric) -> Option<usize> {
        Global::METRICS.iter().position(|one| one.family == metric.family && one.label == metric.label)
    }

    /// True if a line counts the same as one of the workers', and is shown with it.
    fn is_shown_with_workers(self) -> bool {
        Count::METRICS.iter().any(|one| one.family == Global::METRICS[self as usize].family)
    }
}

/// Cells in a line of 64 bytes: blocks of different writers share none.
const LINE: usize = 8;
/// Cells of a process. The master's fit in as many as a worker's.
pub const OWN: usize = ids::OWN.len().next_multiple_of(LINE);
const _: () = assert!(Global::METRICS.len() <= OWN);
/// Cells of a slot: its generation, its counts, its times.
pub const SLOT: usize = (1 + ids::SLOT.len()).next_multiple_of(LINE);

/// The cells that one process writes.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    cells: &'static [AtomicU64],
}

impl Block {
    /// The number of cells of a block with `slots` slots.
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

    /// Sets a gauge or a time.
    pub fn set(self, count: Count, to: u64) {
        self.cells[count as usize].store(to, Relaxed);
    }

    /// The value of a count.
    pub fn get(self, count: Count) -> u64 {
        self.cells[count as usize].load(Relaxed)
    }

    /// Counts a response of our own.
    pub fn add_own_response(self, status: u16) {
        let line = match status {
            308 => Count::Own308,
            400 => Count::Own400,
            404 => Count::Own404,
            405 => Count::Own405,
            408 => Count::Own408,
            414 => Count::Own414,
            417 => Count::Own417,
            421 => Count::Own421,
            431 => Count::Own431,
            501 => Count::Own501,
            502 => Count::Own502,
            503 => Count::Own503,
            504 => Count::Own504,
            505 => Count::Own505,
            _ => Count::OwnOther,
        };
        self.add(line, 1);
    }

    /// Adds to a count of the master's.
    pub fn add_global(self, count: Global, by: u64) {
        Block::raise(&self.cells[count as usize], by);
    }

    /// Sets a figure of the master's.
    pub fn set_global(self, count: Global, to: u64) {
        self.cells[count as usize].store(to, Relaxed);
    }

    /// The value of a count of the master.
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
            4 if status == 499 => SlotCount::Requests499,
            4 => SlotCount::Requests4xx,
            5 => SlotCount::Requests5xx,
            _ => SlotCount::RequestsOther,
        };
        self.add_slot(class, slot, 1);
    }

    /// Adds a duration in microseconds to a histogram.
    pub fn observe(self, time: OwnTime, us: u64) {
        self.own_histogram(time).observe(us);
    }

    fn own_histogram(self, time: OwnTime) -> Histogram {
        let from = Count::METRICS.len() + time as usize * Histogram::CELLS;
        Histogram::new(&self.cells[from..from + Histogram::CELLS])
    }

    /// Adds a duration in microseconds to a histogram of a slot's backend.
    pub fn observe_slot(self, time: SlotTime, slot: usize, us: u64) {
        if let Some(histogram) = self.histogram(time, slot) {
            histogram.observe(us);
        }
    }

    fn histogram(self, time: SlotTime, slot: usize) -> Option<Histogram> {
        let from = 1 + SlotCount::METRICS.len() + time as usize * Histogram::CELLS;
        Some(Histogram::new(&self.slot(slot)?[from..from + Histogram::CELLS]))
    }

    /// Sets the owner of a slot's counts. For a new owner they begin at zero.
    pub fn adopt(self, slot: usize, generation: u64) {
        if let Some(cells) = self.slot(slot)
            && cells[0].load(Relaxed) != generation
        {
            cells[1..].iter().for_each(|cell| cell.store(0, Relaxed));
            // A reader of this generation also reads the zeros, or later values.
            cells[0].store(generation, Release);
        }
    }

    /// Sets the gauges to zero, because the process has ended.
    pub fn reclaim(self) {
        for (cell, metric) in self.cells.iter().zip(Count::METRICS) {
            if metric.kind == Kind::Gauge {
                cell.store(0, Relaxed);
            }
        }
    }

    pub(crate) fn slot_cell(self, slot: usize, generation: u64, at: usize) -> u64 {
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
    fn gauges_end_with_their_process() {
        let block = private(0);
        block.add(Count::Clients, 4);
        block.set(Count::ClientsNow, 2);
        block.reclaim();
        assert_eq!((block.get(Count::Clients), block.get(Count::ClientsNow)), (4, 0));
    }

    #[test]
    fn own_responses_are_counted_by_their_exact_status() {
        let block = private(0);
        for (at, metric) in Count::METRICS.iter().enumerate().filter(|(_, one)| one.family == "own_responses_total") {
            let status = metric.label.trim_start_matches("code=\"").trim_end_matches('"').parse().unwrap_or(418);
            block.add_own_response(status);
            assert_eq!(block.get(Count::ALL[at]), 1, "{metric:?}");
        }
    }

    #[test]
    fn families_stand_together_and_agree() {
        let times = [OwnTime::METRICS, SlotTime::METRICS];
        for table in [Count::METRICS, Global::METRICS, SlotCount::METRICS, SlotState::METRICS, PairState::METRICS]
            .into_iter()
            .chain(times)
        {
            let mut seen: Vec<&Metric> = Vec::new();
            for metric in table {
                if let Some(before) = seen.iter().find(|before| before.family == metric.family) {
                    assert_eq!(seen.last().map(|last| last.family), Some(metric.family), "{metric:?}");
                    assert_eq!(before.help, metric.help);
                    assert_ne!(before.label, metric.label);
                }
                seen.push(metric);
            }
        }
    }
}
