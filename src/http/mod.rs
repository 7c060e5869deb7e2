//! The parts of HTTP that all versions share (RFC 9110): heads, fields, framing, and the rewriting that a proxy
//! does. No wire format.

pub mod affinity;
pub mod certificate_names;
pub mod cookie;
pub mod fields;
pub mod forward;
pub mod framing;
pub mod grpc;
pub mod head;
pub mod message_error;
pub mod part;
pub mod proxy_error;
pub mod proxy_header;
pub mod request_id;
pub mod route;
pub mod session_error;
pub mod status;
pub mod sticky;
