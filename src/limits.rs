//! Every bound of the program, with its reason. Durations are microseconds (`_US`), sizes bytes,
//! unless the name says otherwise. Neighbouring bounds are asserted against each other at
//! compile time, at the foot of the file.

/// One microsecond-based second, the unit of the core's clock.
pub const SECOND_US: u64 = 1_000_000;

// Messages -------------------------------------------------------------------------------------

/// A whole message head, start line to empty line. Past it: 431 to a client, 502 from a backend.
pub const HEAD_BYTES: usize = 64 * 1024;
/// Field lines in a head. Past it: 431 to a client, 502 from a backend.
pub const HEAD_FIELDS: usize = 100;
/// The request target. Past it: 414. A quarter of the head, so that fields always have room.
pub const TARGET_BYTES: usize = 16 * 1024;
/// A request method. The longest registered one has 17 letters; past this: 501.
pub const METHOD_BYTES: usize = 32;
/// A trailer section, both its bytes and, by `HEAD_FIELDS`, its lines.
pub const TRAILER_BYTES: usize = 8 * 1024;
/// One chunk-size line: sixteen digits and a few extensions; nothing real uses more.
pub const CHUNK_LINE_BYTES: usize = 256;
/// All chunk extensions of one message together, so that one-byte chunks cannot carry a stream
/// of ignored bytes.
pub const CHUNK_EXTENSION_BYTES: usize = 16 * 1024;

/// 1xx responses to one request, passed on or not: one in every few seconds for an hour. Past it: 502.
pub const INTERIM_RESPONSES: u16 = 1000;

/// Options that a message's Connection fields may name: each is looked for among the fields.
pub const CONNECTION_OPTIONS: usize = 32;

// Buffers --------------------------------------------------------------------------------------

/// One pooled block: a read fills at most one, and the largest head fits in one.
pub const BLOCK_BYTES: usize = 64 * 1024;
/// Room kept before and after a block's bytes, enough for a chunk-size line and its CRLF.
pub const BLOCK_MARGIN_BYTES: usize = 16;
/// The smallest buffer for bytes that wait outside a block: a typical half-received head.
pub const SMALL_BUFFER_BYTES: usize = 512;
/// Free blocks that a worker keeps; more are given back to the system.
pub const POOL_BLOCKS: usize = 32;
/// Bytes queued towards a connection at which its source stops being read.
pub const QUEUE_HIGH_BYTES: usize = 64 * 1024;
/// Data up to this size is copied behind what is queued already; beyond, its block is handed over where
/// that is half full, or first.
pub const COPY_BYTES: usize = 8 * 1024;

// Time -----------------------------------------------------------------------------------------

/// The grain of deadlines: how late one may fire.
pub const TIMER_TICK_US: u64 = 16_384;
/// Ticks in the wheel: later deadlines are looked at once a turn (16.8 s).
pub const TIMER_TICKS: usize = 1024;
/// How long a client may send nothing after an answer that ends its connection before that is
/// closed. What it sends until then is read and dropped, so that the answer is not lost to a reset.
pub const LINGER_IDLE_US: u64 = 2 * SECOND_US;
/// How long that may go on in all.
pub const LINGER_US: u64 = 30 * SECOND_US;
/// How long a tunnel may be silent in both directions.
pub const TUNNEL_IDLE_US: u64 = 3600 * SECOND_US;

// A turn of the loop ---------------------------------------------------------------------------

