//! The tasks that the proxy gives to its shell, which owns the sockets.

use crate::collections::slab::Key;

/// A task for the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Connect to the backend in this slot. `connected` or `failed` follows.
    Connect(Key, usize),
    /// Send the queue as the socket takes it. `sent` follows.
    Send(Key),
    /// Send the queue after all other events of this turn, because many of them add to it.
    SendLater(Key),
    /// Read if the socket may be readable: `room` has room again.
    Receive(Key),
    /// Read whether the socket seems readable or not, because the connection is about to end.
    Check(Key),
    /// Say how many bytes the second connection's socket has taken that the peer has not acknowledged. `measured` follows
    /// for the first connection.
    Measure(Key, Key),
    /// End our direction.
    Finish(Key),
    /// Close the connection. Its key is gone already.
    Close(Key),
    /// Reset the connection. Its key is gone already.
    Reset(Key),
}
