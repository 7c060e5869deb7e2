//! HTTP as every version of it shares it (RFC 9110): heads, their fields, how a body is framed,
//! and what a proxy does to a message on its way. Nothing here knows how a version writes it.

pub mod fields;
pub mod forward;
pub mod framing;
pub mod head;
pub mod message_error;
pub mod part;
pub mod proxy_error;
pub mod request_id;
pub mod status;
