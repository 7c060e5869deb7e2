//! One HTTP/2 connection of a gateway, with the program's own `http2` on a blocking socket. Threads of the streams
//! send, and one thread receives. Content waits here for the peer's windows.

use super::DEADLINE;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use zzz_lb::collections::slab::Key;
use zzz_lb::hpack;
use zzz_lb::http::head::HeadRef;
use zzz_lb::http::part::Role;
use zzz_lb::http2::connection::Connection;
use zzz_lb::http2::{ErrorCode, Spare};

/// The content of a stream that may wait for the peer's windows. A thread that has more waits, too.
const WAITING_BYTES: usize = 256 * 1024;

/// Data to be sent on a stream.
#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    trailers: Option<Vec<u8>>,
    ended: bool,
}

/// The connection and its streams; `T` is the gateway's own data about a stream.
pub struct Streams<T> {
    /// The protocol.
    pub h2: Connection,
    /// The data of each stream that is not complete.
    pub owners: BTreeMap<u32, T>,
    /// False once the connection has ended.
    pub open: bool,
    socket: TcpStream,
    waiting: BTreeMap<u32, Waiting>,
}

impl<T> Streams<T> {
    /// Sends frames. If the other side is gone, the receiving thread notices.
    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    /// Sends a field section.
    pub fn fields(&mut self, id: u32, block: &[u8], end: bool) {
        let mut out = Vec::new();
        self.h2.write_fields(id, block, end, &mut out);
        self.write(&out);
    }

    /// Gives credit for content that was passed on.
    pub fn delivered(&mut self, id: u32, length: usize) {
        let mut out = Vec::new();
        self.h2.delivered(id, length, Some(Spare { free: 0, lent: u32::MAX }), &mut out);
        self.write(&out);
    }

    /// Resets a stream, if it is open.
    pub fn reset(&mut self, id: u32, code: ErrorCode) {
        let mut out = Vec::new();
        self.forget(id);
        self.h2.forget(id, code, &mut out);
        self.write(&out);
    }

    /// Removes the data of a stream.
    pub fn forget(&mut self, id: u32) -> Option<T> {
        self.waiting.remove(&id);
        self.owners.remove(&id)
    }

    /// Removes the data of streams that are closed on both sides.
    pub fn forget_closed(&mut self) {
        let living: BTreeSet<u32> = self.h2.owners().map(id_of).collect();
        self.owners.retain(|id, _| living.contains(id));
    }

    /// Sends as much as the windows allow.
    pub fn flush(&mut self) {
        let ids: Vec<u32> = self.waiting.keys().copied().collect();
        ids.into_iter().for_each(|id| self.h2.line_up(id));
        let mut out = Vec::new();
        while let Some((id, _, room)) = self.h2.next_in_line() {
            let Some(waiting) = self.waiting.get_mut(&id) else { continue };
            let n = room.min(waiting.bytes.len());
            let last = waiting.ended && n == waiting.bytes.len();
            if n == 0 && !last {
                continue;
            }
            let trailers = if last { waiting.trailers.take() } else { None };
            let only_trailers = trailers.is_some() && n == 0;
            if !only_trailers && let Some(header) = self.h2.data(id, n, last && trailers.is_none()) {
                out.extend_from_slice(&header);
                out.extend(waiting.bytes.drain(..n));
            }
            if let Some(trailers) = trailers {
                self.h2.write_fields(id, &trailers, true, &mut out);
            }
            if last {
                self.waiting.remove(&id);
            } else {
                self.h2.line_up(id);
            }
        }
        self.write(&out);
    }
}

/// A connection that several threads use.
pub struct Shared<T>(Arc<(Mutex<Streams<T>>, Condvar)>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Shared<T> {
        Shared(self.0.clone())
    }
}

impl<T> Shared<T> {
    /// Sends the first frames.
    pub fn new(role: Role, socket: &TcpStream) -> Shared<T> {
        let h2 = Connection::new(role);
        let mut greeting = Vec::new();
        h2.greet(&mut greeting);
        let socket = socket.try_clone().expect("a second handle");
        let (owners, waiting) = (BTreeMap::new(), BTreeMap::new());
        let mut streams = Streams { h2, owners, open: true, socket, waiting };
        streams.write(&greeting);
        Shared(Arc::new((Mutex::new(streams), Condvar::new())))
    }

    /// The connection, for one thread.
    pub fn lock(&self) -> MutexGuard<'_, Streams<T>> {
        self.0.0.lock().unwrap()
    }

    /// Lets waiting threads look again.
    pub fn notify(&self) {
        self.0.1.notify_all();
    }

    /// Waits until `condition` holds, or for the deadline.
    pub fn wait_while(&self, condition: impl Fn(&mut Streams<T>) -> bool) -> MutexGuard<'_, Streams<T>> {
        self.0.1.wait_timeout_while(self.lock(), DEADLINE, |streams| condition(streams)).unwrap().0
    }

    /// Ends the connection. All data of its streams is dropped.
    pub fn end(&self) -> BTreeMap<u32, T> {
        let mut streams = self.lock();
        streams.open = false;
        streams.waiting.clear();
        let _ = streams.socket.shutdown(Shutdown::Both);
        let owners = std::mem::take(&mut streams.owners);
        drop(streams);
        self.notify();
        owners
    }

    /// Sends content. Returns false if the stream is gone.
    pub fn send(&self, id: u32, piece: &[u8]) -> bool {
        let is_full =
            |streams: &Streams<T>| streams.waiting.get(&id).is_some_and(|one| one.bytes.len() > WAITING_BYTES);
        let mut streams = self.wait_while(|streams| is_full(streams));
        if !streams.owners.contains_key(&id) {
            return false;
        }
        streams.waiting.entry(id).or_default().bytes.extend_from_slice(piece);
        streams.flush();
        true
    }

    /// Sends the end of a message, with its trailers.
    pub fn finish(&self, id: u32, trailers: &[(String, String)]) {
        let mut streams = self.lock();
        if !streams.owners.contains_key(&id) {
            return;
        }
        let waiting = streams.waiting.entry(id).or_default();
        waiting.ended = true;
        if !trailers.is_empty() {
            waiting.trailers = Some(block(trailers));
        }
        streams.flush();
    }

    /// Waits until everything of a stream is sent, or it is gone.
    pub fn wait_until_sent(&self, id: u32) {
        drop(self.wait_while(|streams| streams.waiting.contains_key(&id) && streams.owners.contains_key(&id)));
    }
}

/// Fields as a field block.
pub fn block(fields: &[(String, String)]) -> Vec<u8> {
    let mut block = Vec::new();
    fields.iter().for_each(|(name, value)| hpack::encode(&mut block, name.as_bytes(), &bytes(value)));
    block
}

/// The bytes of text in Latin-1.
pub fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|one| one as u8).collect()
}

/// Bytes as text in Latin-1.
pub fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| byte as char).collect()
}

/// The fields of a head as lines, each with its CRLF.
pub fn lines_of(head: HeadRef<'_>) -> String {
    head.fields().map(|(_, name, value)| format!("{}: {}\r\n", text(name), text(value))).collect()
}

/// The key that stands for a stream.
pub fn key_of(id: u32) -> Key {
    Key::from_token(id.into())
}

/// The stream's number in its key.
pub fn id_of(key: Key) -> u32 {
    key.index() as u32
}
