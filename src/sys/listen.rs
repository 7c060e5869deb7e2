//! Listening TCP sockets.

#![allow(unsafe_code)]

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::c_int;

use super::address::RawAddress;
use super::socket::{set_option, stream};

/// Who else may listen on a socket's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody: a port that anyone listens on is refused with EADDRINUSE, then and later.
    Alone,
    /// Nobody yet, as with `Alone`; then those that join (SO_REUSEPORT).
    First,
    /// Joins the first one, and connections are spread over all.
    Joining,
}

/// A non-blocking, close-on-exec socket listening on `address`, whose accepted sockets have
/// TCP_NODELAY. `[::]` takes IPv4 too.
pub fn listen(address: SocketAddr, sharing: Sharing, backlog: c_int) -> io::Result<OwnedFd> {
    let raw = RawAddress::tcp(address);
    let socket = stream(raw.family())?;
    // A port in TIME_WAIT is no reason to refuse a restart.
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
    // Bound without it, which proves that nobody else listens, and shared before a client can come.
    if sharing == Sharing::First {
        set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    // SAFETY: takes a descriptor, which is open, and an integer.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) })?;
    Ok(socket)
}

/// Lets others join a socket that listens alone.
pub fn share(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
}

/// A socket that another program has made, and where it listens: non-blocking from now on, and its
/// accepted sockets with TCP_NODELAY. EINVAL where it does not listen, or not for TCP over IP.
pub fn adopt(socket: OwnedFd) -> io::Result<(OwnedFd, SocketAddr)> {
    let mut listens: c_int = 0;
    let mut length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the call writes at most `length` bytes, to a live int of that size, and the length.
    check(unsafe {
        let value = (&raw mut listens).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ACCEPTCONN, value, &raw mut length)
    })?;
    if listens == 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let listener = TcpListener::from(socket);
    // Of another family than IP's it has no such address.
    let address = listener.local_addr().map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    listener.set_nonblocking(true)?;
    set_option(listener.as_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    Ok((listener.into(), address))
}

/// Makes the system hold a new connection back until its client has sent something (TCP_DEFER_ACCEPT,
/// tcp(7)), so that the first read finds a request; or no longer. The system gives a silent client to
/// the listener when it has sent its SYN-ACK again, a second after the first.
#[cfg(target_os = "linux")]
pub fn defer_accept(listener: BorrowedFd<'_>, deferred: bool) -> io::Result<()> {
    set_option(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, deferred.into())
}

/// Other systems have no such option.
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
    fn what_listens_over_ip_is_taken_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (taken, at) = adopt(listener.into()).unwrap();
        assert_eq!(at, address);
        let refused = TcpListener::from(taken).accept().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);

        let path = std::env::temp_dir().join(format!("zzz-lb-adopt-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        assert!(adopt(UnixListener::bind(&path).unwrap().into()).is_err());
        std::fs::remove_file(&path).unwrap();
        let connected = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(adopt(connected.into()).is_err());
        assert!(adopt(std::fs::File::open("/dev/null").unwrap().into()).is_err());
    }
}