/// How long handshakes that are under way may take to end when a port is closed for good: a round trip to
/// nearly anywhere. Whoever comes in that time is not answered, and refused when asking again.
pub const LISTENERS_LEAVE_US: u64 = SECOND_US / 5;
/// Events taken from the poller at once.
pub const POLL_EVENTS: usize = 256;
/// Connections accepted, at most, before others are looked after.
pub const ACCEPTS_PER_TURN: usize = 16;
/// Turns in a row in which connections waited, after which one more is accepted in each.
pub const ACCEPT_STREAK: usize = 4;
/// Passed deadlines acted on before others are looked after.
pub const EXPIRIES_PER_TURN: usize = 4;
/// Full blocks read from one connection before others are looked after.
pub const READS_PER_TURN: usize = 4;
/// Pieces sent with one system call.
pub const SEND_SLICES: usize = 8;
/// How long accepting pauses when the system has no descriptor left for a connection.
pub const ACCEPT_PAUSE_US: u64 = SECOND_US / 10;
/// How long the system must have had room before a new lack of it is news.
pub const ACCEPT_STEADY_US: u64 = 5 * SECOND_US;
/// How often a worker that is awake notes what memory and processor time it has used.
pub const USAGE_US: u64 = SECOND_US;

// Answers of our own ---------------------------------------------------------------------------

/// What Retry-After says with a 503, in seconds: soon, but not at once.
pub const RETRY_AFTER_S: &str = "1";
/// How much of a request is read and dropped after its response, to keep the connection.
pub const DISCARD_BYTES: usize = 16 << 20;
/// Connections to the admin port in one worker; more are closed at once.
pub const ADMIN_CONNECTIONS: usize = 64;
/// How long a worker that has drained still answers those on the admin port who have asked, or are
/// about to.
pub const ADMIN_DRAIN_US: u64 = SECOND_US;
/// A portion of the metrics' text that is made before others are looked after.
pub const METRICS_PORTION_BYTES: usize = 16 * 1024;
/// Cells that are read for such a portion: with hundreds of workers adding them up takes longer
/// than writing the sums down, and each may have to come from another processor's cache.
pub const METRICS_CELLS: usize = 16 * 1024;

// Log ------------------------------------------------------------------------------------------

/// Log written at once: what a pipe with any room takes without waiting (POSIX, PIPE_BUF).
pub const LOG_PIECE_BYTES: usize = 4096;
/// How much is kept of what TLS says of a failure.
pub const FAILURE_BYTES: usize = 96;
/// How much of a refused message `--trace` shows.
pub const TRACE_REFUSED_BYTES: usize = 4096;

// HTTP/2 ---------------------------------------------------------------------------------------

/// The payload of a frame that we take: the least there may be (RFC 9113, 6.5.2), so that a whole
/// frame always has room in a block. We send no longer ones either.
pub const H2_FRAME_BYTES: usize = 16 * 1024;
/// The table that a peer's fields are put into, and by which it may shorten them (RFC 7541, 4.2).
pub const H2_TABLE_BYTES: usize = 4096;
/// A list of fields, each counted with 32 more (RFC 9113, 6.5.2): as large as a head may be.
pub const H2_LIST_BYTES: usize = HEAD_BYTES;
/// How much the fields of one block may come to, counted likewise, before decoding them is given up: past
/// the limits they are not kept, but still copied.
pub const H2_DECODED_BYTES: usize = 4 * H2_LIST_BYTES;
/// A block of fields as it is received, over all of its frames: what may be decoded, so that a message whose
/// fields are too many is alone to be refused for them. A connection has one at once: this, in a buffer of up
/// to twice the size, is what a backend can have a worker hold for each of its connections.
pub const H2_BLOCK_BYTES: usize = H2_DECODED_BYTES;
/// Frames that one block of fields may be in: four times as many as it takes.
pub const H2_BLOCK_FRAMES: u32 = 64;
/// Memory that a decoder keeps for a name, and for a value, once their block is read.
pub const H2_STRING_BYTES: usize = 4096;
/// Streams open at once on a connection, by either side, whatever the peer would allow.
pub const H2_STREAMS: u32 = 128;
/// How long a backend with TLS is taken to speak but one version of HTTP after it has shown so: it may
/// have been about one resource, or one server of several behind its address.
pub const SEEN_US: u64 = 60 * SECOND_US;
/// What a stream's sender may send before its receiver has taken any of it, at first.
pub const H2_WINDOW_BYTES: u32 = 64 * 1024;
/// To what that grows where nothing has to wait: 1 MiB fills 8 Gbit/s over a round trip of 1 ms.
pub const H2_WINDOW_MAX_BYTES: u32 = 1 << 20;
/// By how much the windows of all streams in one worker may have grown together, what their clients
/// have not taken of streams that are over included: with a first window and a full queue for each
/// client, what slow ones can have a worker hold.
pub const H2_GROWTH_BYTES: u32 = 8 << 20;
/// The connection's own window. It is given back on receipt, so that no stream waits for another.
pub const H2_CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Frames that move no message on before a peer has sent or taken anything else.
pub const H2_IDLE_FRAMES: u32 = 1000;
/// How many more of those a message or a piece of content earns.
pub const H2_IDLE_FRAMES_EARNED: u32 = 4;
/// The least that a WINDOW_UPDATE may be for, on average, without costing any of these: servers send
/// one each few KiB.
pub const H2_UPDATE_BYTES: u32 = 1024;
/// WINDOW_UPDATEs that what was sent may have paid for and that have not come: by 32 MiB under way,
/// on the stream and on the connection.
pub const H2_UPDATES: u32 = 64 * 1024;
/// HTTP/2 connections in a row that a backend may end for one and the same fault, as may be a client's,
/// without a response between: from then on it is taken to be its own.
pub const H2_FAULTS: u8 = 8;
/// Answers to a peer's frames that may wait to be sent, apart from what streams have to say.
pub const H2_REPLY_BYTES: usize = 64 * 1024;

