//! Non-blocking stream sockets.

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

/// Reads an integer option of a socket.
pub(super) fn option(socket: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut length = size_of::<c_int>() as socklen_t;
    // SAFETY: the call writes at most `length` bytes, to a live int of that size, and the length.
    let result = unsafe {
        let value = (&raw mut value).cast();
        libc::getsockopt(socket.as_raw_fd(), level, name, value, &raw mut length)
    };
    check(result as isize).map(|_| value)
}

/// A non-blocking, close-on-exec stream socket of a family.
pub fn stream(family: c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes three integers.
    owned(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) })
}

/// Accepts a connection. Returns it with the client's address.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let mut address = RawAddress::empty();
    let (room, length) = address.as_parts_mut();
    // SAFETY: the pointers are to a live local with as much room as the length says.
    let fd = unsafe { libc::accept4(listener.as_raw_fd(), room, length, libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) };
    Ok((owned(fd)?, address.socket_address()))
}

/// The address that a socket is bound to; `None` for families other than IP.
pub fn local_address(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    let mut address = RawAddress::empty();
    let (room, length) = address.as_parts_mut();
    // SAFETY: the pointers are to a live local with as much room as the length says.
    let result = unsafe { libc::getsockname(socket.as_raw_fd(), room, length) };
    check(result as isize).ok()?;
    address.socket_address()
}

/// Makes a listener refuse new connections, while those whose handshake has begun are still accepted. It cannot
/// be undone, and applies to every process that has the listener. The kernel drops each SYN (RFC 9293, 3.5).
/// Some kernels allow the filter only to root. On these, the kernel refuses new connections.
#[cfg(target_os = "linux")]
pub fn take_no_more(listener: BorrowedFd<'_>) -> io::Result<()> {
    drop_requests(listener).or_else(|_| refuse_requests(listener))
}

/// Binds a listener to an interface that does not exist (SO_BINDTOIFINDEX), so that no new connection matches
/// it. An unprivileged process can do this once, which is enough.
#[cfg(target_os = "linux")]
fn refuse_requests(listener: BorrowedFd<'_>) -> io::Result<()> {
    const NO_INTERFACE: c_int = c_int::MAX;
    let bound = set_option(listener, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, NO_INTERFACE);
    match option(listener, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX) {
        Ok(NO_INTERFACE) => Ok(()),
        _ => bound,
    }
}

#[cfg(target_os = "linux")]
fn drop_requests(listener: BorrowedFd<'_>) -> io::Result<()> {
    // The offset of the flags in a segment's header, and the SYN flag (RFC 9293, 3.1).
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

/// Other systems do not support this.
#[cfg(not(target_os = "linux"))]
pub fn take_no_more(_: BorrowedFd<'_>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Starts to connect to an IP address, with TCP_NODELAY.
pub fn connect_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    use std::os::fd::AsFd;
    let raw = RawAddress::tcp(address);
    let socket = stream(raw.family())?;
    set_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    connect(socket, &raw)
}

/// Starts to connect to a Unix socket. EAGAIN if its queue is full (connect(2)).
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

/// True if an error says that this process or its system lacks the resources for another socket or watch. The
/// cause is then local, regardless of the peer. EADDRNOTAVAIL is not included, because it depends on the peer:
/// if IPv6 is turned off, every IPv6 address causes it, and if the ports are used up, only one destination
/// does.
pub fn is_exhausted(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    matches!(code, Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC))
}

/// The error of a connection since the last call; 0 for none.
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

/// Reads into `room`. Returns 0 at the end of the peer's direction.
pub fn receive(fd: BorrowedFd<'_>, room: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are a live slice's.
    check(unsafe { libc::recv(fd.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), 0) })
}

/// Looks at the bytes that a receive would take.
pub fn peek(fd: BorrowedFd<'_>, room: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are a live slice's.
    check(unsafe { libc::recv(fd.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), libc::MSG_PEEK) })
}

/// Acknowledges the data just read at once (TCP_QUICKACK, tcp(7)). After a large read the kernel may delay the
/// acknowledgement, and a sender that paces itself by acknowledgements (BBR) then pauses. A socket without this
/// option is not changed.
#[cfg(target_os = "linux")]
pub fn acknowledge_now(fd: BorrowedFd<'_>) {
    let _ = set_option(fd, libc::IPPROTO_TCP, libc::TCP_QUICKACK, 1);
}

/// Other systems do not have this option.
#[cfg(not(target_os = "linux"))]
pub fn acknowledge_now(_: BorrowedFd<'_>) {}

/// Sends as much of the first `SEND_SLICES` slices as the socket accepts. With `more`, the last packet may wait
/// for data or the end that follows immediately.
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
    // SAFETY: all zeroes is a valid value of this plain struct. The parts are live slices, which sendmsg only
    // reads.
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

/// Returns the number of bytes that were sent and that the peer has not acknowledged. `None` if the system cannot say.
pub fn unacknowledged(fd: BorrowedFd<'_>) -> Option<usize> {
    let mut bytes: c_int = 0;
    // SAFETY: the call writes an int to a live local.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 { None } else { usize::try_from(bytes).ok() }
}

/// Ends our direction (FIN).
pub fn finish(fd: BorrowedFd<'_>) {
    // SAFETY: takes two integers. It fails only if the connection is already gone.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) };
}

/// Makes the next close reset the connection instead of ending it normally.
pub fn reset_on_close(fd: BorrowedFd<'_>) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let length = size_of::<libc::linger>() as socklen_t;
    // SAFETY: the pointer and the length are a live local's. If it fails, the close is a normal one, which a
    // broken connection permits.
    unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_closed_off_listener_accepts_only_earlier_connections() {
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
    fn a_listener_on_no_interface_accepts_only_earlier_connections() {
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
    fn a_local_shortage_differs_from_an_unreachable_address() {
        let is_ours = |code| is_exhausted(&io::Error::from_raw_os_error(code));
        // epoll_ctl(2) returns ENOSPC if a user watches too many descriptors.
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::ENOSPC] {
            assert!(is_ours(code), "{code}");
        }
        for code in [libc::EADDRNOTAVAIL, libc::ECONNREFUSED, libc::ENETUNREACH, libc::EAGAIN, libc::ENOENT] {
            assert!(!is_ours(code), "{code}");
        }
        assert!(!is_exhausted(&io::ErrorKind::NotFound.into()));
    }
}
