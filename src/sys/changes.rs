//! Changes of directories and files: what can be asked for and what is told, whichever part of the
//! system tells it.

#[cfg(not(any(feature = "kqueue", not(any(target_os = "linux", target_os = "android")))))]
pub use super::inotify::{Inotify as Changes, Watched};
#[cfg(any(feature = "kqueue", not(any(target_os = "linux", target_os = "android"))))]
pub use super::vnode::{Vnodes as Changes, Watched};

/// What of a path is watched. What is watched for several reasons is watched for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aspect {
    /// A directory: which names are in it, and whether it stays where it is.
    Names,
    /// A directory: its names, and that files which they stand for were closed after being written to, where
    /// the system tells of that. For more, the file that matters has to be watched itself.
    Files,
    /// A file, through whatever name it is changed.
    File,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file was written to, or cut, and may be written to further.
    Written,
    /// A file was closed that could be written to, or a name now stands for something else, or
    /// for nothing: what was begun is done.
    Done,
    /// A name or an attribute is new, which may be the beginning of more.
    Begun,
    /// Anything may have happened: events were lost.
    Lost,
}