// Backends -------------------------------------------------------------------------------------

/// How often one request is tried, first try included.
pub const TRIES: usize = 8;
/// How often a request is sent again that a backend broke off and that may be sent twice. It may
/// be what its backends die of, so it is not shown to all of them.
pub const REPEATS: usize = 2;
/// A plan, as the master hands it to the workers: every backend with names as long as they may be.
pub const PLAN_BYTES: usize = 2 << 20;
/// Backends' addresses at once, a name's each for itself: each costs memory in every worker.
pub const ADDRESSES: usize = 1024;
/// Slots for them: all can be others at once, while those that go rest. What no slot uses costs no memory.
pub const SLOTS: usize = 2 * ADDRESSES;
/// How long a slot that was given up is left alone, so that what is under way there can end: longer
/// than any probe takes that is not wildly slow.
pub const SLOT_REST_US: u64 = 10 * SECOND_US;
/// How soon it is seen whether a slot that has rested for long enough is rid of its requests.
pub const SLOT_LOOK_US: u64 = SECOND_US;
/// How often it is looked for a moment at which no worker is between two stores, where one has died there.
pub const SETTLE_LOOKS: usize = 10_000;
/// Picks by the strategy before any backend will do that was not tried and has room.
pub const PICKS: usize = 4;
/// Retries that are made however few requests there are, a second, by all workers together.
pub const RETRY_FLOOR: u64 = 3;
/// For how long a request pays for retries, once to twice: an outage is met by what came just before.
pub const RETRY_WINDOW_US: u64 = 5 * SECOND_US;
/// Requests that wait in one worker for a backend that is below its own limit.
pub const WAITING_REQUESTS: usize = 1024;
/// How often a worker looks whether another has made room for them.
pub const WAITING_LOOK_US: u64 = SECOND_US / 200;
/// How soon a backend whose queue of connections was full is connected to again: in less it hardly makes
/// room, and more would show in the response time.
pub const REDIAL_US: u64 = SECOND_US / 100;
/// How many connections are asked for again then; the others have their turn next.
pub const REDIALS: usize = 64;
/// The least time between two looks at which probes are due.
pub const PROBE_LOOK_US: u64 = SECOND_US / 100;
/// Between the first probes of backends that are added at once: they are probed soon, and not all in one turn.
pub const PROBE_ADDED_US: u64 = SECOND_US / 1000;
/// The part of the interval between probes by which one may come sooner, so that they spread.
pub const PROBE_JITTER: u64 = 10;
/// After how long a backend is tried again that is down and not probed.
pub const UNPROBED_US: u64 = 5 * SECOND_US;
/// The least share of its turns, as one part of this many, that a backend gets in its slow start.
pub const SLOW_START_PARTS: u64 = 10;
/// Idle connections kept to one backend by one worker.
pub const POOL_CONNECTIONS: usize = 1024;
/// How long an idle connection to a backend is kept. Servers close theirs after 5 to 75 seconds,
/// and losing the race costs a retry.
pub const POOL_IDLE_US: u64 = 30 * SECOND_US;
/// How recently a pooled connection must have been used to carry a request that cannot be sent
/// twice: within this, hardly any server gives a connection up.
pub const POOL_FRESH_US: u64 = SECOND_US;
/// Memory that the saved head of a finished request may keep for the next.
pub const SAVED_HEAD_BYTES: usize = 4096;
/// Finished exchanges kept for their memory.
pub const SPARE_EXCHANGES: usize = 64;

