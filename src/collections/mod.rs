//! Containers for the core: byte blocks and their pool, send queues, generational slabs, deadlines, and seeded
//! random numbers. They are independent of their content.

pub mod buffer;
pub mod queue;
pub mod random;
pub mod slab;
pub mod timers;
