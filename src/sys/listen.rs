//! Listening TCP sockets.

#![allow(unsafe_code)]

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::c_int;

use super::address::RawAddress;
use super::socket::{option, set_option, stream};

/// The permission for other sockets to listen on the same port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// No other socket: if the port is in use, listen fails with EADDRINUSE, now and later.
    Alone,
    /// As `Alone` during bind. Afterwards, sockets with `Joining` may share the port (SO_REUSEPORT).
    First,
    /// Joins the first socket. The kernel spreads connections over all.
    Joining,
}

/// A non-blocking, close-on-exec socket that listens on `address`. Accepted sockets have TCP_NODELAY. `[::]`
/// also accepts IPv4.
pub fn listen(address: SocketAddr, sharing: Sharing, backlog: c_int) -> io::Result<OwnedFd> {
    let raw = RawAddress::tcp(address);
    let socket = stream(raw.family())?;
    // A port in TIME_WAIT must not prevent a restart.
    set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if sharing == Sharing::Joining {
        set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    if address.is_ipv6() {
        set_option(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0)?;
    }
    set_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    let (pointer, length) = raw.as_parts();
    // SAFETY: the pointer and the length are a live value's.
    check(unsafe { libc::bind(socket.as_raw_fd(), pointer, length) })?;
    // The bind without SO_REUSEPORT proved that no other program listens. The port is shared before a client
    // can connect.
    if sharing == Sharing::First {
        set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    // SAFETY: takes a descriptor, which is open, and an integer.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) })?;
    Ok(socket)
}

/// Lets other sockets join a socket that listens alone.
pub fn share(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
}

/// Takes a socket that another program has created. It becomes non-blocking, and its accepted sockets have
/// TCP_NODELAY. Returns the socket and its address. The error for any other descriptor names its kind.
pub fn adopt(socket: OwnedFd) -> io::Result<(OwnedFd, SocketAddr)> {
    if let Some(kind) = unfit_kind(socket.as_fd()) {
        let text = format!("it is {kind}; accepted: a listening TCP socket");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let listener = TcpListener::from(socket);
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    set_option(listener.as_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    Ok((listener.into(), address))
}

/// The kind of a descriptor that is not a listening TCP socket; `None` for one that is.
fn unfit_kind(socket: BorrowedFd<'_>) -> Option<&'static str> {
    let Ok(kind) = option(socket, libc::SOL_SOCKET, libc::SO_TYPE) else { return Some("no socket") };
    let mut address = RawAddress::empty();
    let (room, length) = address.as_parts_mut();
    // SAFETY: the pointers are to a live local with as much room as the length says.
    let named = check(unsafe { libc::getsockname(socket.as_raw_fd(), room, length) });
    match (named.map(|()| address.family()), kind) {
        (Ok(libc::AF_UNIX), _) => Some("a Unix socket"),
        (Ok(libc::AF_INET | libc::AF_INET6), libc::SOCK_DGRAM) => Some("a UDP socket"),
        (Ok(libc::AF_INET | libc::AF_INET6), libc::SOCK_STREAM) => {
            match option(socket, libc::SOL_SOCKET, libc::SO_ACCEPTCONN) {
                Ok(1..) => None,
                _ => Some("a TCP socket that does not listen"),
            }
        }
        _ => Some("a socket of another kind"),
    }
}

/// Turns TCP_DEFER_ACCEPT (tcp(7)) on or off. The kernel then holds a new connection until its client has sent
/// data, so that the first read finds a request. It passes a silent client on after it has repeated its
/// SYN-ACK, one second after the first.
#[cfg(target_os = "linux")]
pub fn defer_accept(listener: BorrowedFd<'_>, deferred: bool) -> io::Result<()> {
    set_option(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, deferred.into())
}

/// True if TCP_DEFER_ACCEPT is on for a listener. An error counts as off.
#[cfg(target_os = "linux")]
pub fn is_deferred(listener: BorrowedFd<'_>) -> bool {
    option(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT).is_ok_and(|seconds| seconds > 0)
}

/// Other systems do not defer connections, so there is nothing to wait for.
#[cfg(not(target_os = "linux"))]
pub fn is_deferred(_: BorrowedFd<'_>) -> bool {
    true
}

/// Other systems do not have this option.
#[cfg(not(target_os = "linux"))]
pub fn defer_accept(_: BorrowedFd<'_>, _: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_deferred_connection_comes_with_its_first_bytes() {
        use std::io::Write;
        use std::net::TcpStream;
        let listener = listen("127.0.0.1:0".parse().unwrap(), Sharing::Alone, 8).unwrap();
        defer_accept(listener.as_fd(), true).unwrap();
        let listener = TcpListener::from(listener);
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        client.write_all(b"GET").unwrap();
        let begun = std::time::Instant::now();
        while listener.accept().is_err() {
            assert!(begun.elapsed().as_secs() < 10);
            std::thread::yield_now();
        }
    }

    #[test]
    fn only_listening_tcp_sockets_are_adopted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (taken, at) = adopt(listener.into()).unwrap();
        assert_eq!(at, address);
        let refused = TcpListener::from(taken).accept().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);

        let path = std::env::temp_dir().join(format!("zzz-lb-adopt-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let kind = |socket: OwnedFd| adopt(socket).expect_err("it is unfit").to_string();
        assert!(kind(UnixListener::bind(&path).unwrap().into()).starts_with("it is a Unix socket; accepted: "));
        std::fs::remove_file(&path).unwrap();
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(kind(datagrams.into()).starts_with("it is a UDP socket; "));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(kind(connected.into()).starts_with("it is a TCP socket that does not listen; "));
        assert!(kind(std::fs::File::open("/dev/null").unwrap().into()).starts_with("it is no socket; "));
    }
}
