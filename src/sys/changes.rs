//! Requests and reports of changes of directories and files, independent of the system interface.

#[cfg(not(any(feature = "kqueue", not(any(target_os = "linux", target_os = "android")))))]
pub use super::inotify::{Inotify as Changes, Watched};
#[cfg(any(feature = "kqueue", not(any(target_os = "linux", target_os = "android"))))]
pub use super::vnode::{Vnodes as Changes, Watched};

/// The watched aspect of a path. An item that is watched for several aspects reports all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aspect {
    /// A directory: its names, and its own place.
    Names,
    /// A directory: its names, and the close of its files after a write, if the system reports that. For more,
    /// the file itself must be watched.
    Files,
    /// A file, under any of its names.
    File,
}

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file was written to or truncated, and more writes may follow.
    Written,
    /// A writable file was closed, or a name was changed or removed: the change is complete.
    Done,
    /// A name or an attribute is new. More changes may follow.
    Begun,
    /// Events were lost: anything may have changed.
    Lost,
}
