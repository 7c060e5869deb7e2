//! One end of a connection: raw bytes out, bytes or messages in. Every wait has a deadline.

use super::message::{Body, BodyReader, Framing, Message, read_head};
use super::{DEADLINE, shown, system};
use rustls::{ClientConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A session of a client, and its socket.
type Session = StreamOwned<ClientConnection, TcpStream>;

/// A stream socket of either family, or a TLS session over one.
pub enum Socket {
    /// An IP connection.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over an IP connection, for one thread.
    Tls(Box<Mutex<Session>>),
}

impl Socket {
    /// Wraps a session.
    pub fn tls(session: Session) -> Socket {
        Socket::Tls(Box::new(Mutex::new(session)))
    }

    fn set_timeout(&self, timeout: Duration) {
        let result = match self {
            Socket::Tcp(socket) => socket.set_read_timeout(Some(timeout)),
            Socket::Unix(socket) => socket.set_read_timeout(Some(timeout)),
            Socket::Tls(session) => session.lock().unwrap().sock.set_read_timeout(Some(timeout)),
        };
        result.expect("the timeout is not zero");
    }

    fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => (&*socket).read(into),
            Socket::Unix(socket) => (&*socket).read(into),
            Socket::Tls(session) => session.lock().unwrap().read(into),
        }
    }

    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) => (&*socket).write_all(bytes),
            Socket::Unix(socket) => (&*socket).write_all(bytes),
            Socket::Tls(session) => {
                let mut session = session.lock().unwrap();
                session.write_all(bytes)?;
                session.flush()
            }
        }
    }

    /// Ends one direction or both. TLS tells the other side first.
    pub fn shutdown(&self, how: Shutdown) {
        let _ = match self {
            Socket::Tcp(socket) => socket.shutdown(how),
            Socket::Unix(socket) => socket.shutdown(how),
            Socket::Tls(session) => {
                let mut session = session.lock().unwrap();
                session.conn.send_close_notify();
                session.flush().and_then(|()| session.sock.shutdown(how))
            }
        };
    }
}

/// The reason why nothing more can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The other side ended its direction.
    Fin,
    /// The other side reset the connection.
    Reset,
    /// Nothing arrived in time.
    Late,
    /// The received bytes are not a message.
    Malformed(String),
}

/// A connection, and the bytes that were received and not yet used.
pub struct Wire {
    socket: Arc<Socket>,
    buffer: Vec<u8>,
    taken: usize,
    scratch: Option<Vec<u8>>,
}

impl Wire {
    /// Connects over TCP.
    #[track_caller]
    pub fn tcp(address: SocketAddr) -> Wire {
        match TcpStream::connect_timeout(&address, DEADLINE) {
            Ok(socket) => Wire::new(Socket::Tcp(socket)),
            Err(error) => panic!("cannot connect to {address}: {error}"),
        }
    }

    /// Wraps a connected socket.
    pub fn new(socket: Socket) -> Wire {
        let prepare = |socket: &TcpStream| {
            socket.set_nodelay(true).expect("a TCP socket");
            socket.set_write_timeout(Some(DEADLINE)).expect("not zero");
        };
        match &socket {
            Socket::Tcp(socket) => prepare(socket),
            Socket::Unix(_) => {}
            Socket::Tls(session) => prepare(&session.lock().unwrap().sock),
        }
        socket.set_timeout(DEADLINE);
        Wire { socket: Arc::new(socket), buffer: Vec::new(), taken: 0, scratch: None }
    }

    /// A second handle of the same connection, for sending on one thread and reading on another.
    pub fn shared(socket: Arc<Socket>) -> Wire {
        Wire { socket, buffer: Vec::new(), taken: 0, scratch: None }
    }

