//! The reasons for a local reply, as error types of RFC 9209, 2.3. A client may see them: they contain no host,
//! no address and no system error. The log contains those.

/// An error type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each one's words, below, say what it means")]
pub enum ProxyError {
    DestinationUnavailable,
    DestinationUnroutable,
    ConnectionRefused,
    ConnectionTerminated,
    ConnectionTimeout,
    ConnectionLimitReached,
    TlsProtocol,
    TlsCertificate,
    TlsAlert,
    RequestError,
    ResponseIncomplete,
    ResponseFieldsTooLarge,
    ResponseTrailersTooLarge,
    ResponseTransferCoding,
    ResponseTimeout,
    UpgradeFailed,
    NoWebSocket,
    Protocol,
    Internal,
}

impl ProxyError {
    /// The registered token.
    pub fn token(self) -> &'static str {
        self.texts().0
    }

    /// A line of text for a person.
    pub fn words(self) -> &'static str {
        self.texts().1
    }

    /// The token and the text of each type.
    fn texts(self) -> (&'static str, &'static str) {
        match self {
            ProxyError::DestinationUnavailable => ("destination_unavailable", "the backend cannot be reached"),
            ProxyError::DestinationUnroutable => ("destination_ip_unroutable", "there is no route to the backend"),
            ProxyError::ConnectionRefused => ("connection_refused", "the backend refused the connection"),
            ProxyError::ConnectionTerminated => {
                ("connection_terminated", "the connection to the backend ended before its response")
            }
            ProxyError::ConnectionTimeout => ("connection_timeout", "the backend did not accept a connection in time"),
            ProxyError::ConnectionLimitReached => {
                ("connection_limit_reached", "every backend has as many requests as it may")
            }
            ProxyError::TlsProtocol => ("tls_protocol_error", "TLS with the backend failed"),
            ProxyError::TlsCertificate => ("tls_certificate_error", "the certificate of the backend was refused"),
            ProxyError::TlsAlert => ("tls_alert_received", "the backend refused TLS"),
            ProxyError::RequestError => ("http_request_error", "the request was refused"),
            ProxyError::ResponseIncomplete => ("http_response_incomplete", "the backend gave the request up"),
            ProxyError::ResponseFieldsTooLarge => {
                ("http_response_header_section_size", "the head of the backend's response is too large")
            }
            ProxyError::ResponseTrailersTooLarge => {
                ("http_response_trailer_section_size", "the trailers of the backend's response are too large")
            }
            ProxyError::ResponseTransferCoding => {
                ("http_response_transfer_coding", "the transfer coding of the backend's response is unknown")
            }
            ProxyError::ResponseTimeout => ("http_response_timeout", "the backend did not respond in time"),
            ProxyError::NoWebSocket => ("http_upgrade_failed", "the backend accepts no WebSocket here"),
            ProxyError::UpgradeFailed => ("http_upgrade_failed", "the backend switched protocols unasked"),
            ProxyError::Protocol => ("http_protocol_error", "the response of the backend was malformed"),
            ProxyError::Internal => ("proxy_internal_error", "the proxy lacks resources"),
        }
    }
}