// Processes ------------------------------------------------------------------------------------

/// Connections the kernel holds for a listener until they are accepted; it cuts this down to
/// `net.core.somaxconn`, 4096 by default.
pub const LISTEN_BACKLOG: i32 = 4096;
/// A worker that accepted and lived this long is replaced at once.
pub const STEADY_LIFE_US: u64 = SECOND_US;
/// The pause before one is replaced that accepted and did not live so long, where that of the one before
/// it was no longer either: its clients are to wait for less than a tenth of a second, and a worker that
/// every request ends is to cost little more than that.
pub const RESPAWN_PAUSE_US: u64 = SECOND_US / 50;
/// Deaths in a row of workers that never accepted, after which the master gives up. With the
/// waits between them that takes 16 seconds.
pub const RESPAWN_DEATHS: u32 = 10;
/// How long a worker's second early death in a row delays its replacement; each further one
/// doubles it. The first does not delay it.
pub const RESPAWN_DELAY_US: u64 = SECOND_US / 10;
/// The longest such delay.
pub const RESPAWN_DELAY_MOST_US: u64 = 5 * SECOND_US;
/// What workers get beyond the drain time to cut what is left and exit, before they are killed.
pub const DRAIN_GRACE_US: u64 = 2 * SECOND_US;
/// How long a worker that is told to stop, and to drain later, waits past that for its master to say so: it
/// closes the listeners first, so that nobody waits where no worker looks.
pub const DRAIN_DELAY_SLACK_US: u64 = SECOND_US / 2;
/// Descriptors of a worker that are not connections: the standard three, its listener, the
/// poller, the signal pipe, and files opened for a moment.
pub const DESCRIPTOR_RESERVE: u64 = 32;
/// Those that it has at least: the standard three, its listener, the poller, and the signal pipe's two.
pub const WORKER_DESCRIPTORS: usize = 7;
/// Clients one worker holds when only the descriptor limit decides: some systems have none.
pub const WORKER_CONNECTIONS: u64 = 1_000_000;
/// Connections, and so threads, of a demo backend.
pub const DEMO_CONNECTIONS: usize = 128;
/// The longest body that a demo backend shows in its answer.
pub const DEMO_BODY_BYTES: usize = 1024;
/// How long a demo backend keeps a connection on which nothing comes.
pub const DEMO_IDLE_US: u64 = 60 * SECOND_US;

