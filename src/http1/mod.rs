//! The wire format of HTTP/1.0 and HTTP/1.1 (RFC 9112): heads, chunked coding, and the codec of a connection in
//! either role. Pure: bytes in, parts out, and the reverse.

pub mod chunked;
pub mod connection;
pub mod parse;
pub mod scan;
pub mod write;