    /// The socket, for other threads.
    pub fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    /// Sends bytes. Fails the test on an error.
    #[track_caller]
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        if let Err(error) = self.try_send(&bytes) {
            panic!("cannot send {}: {error}", shown(bytes.as_ref()));
        }
    }

    /// Sends bytes to a peer that may be gone.
    pub fn try_send(&self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.socket.write_all(bytes.as_ref())
    }

    /// Ends our direction (FIN). The other direction continues.
    pub fn shutdown_write(&self) {
        self.socket.shutdown(Shutdown::Write);
    }

    /// Closes with RST and discards queued data.
    pub fn reset(self) {
        if let Socket::Tcp(socket) = &*self.socket {
            system::reset_on_close(socket.as_fd());
        }
    }

    fn waiting(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let bytes = self.waiting()[..count].to_vec();
        self.taken += count;
        if self.taken == self.buffer.len() {
            self.buffer.clear();
            self.taken = 0;
        }
        bytes
    }

    /// Reads once.
    fn fill(&mut self) -> Result<(), Fault> {
        let scratch = self.scratch.get_or_insert_with(|| vec![0; 64 * 1024]);
        let result = loop {
            match self.socket.read(scratch) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.extend_from_slice(&scratch[..*result.as_ref().unwrap_or(&0)]);
        match result {
            Ok(0) => Err(Fault::Fin),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Fault::Late),
            // A session without a proper end, or with a wrong record.
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) => {
                Err(Fault::Malformed(error.to_string()))
            }
            Err(_) => Err(Fault::Reset),
        }
    }

    /// The bytes up to and including `mark`.
    pub fn until(&mut self, mark: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut from = 0;
        loop {
            if let Some(at) = self.waiting()[from..].windows(mark.len()).position(|window| window == mark) {
                return Ok(self.take(from + at + mark.len()));
            }
            from = self.waiting().len().saturating_sub(mark.len() - 1);
            self.fill()?;
        }
    }

    /// Exactly `count` bytes.
    pub fn exactly(&mut self, count: usize) -> Result<Vec<u8>, Fault> {
        while self.waiting().len() < count {
            self.fill()?;
        }
        Ok(self.take(count))
    }

    /// Between one and `most` bytes, as they arrive.
    pub fn some(&mut self, most: usize) -> Result<Vec<u8>, Fault> {
        if self.waiting().is_empty() {
            self.fill()?;
        }
        Ok(self.take(most.min(self.waiting().len())))
    }

    /// Everything up to the end, and the way in which the connection ended.
    pub fn rest(&mut self) -> (Vec<u8>, Fault) {
        loop {
            if let Err(fault) = self.fill() {
                return (self.take(self.waiting().len()), fault);
            }
        }
    }

    /// The way in which the connection ends. Any data before it is a fault.
    pub fn end(&mut self) -> Fault {
        let (bytes, fault) = self.rest();
        if bytes.is_empty() { fault } else { Fault::Malformed(format!("{} before the end", shown(&bytes))) }
    }

    /// True if nothing arrives and the connection does not end during this time.
    pub fn silent_for(&mut self, while_watching: Duration) -> bool {
        self.socket.set_timeout(while_watching);
        let silent = self.waiting().is_empty() && self.fill() == Err(Fault::Late);
        self.socket.set_timeout(DEADLINE);
        silent
    }

    /// Reads a message's first line and fields.
    pub fn head(&mut self) -> Result<Message, Fault> {
        read_head(self)
    }

    /// Reads a body with this framing. The error contains the partial body.
    pub fn body(&mut self, framing: Framing) -> Result<Body, (Fault, Body)> {
        let mut reader = BodyReader::new(framing);
        let mut body = Body { framing, bytes: Vec::new(), trailers: Vec::new() };
        loop {
            match reader.piece(self) {
                Ok(Some(piece)) => body.bytes.extend_from_slice(&piece),
                Ok(None) => {
                    body.trailers = reader.trailers;
                    return Ok(body);
                }
                Err(fault) => return Err((fault, body)),
            }
        }
    }

    /// The next response to `method`, even an interim one. The error contains the partial message.
    #[allow(clippy::result_large_err, reason = "tests match on what came; nothing here is hot")]
    pub fn try_response(&mut self, method: &str) -> Result<Message, (Fault, Option<Message>)> {
        let mut message = self.head().map_err(|fault| (fault, None))?;
        let version_ok = message.start.starts_with("HTTP/1.1 ") && message.start.as_bytes().get(12) == Some(&b' ');
        if !version_ok || message.status() < 100 {
            return Err((Fault::Malformed(format!("status line {:?}", message.start)), None));
        }
        let framing = message.response_framing(method).map_err(|fault| (fault, None))?;
        match self.body(framing) {
            Ok(body) => {
                message.body = body;
                Ok(message)
            }
            Err((fault, body)) => {
                message.body = body;
                Err((fault, Some(message)))
            }
        }
    }

    /// The next complete response to `method`.
    #[track_caller]
    pub fn response(&mut self, method: &str) -> Message {
        match self.try_response(method) {
            Ok(message) => message,
            Err((fault, message)) => panic!("no whole response to {method}: {fault:?}, of it {message:?}"),
        }
    }

    /// Sends a GET and reads its response.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Message {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test.example\r\n\r\n"));
        self.response("GET")
    }

    /// Sends a POST of fixed length and reads its response.
    #[track_caller]
    pub fn post(&mut self, path: &str, body: &[u8]) -> Message {
        let head = format!("POST {path} HTTP/1.1\r\nHost: test.example\r\nContent-Length: {}\r\n\r\n", body.len());
        self.send([head.as_bytes(), body].concat());
        self.response("POST")
    }
}