const _: () = assert!(RESPAWN_DELAY_US < RESPAWN_DELAY_MOST_US && RESPAWN_DEATHS > 1);
const _: () = assert!((WORKER_DESCRIPTORS as u64) < DESCRIPTOR_RESERVE);
const _: () = assert!(DRAIN_DELAY_SLACK_US < DRAIN_GRACE_US);
const _: () = assert!(RESPAWN_PAUSE_US < RESPAWN_DELAY_US);
const _: () = assert!(LINGER_IDLE_US < LINGER_US);
const _: () = assert!(POOL_FRESH_US < POOL_IDLE_US);
const _: () = assert!(REPEATS < TRIES && TRIES <= u8::MAX as usize);
const _: () = assert!(TIMER_TICKS.is_multiple_of(64));
const _: () = assert!(SMALL_BUFFER_BYTES < BLOCK_BYTES / 4);
const _: () = assert!(BLOCK_BYTES + 2 * BLOCK_MARGIN_BYTES < u32::MAX as usize);
const _: () = assert!(HEAD_BYTES <= BLOCK_BYTES);
const _: () = assert!(METRICS_PORTION_BYTES * 2 <= BLOCK_BYTES);
const _: () = assert!(TARGET_BYTES * 4 <= HEAD_BYTES);
const _: () = assert!(TRAILER_BYTES <= BLOCK_BYTES);
const _: () = assert!(H2_LIST_BYTES < H2_BLOCK_BYTES && H2_BLOCK_BYTES < H2_BLOCK_FRAMES as usize * H2_FRAME_BYTES);
const _: () = assert!(CHUNK_LINE_BYTES < CHUNK_EXTENSION_BYTES);

/// How long a start, and the taking up of a changed file, waits for the names of backends to be looked up,
/// so that the first requests find them.
pub const NAMES_WAIT_US: u64 = 2 * SECOND_US;
/// Symbolic links followed on the way to the configuration file, as many as the system follows.
pub const CONFIG_LINKS: usize = 40;
/// How long changes of it must have paused before it is read: it may not be written to its end.
pub const CONFIG_PAUSE_US: u64 = SECOND_US / 50;
/// How long after the first change it is read whether or not they pause.
pub const CONFIG_SETTLE_US: u64 = SECOND_US / 10;
/// How long it is left to one who has begun to write to it and has not closed it; it is read then all
/// the same, for it may be kept open.
pub const CONFIG_WRITING_US: u64 = SECOND_US;
/// How often it is looked at where the system does not tell of changes.
pub const CONFIG_POLL_US: u64 = SECOND_US;
/// What is read at once of the changes that the system tells of: room for one with the longest name.
pub const INOTIFY_BYTES: usize = 4096;
/// How often that is done before others are looked after.
pub const INOTIFY_READS: usize = 16;
/// The same where each tells what has happened to one directory or file on the way to it: more than there
/// are in any path of ours.
pub const VNODE_EVENTS: usize = 64;

const _: () = assert!(CONFIG_SETTLE_US < CONFIG_WRITING_US);
// An event and a name of 255 bytes with its NUL.
const _: () = assert!(INOTIFY_BYTES >= 16 + 256);

// Options --------------------------------------------------------------------------------------

/// Backends in one configuration: each costs memory in every worker.
pub const BACKENDS: usize = 1024;
/// Ranges of trusted peers: each is compared with every peer.
pub const TRUSTED_RANGES: usize = 1024;
/// Workers that can be asked for; more than the CPUs of any machine we know of.
pub const WORKERS: u64 = 1024;
/// Clients held at once that can be asked for; past the descriptors that a machine has.
pub const CLIENT_CONNECTIONS: u64 = 10_000_000;
/// The shortest time limit: anything less is below the grain of the timers.
pub const DURATION_MIN_US: u64 = SECOND_US / 1000;
/// The longest time limit; a longer one is surely a slip.
pub const DURATION_MAX_US: u64 = 24 * 3600 * SECOND_US;
/// A host's name (RFC 1035, 2.3.4, as text).
pub const HOST_NAME_BYTES: usize = 253;
/// One label of a host's name (RFC 1035, 2.3.4).
pub const HOST_LABEL_BYTES: usize = 63;
/// The path of a socket: what fits in `sun_path` with its final NUL.
pub const UNIX_PATH_BYTES: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
/// A Host or Via name, or an account, given as an option: room for any real one.
pub const NAME_BYTES: usize = 255;
/// How many names a sentence lists.
pub const SHOWN_NAMES: usize = 3;
/// How much of a wrong argument an error line shows.
pub const SHOWN_CHARS: usize = 120;
/// The longest word that a nearest name is sought for: twice the longest option.
pub const COMPARED_BYTES: usize = 40;
/// The part of /etc/hosts that is read. Block lists run to a few megabytes.
pub const HOSTS_BYTES: usize = 4 * 1024 * 1024;

