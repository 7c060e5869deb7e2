//! Listening TCP sockets.

#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libc::{c_int, sockaddr, socklen_t};

/// A non-blocking, close-on-exec socket listening on `address`, whose accepted sockets have
/// TCP_NODELAY. `[::]` takes IPv4 too. With `shared`, other sockets of the same user may listen
/// on the same port (SO_REUSEPORT), and connections are spread over them; without, a port that
/// anyone listens on is refused with EADDRINUSE.
pub fn listen(address: SocketAddr, shared: bool, backlog: c_int) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: takes three integers.
    let fd = check(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: the descriptor was just made, and nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // A port in TIME_WAIT is no reason to refuse a restart.
    set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if shared {
        set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    if address.is_ipv6() {
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0)?;
    }
    set_option(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    bind(&socket, address)?;
    // SAFETY: takes a descriptor, which is open, and an integer.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) })?;
    Ok(socket)
}

fn set_option(socket: &OwnedFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of a live local, and each of the options set
    // here is an int.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            mem::size_of::<c_int>() as socklen_t,
        )
    };
    check(result).map(drop)
}

fn bind(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    let result = match address {
        SocketAddr::V4(v4) => {
            // SAFETY: all zeroes is a valid value of this plain struct of integers.
            let mut raw: libc::sockaddr_in = unsafe { mem::zeroed() };
            raw.sin_family = libc::AF_INET as libc::sa_family_t;
            raw.sin_port = v4.port().to_be();
            raw.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            let length = mem::size_of_val(&raw) as socklen_t;
            // SAFETY: the pointer and the length are those of a live local.
            unsafe { libc::bind(fd, (&raw const raw).cast::<sockaddr>(), length) }
        }
        SocketAddr::V6(v6) => {
            // SAFETY: all zeroes is a valid value of this plain struct of integers.
            let mut raw: libc::sockaddr_in6 = unsafe { mem::zeroed() };
            raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            raw.sin6_port = v6.port().to_be();
            raw.sin6_addr.s6_addr = v6.ip().octets();
            raw.sin6_flowinfo = v6.flowinfo();
            raw.sin6_scope_id = v6.scope_id();
            let length = mem::size_of_val(&raw) as socklen_t;
            // SAFETY: the pointer and the length are those of a live local.
            unsafe { libc::bind(fd, (&raw const raw).cast::<sockaddr>(), length) }
        }
    };
    check(result).map(drop)
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
