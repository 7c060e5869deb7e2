//! Stream sockets, never blocking.

#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use libc::{c_int, c_void, socklen_t};

use super::address::RawAddress;
use crate::limits::SEND_SLICES;

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn owned(fd: c_int) -> io::Result<OwnedFd> {
    check(fd as isize)?;
    // SAFETY: the descriptor was just made, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets an integer option of a socket.
pub fn set_option(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = size_of::<c_int>() as socklen_t;
    // SAFETY: the pointer and the length are a live local's.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    check(result as isize).map(drop)
}

/// A stream socket of a family, non-blocking and closed on exec.
pub fn stream(family: c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes three integers.
    owned(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) })
}

/// Takes a connection off a listener's queue, with the client's address.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let mut address = RawAddress::empty();
    let (room, length) = address.as_parts_mut();
    // SAFETY: the pointers are to a live local with as much room as the length says.
    let fd = unsafe { libc::accept4(listener.as_raw_fd(), room, length, libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) };
    Ok((owned(fd)?, address.socket_address()))
}

/// The address that a socket is bound to; `None` if it is no address of IP.
pub fn local_address(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    let mut address = RawAddress::empty();
    let (room, length) = address.as_parts_mut();
    // SAFETY: the pointers are to a live local with as much room as the length says.
    let result = unsafe { libc::getsockname(socket.as_raw_fd(), room, length) };
    check(result as isize).ok()?;
    address.socket_address()
}

/// Has a listener take no further connection, while those whose handshake is under way still come. It cannot be
/// undone, and holds for every process that has the listener. The system drops what asks for a connection (a SYN;
/// RFC 9293, 3.5). Some kernels allow that only to root; there the system refuses it.
#[cfg(target_os = "linux")]
pub fn take_no_more(listener: BorrowedFd<'_>) -> io::Result<()> {
    drop_requests(listener).or_else(|_| refuse_requests(listener))
}

/// Binds a listener to an interface that does not exist (SO_BINDTOIFINDEX), so that nothing new matches it. Without
/// privileges that is possible once, and any further time is without need.
#[cfg(target_os = "linux")]
fn refuse_requests(listener: BorrowedFd<'_>) -> io::Result<()> {
    const NO_INTERFACE: c_int = c_int::MAX;
    let bound = set_option(listener, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, NO_INTERFACE);
    match super::listen::option(listener, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX) {
        Ok(NO_INTERFACE) => Ok(()),
        _ => bound,
    }
}

#[cfg(target_os = "linux")]
fn drop_requests(listener: BorrowedFd<'_>) -> io::Result<()> {
    // Where the flags are in a segment's header, and SYN among them (RFC 9293, 3.1).
    const FLAGS: u32 = 13;
    const SYN: u32 = 2;
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, FLAGS),
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, SYN),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let length = size_of::<libc::sock_fprog>() as socklen_t;
    // SAFETY: the pointers and lengths are live locals', and the system copies the program.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            length,
        )
    };
    check(result as isize).map(drop)
}

/// Other systems have no such thing.
#[cfg(not(target_os = "linux"))]
pub fn take_no_more(_: BorrowedFd<'_>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Begins to connect to an IP address. Small writes are not held back.
pub fn connect_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    use std::os::fd::AsFd;
    let raw = RawAddress::tcp(address);
    let socket = stream(raw.family())?;
    set_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    connect(socket, &raw)
}

/// Begins to connect to a socket in the file system. EAGAIN where its queue is full (connect(2)).
pub fn connect_unix(path: &Path) -> io::Result<OwnedFd> {
    let raw = RawAddress::unix(path)?;
    connect(stream(raw.family())?, &raw)
}

fn connect(socket: OwnedFd, address: &RawAddress) -> io::Result<OwnedFd> {
    let (raw, length) = address.as_parts();
    // SAFETY: the pointer and the length are a live value's.
    let result = unsafe { libc::connect(socket.as_raw_fd(), raw, length) };
    match check(result as isize) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// Whether an error says that this process or its system has no room for another socket, or for
/// watching one: the lack is ours, whoever is at the other end. That no address or port of ours will do
/// (EADDRNOTAVAIL) is not among them, for it depends on whom is connected to: where IPv6 is turned off,
/// all of its addresses meet it, and where ports are used up, those that lead to one address are.
pub fn is_exhausted(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    matches!(code, Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC))
}