/// The port listened on when none is given.
pub const DEFAULT_PORT: u16 = 8080;
/// The ports on loopback tried when no backend is given.
pub const DEFAULT_BACKEND_PORTS: [u16; 2] = [9001, 9002];
/// To connect to a backend: longer than one lost SYN takes (1 s), shorter than two (3 s).
pub const DEFAULT_CONNECT_US: u64 = 2 * SECOND_US;
/// To receive a whole request head: ample for a slow link, short for a client that stalls.
pub const DEFAULT_REQUEST_US: u64 = 10 * SECOND_US;
/// To the first byte of a response: what other proxies give.
pub const DEFAULT_RESPONSE_US: u64 = 60 * SECOND_US;
/// Between requests: above the 60 s after which balancers and browsers before us drop theirs.
pub const DEFAULT_IDLE_US: u64 = 75 * SECOND_US;
/// To drain: below the 30 s after which service managers and containers are killed.
pub const DEFAULT_DRAIN_US: u64 = 25 * SECOND_US;
/// For a worker's loop to turn: far more than anything in it takes.
pub const DEFAULT_WATCHDOG_US: u64 = 10 * SECOND_US;

const _: () = assert!(DURATION_MIN_US <= DEFAULT_CONNECT_US && DEFAULT_IDLE_US <= DURATION_MAX_US);
const _: () = assert!(DEFAULT_CONNECT_US < DEFAULT_RESPONSE_US);
const _: () = assert!(HOST_LABEL_BYTES < HOST_NAME_BYTES && HOST_NAME_BYTES <= NAME_BYTES);

// Upgrade --------------------------------------------------------------------------------------

/// How long a program may take to say whether it could take over: it reads files, and waits a little for
/// names that are new.
pub const PREFLIGHT_US: u64 = 10 * SECOND_US;
/// What is kept of what it says.
pub const PREFLIGHT_TEXT_BYTES: usize = 4096;
/// Generations of workers from before upgrades that may drain at once; past it the oldest is ended.
pub const GENERATIONS: usize = 8;
/// Seats for workers in the shared memory at least, so that there can be more workers after an upgrade.
pub const SEATS_LEAST: usize = 64;
/// How often new workers are looked at until all accept.
pub const READY_LOOK_US: u64 = 2_000;
/// Into so many parts the time is divided in which a worker's loop must turn: it does so in each though
/// there is nothing to do, and the master looks in each whether it has.
pub const WATCHDOG_PARTS: u64 = 4;
/// How late the master itself may be before it trusts no worker's silence.
pub const WATCH_LATE_US: u64 = SECOND_US;

/// How soon a program that cannot hear of signals tries to again.
pub const SIGNALS_RETRY_US: u64 = SECOND_US / 10;

/// How soon a service manager that did not keep up is told again.
pub const NOTIFY_RETRY_US: u64 = SECOND_US / 10;
/// What it is told that may wait until it does.
pub const NOTIFY_WAITING: usize = 8;
/// Listeners that a service manager may pass on.
pub const ACTIVATED_LISTENERS: i32 = 64;
/// How long a health check takes at most.
pub const HEALTHCHECK_US: u64 = 2 * SECOND_US;
/// What it reads of an answer: the version and the status.
pub const HEALTHCHECK_BYTES: usize = "HTTP/1.1 200".len();

// Configuration --------------------------------------------------------------------------------

/// A JSON text: a thousand backends take a tenth of it.
pub const JSON_BYTES: usize = 1024 * 1024;
/// Arrays and objects within each other: the reader calls itself for each.
pub const JSON_DEPTH: usize = 64;
/// Problems told of one file; who has more has plenty to mend.
pub const FILE_PROBLEMS: usize = 100;
/// Failures and passes in a row that can be asked for; more would take hours.
pub const HEALTH_COUNT: u64 = 1000;
/// What a probe asks for: room for a long query.
pub const HEALTH_PATH_BYTES: usize = 1024;
/// Requests in flight that a backend's own limit can be set to.
pub const BACKEND_MAX: u64 = 1_000_000;
/// The path of a file (PATH_MAX, without its NUL).
pub const FILE_PATH_BYTES: usize = 4095;

