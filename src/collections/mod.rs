//! Containers that the core is built on: blocks of bytes and their pool, the queue of bytes
//! towards a connection, keyed slots, deadlines, and seeded randomness. None of them knows
//! what it holds.

pub mod buffer;
pub mod queue;
pub mod random;
pub mod slab;
pub mod timers;