/// The error that a connection met since this was last asked; 0 for none.
pub fn take_error(fd: BorrowedFd<'_>) -> i32 {
    let mut error: c_int = 0;
    let mut length = size_of::<c_int>() as socklen_t;
    // SAFETY: the pointers are to live locals, with as much room as the length says.
    let result = unsafe {
        let room = (&raw mut error).cast::<c_void>();
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ERROR, room, &raw mut length)
    };
    if result < 0 { io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { error }
}

/// Reads into `room`; 0 for the end of the peer's direction.
pub fn receive(fd: BorrowedFd<'_>, room: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are a live slice's.
    check(unsafe { libc::recv(fd.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), 0) })
}

/// Acknowledges what was read at once (TCP_QUICKACK, tcp(7)). After a large read the system may delay that
/// acknowledgement, and a sender whose pace follows acknowledgements (BBR) then pauses. A socket that
/// has no such option goes on as it was.
#[cfg(target_os = "linux")]
pub fn acknowledge_now(fd: BorrowedFd<'_>) {
    let _ = set_option(fd, libc::IPPROTO_TCP, libc::TCP_QUICKACK, 1);
}

/// Other systems have no such option.
#[cfg(not(target_os = "linux"))]
pub fn acknowledge_now(_: BorrowedFd<'_>) {}

/// Sends what the socket takes of the slices, of which the first `SEND_SLICES` count. With `more`,
/// the last packet may wait for what follows at once: more bytes, or the end.
pub fn send<'a>(fd: BorrowedFd<'_>, mut slices: impl Iterator<Item = &'a [u8]>, more: bool) -> io::Result<usize> {
    let flags = libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
    let Some(first) = slices.next() else { return Ok(0) };
    let Some(second) = slices.next() else { return send_one(fd.as_raw_fd(), first, flags) };
    let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; SEND_SLICES];
    let mut count = 0;
    for slice in [first, second].into_iter().chain(slices).take(SEND_SLICES) {
        parts[count] = libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() };
        count += 1;
    }
    // SAFETY: all zeroes is a valid value of this plain struct; the parts are live slices, which
    // sendmsg only reads.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = parts.as_mut_ptr();
        message.msg_iovlen = count as _;
        check(libc::sendmsg(fd.as_raw_fd(), &raw const message, flags))
    }
}

fn send_one(fd: RawFd, bytes: &[u8], flags: c_int) -> io::Result<usize> {
    // SAFETY: the pointer and the length are a live slice's.
    check(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// Ends our direction.
pub fn finish(fd: BorrowedFd<'_>) {
    // SAFETY: takes two integers. It can fail only where the connection is gone already.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) };
}

/// Has the close that follows reset the connection instead of ending it properly.
pub fn reset_on_close(fd: BorrowedFd<'_>) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let length = size_of::<libc::linger>() as socklen_t;
    // SAFETY: the pointer and the length are a live local's. Where it fails, the close is a
    // proper one, as that of a broken connection may be.
    unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_listener_that_takes_no_more_has_those_who_came_and_nobody_else() {
        use std::net::{TcpListener, TcpStream};
        use std::os::fd::AsFd;
        use std::time::Duration;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let _came = TcpStream::connect(address).unwrap();
        take_no_more(listener.as_fd()).unwrap();
        let late = TcpStream::connect_timeout(&address, Duration::from_millis(50));
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(accept(listener.as_fd()).is_ok());
        assert_eq!(accept(listener.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_listener_on_no_interface_has_those_who_came_and_refuses_all_others() {
        use std::net::{TcpListener, TcpStream};
        use std::os::fd::AsFd;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let _came = TcpStream::connect(address).unwrap();
        for _ in 0..2 {
            refuse_requests(listener.as_fd()).unwrap();
        }
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(accept(listener.as_fd()).is_ok());
        assert_eq!(accept(listener.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_lack_of_ours_is_told_from_an_address_that_cannot_be_reached() {
        let is_ours = |code| is_exhausted(&io::Error::from_raw_os_error(code));
        // What epoll_ctl(2) says where a user watches too many is ENOSPC.
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::ENOSPC] {
            assert!(is_ours(code), "{code}");
        }
        for code in [libc::EADDRNOTAVAIL, libc::ECONNREFUSED, libc::ENETUNREACH, libc::EAGAIN, libc::ENOENT] {
            assert!(!is_ours(code), "{code}");
        }
        assert!(!is_exhausted(&io::ErrorKind::NotFound.into()));
    }
}