/// Between two probes of a backend.
pub const DEFAULT_HEALTH_INTERVAL_US: u64 = 5 * SECOND_US;
/// How long a probe may take: shorter than the interval, so that one ends before another begins.
pub const DEFAULT_HEALTH_TIMEOUT_US: u64 = 2 * SECOND_US;
/// Failures in a row that take a backend out: one may be chance.
pub const DEFAULT_HEALTH_FAILS: u32 = 3;
/// Passes in a row that bring it back.
pub const DEFAULT_HEALTH_PASSES: u32 = 2;
/// Retries for each hundred requests.
pub const DEFAULT_RETRY_PERCENT: u32 = 20;

const _: () = assert!(DEFAULT_HEALTH_TIMEOUT_US < DEFAULT_HEALTH_INTERVAL_US);
const _: () = assert!(HEALTH_PATH_BYTES <= TARGET_BYTES);

// Names ----------------------------------------------------------------------------------------

/// A DNS message: what the length before it on TCP can say (RFC 1035, 4.2.2).
pub const DNS_MESSAGE_BYTES: usize = 65_535;
/// A name in a DNS message, lengths and the root's empty label included (RFC 1035, 3.1).
pub const DNS_NAME_BYTES: usize = 255;
/// Pointers followed for one name: a name of `DNS_NAME_BYTES` has no more labels to be pointed to.
pub const DNS_POINTERS: usize = 127;
/// Records of an answer that are looked at: several times the addresses that are kept.
pub const DNS_RECORDS: usize = 256;
/// CNAME records followed from one name; what resolvers follow too, and more than anyone sets up.
pub const DNS_CNAMES: usize = 16;
/// Addresses of one name that are used.
pub const NAME_ADDRESSES: usize = 64;
/// Names that are followed: all that one configuration may have, and those of another that may take
/// its place.
pub const NAMES: usize = 2 * BACKENDS;
/// Names that are looked up at once, each with up to two queries that hold a descriptor. Servers
/// answer within milliseconds, so that the others' turn comes soon.
pub const DNS_LOOKUPS: usize = 32;
/// Messages on a query's socket that do not answer it. Their like comes from one who guesses ids,
/// so that another socket with another id is used before many were tried.
pub const DNS_STRAYS: u32 = 16;
/// The least time that an answer is used: TTLs of 0 would have every name asked for all the time.
pub const DNS_TTL_MIN_US: u64 = SECOND_US;
/// The longest: a change is met within it, whatever TTL was set before.
pub const DNS_TTL_MAX_US: u64 = 300 * SECOND_US;
/// How soon a lookup that failed is made again; each further failure doubles it.
pub const DNS_RETRY_US: u64 = SECOND_US;
/// The longest such delay.
pub const DNS_RETRY_MAX_US: u64 = 30 * SECOND_US;
/// The port of name servers.
pub const DNS_PORT: u16 = 53;

/// The part of /etc/resolv.conf that is read.
pub const RESOLV_CONF_BYTES: usize = 64 * 1024;
/// Name servers used (resolv.conf(5), MAXNS).
pub const NAME_SERVERS: usize = 3;
/// Domains that are searched for a name (resolv.conf(5)).
pub const SEARCH_DOMAINS: usize = 6;
/// The most dots that `ndots` can ask for (resolv.conf(5)).
pub const NDOTS: usize = 15;
/// How long a server has to answer when nothing is said, in seconds (resolv.conf(5), RES_TIMEOUT).
pub const DNS_TIMEOUT_S: u64 = 5;
/// The most that `timeout` can ask for, in seconds (resolv.conf(5)).
pub const DNS_TIMEOUT_MAX_S: u64 = 30;
/// Rounds of asking all servers when nothing is said (resolv.conf(5), RES_DFLRETRY).
pub const DNS_ATTEMPTS: u32 = 2;
/// The most that `attempts` can ask for (resolv.conf(5)).
pub const DNS_ATTEMPTS_MAX: u32 = 5;

