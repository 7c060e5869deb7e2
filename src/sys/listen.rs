//! Listening TCP sockets.

#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;
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

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
