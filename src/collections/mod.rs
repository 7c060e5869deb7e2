//! Containers for the core: byte blocks and their pool, send queues, generational slabs, deadlines, seeded
//! random numbers, and order with little code. They are independent of their content.

pub mod buffer;
pub mod order;
pub mod queue;
pub mod random;
pub mod slab;
pub mod timers;