const _: () = assert!(DNS_TTL_MIN_US < DNS_TTL_MAX_US && DNS_RETRY_US < DNS_RETRY_MAX_US);
const _: () = assert!(NAME_ADDRESSES <= DNS_RECORDS && DNS_CNAMES < DNS_RECORDS);
const _: () = assert!(NAME_ADDRESSES <= ADDRESSES && BACKENDS <= ADDRESSES && SLOTS <= u16::MAX as usize);
const _: () = assert!(HOST_NAME_BYTES + 2 == DNS_NAME_BYTES);
const _: () = assert!(DNS_TIMEOUT_S <= DNS_TIMEOUT_MAX_S && DNS_ATTEMPTS <= DNS_ATTEMPTS_MAX);
const _: () = assert!(DNS_LOOKUPS >= 1);

// Check ----------------------------------------------------------------------------------------

/// Problems told of one command line; who has more has plenty to mend.
pub const LINE_PROBLEMS: usize = FILE_PROBLEMS;
/// Backends dialled at once: a thousand that do not answer take 16 turns, and no router takes so
/// few connections for a scan.
pub const CHECK_DIALS: usize = 64;

/// What is read at once of a handshake.
pub const CHECK_READ_BYTES: usize = 4096;

const _: () = assert!(CHECK_DIALS >= 1 && CHECK_DIALS <= ADDRESSES);

// TLS ------------------------------------------------------------------------------------------

/// A file of authorities' certificates: the bundles of systems have a quarter of a megabyte.
pub const ROOT_FILE_BYTES: u64 = 8 << 20;
/// Files read of a directory of them: systems have some 150 authorities, under two or three names.
pub const ROOT_DIRECTORY_FILES: usize = 4096;
/// Directories that one variable can name.
pub const ROOT_DIRECTORIES: usize = 16;
/// Authorities that are kept.
pub const ROOTS: usize = 4096;
/// Names whose sessions are kept to be resumed, each with up to eight tickets: as many as there
/// can be backends.
pub const TLS_SESSIONS: usize = BACKENDS;
/// Bytes that a session takes to be sent, and has not sent: two of the largest records, so that
/// one can be made while the other is sent.
pub const TLS_SEND_BYTES: usize = 2 * TLS_RECORD_BYTES;
/// Bytes that a session has decrypted and nobody has taken at which it takes no more: the library
/// has this limit fixed. It may pass it by what one more record brings.
pub const TLS_RECEIVE_BYTES: usize = TLS_RECORD_BYTES;
/// The plaintext of one record (RFC 8446, section 5.1).
pub const TLS_RECORD_BYTES: usize = 16 * 1024;
/// Application protocols that can be offered.
pub const ALPN_PROTOCOLS: usize = 8;
/// Ciphertext read at once: four records of the greatest size, about what a full socket has.
pub const TLS_READ_BYTES: usize = 64 * 1024;
/// Sockets that still send the last of a session whose connection is gone, as the system does for those
/// without TLS; with more they are closed at once.
pub const TLS_LEAVING: usize = 1024;
/// How long one may take over that.
pub const TLS_LEAVING_US: u64 = 30 * SECOND_US;
/// Alerts of one session that are kept until they are told.
pub const TLS_ALERTS: usize = 4;
/// Lines of one connection's `--tls-trace` that wait to be written.
pub const TLS_TRACE_LINES: usize = 16;
/// Names of a certificate that are shown; some have hundreds.
pub const SHOWN_CERTIFICATE_NAMES: usize = 10;
/// How much of a certificate's subject is shown.
pub const SHOWN_SUBJECT_CHARS: usize = 256;
