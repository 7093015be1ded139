//! Why a proxy answered for itself: one closed set of words, the same in `Proxy-Status`, log, metric and CLI.
//!
//! Where RFC 9209 §2.3 registers a proxy error type, the word is its name; ours have the same form.

use std::fmt;

macro_rules! reasons {
    ($($name:ident $word:literal $status:literal $says:literal $try:literal;)*) => {
        /// The reason for an answer, a reset or a refusal that a proxy made itself.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $(#[doc = $says] $name,)* }

        impl Reason {
            /// Every reason, in the order of their declaration.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The reason of this word.
            pub fn of(word: &str) -> Option<Reason> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == word)
            }

            /// The word: an RFC 9209 error type or one of the same form.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The HTTP status of an answer for this reason; a codec that knows better (414, 431, 501, …) says its own.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// What happened, for people.
            pub fn says(self) -> &'static str {
                match self { $(Self::$name => $says,)* }
            }

            /// What to try, for people.
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$name => $try,)* }
            }
        }
    };
}

reasons! {
    ConnectionRefused "connection_refused" 502
        "The next hop refused the connection."
        "Is the application listening on that port, on the pod's address? Is the port right in the Service?";
    ConnectionTimeout "connection_timeout" 504
        "The next hop did not accept a connection in time."
        "Is the pod alive and reachable? Look for a NetworkPolicy or a firewall between the two.";
    ConnectionTerminated "connection_terminated" 502
        "The next hop closed the connection before it had answered."
        "Look at the application's log for a crash or a limit at that time.";
    ConnectionLimitReached "connection_limit_reached" 503
        "A limit on connections was hit."
        "Find who opens so many connections (weft_connections by service), or add replicas.";
    DestinationUnavailable "destination_unavailable" 503
        "No endpoint of the destination can take the request."
        "Are there ready pods behind the Service? Does its selector match them?";
    DestinationNotFound "destination_not_found" 404
        "Routes are attached to the destination, and none of their rules is for this request."
        "Ask which rules there are, and why they lost: weft explain request. Add a rule that matches, or one without matches.";
    DestinationIpUnroutable "destination_ip_unroutable" 502
        "There is no route to the next hop's address."
        "Look at the node's routes and at the CNI plugin.";
    TlsProtocolError "tls_protocol_error" 502
        "The TLS handshake with the next hop failed."
        "Does a Weft proxy run there, and is it of a version that speaks weft/1?";
    TlsCertificateError "tls_certificate_error" 502
        "The next hop's certificate is not of the expected identity, not of a trusted root, or not valid now."
        "Compare the identities in the message; look at clocks and at weft_certificate_expiry_seconds.";
    TlsAlertReceived "tls_alert_received" 502
        "The next hop refused our certificate or handshake by a TLS alert."
        "Look at the other proxy's log: it says what it refused.";
    HttpRequestError "http_request_error" 400
        "The request is not valid HTTP."
        "The details name the rule; the client, or something before it, must mend its request.";
    HttpResponseIncomplete "http_response_incomplete" 502
        "The response ended before it was whole."
        "Look at the application's log for a crash or a timeout at that time.";
    HttpResponseHeaderSectionSize "http_response_header_section_size" 502
        "The response's header section is over the limit."
        "Make it smaller, or raise --max-header-bytes of weft-proxy (128 KiB by default).";
    HttpProtocolError "http_protocol_error" 502
        "The next hop's answer is not valid HTTP."
        "The details name the rule; if the port does not speak HTTP, set appProtocol: tcp on the Service port.";
    HttpResponseTimeout "http_response_timeout" 504
        "The next hop did not answer in time."
        "The details name the limit: a gRPC caller's grpc-timeout is kept as it stands.";
    ConnectionReadTimeout "connection_read_timeout" 504
        "Nothing moved for longer than a policy allows."
        "The details name the limit and the TrafficPolicy that sets it; look at who was to send, or to read, and did not.";
    HttpUpgradeFailed "http_upgrade_failed" 502
        "The change of protocol that the client asked for failed."
        "Does the application support this upgrade on this path?";
    ProxyConfigurationError "proxy_configuration_error" 500
        "The rule that holds for the request leads nowhere."
        "The details name the backend and what is wrong with it; so do the route's status (ResolvedRefs) and weft analyze.";
    CircuitOpen "circuit_open" 503
        "Every endpoint of the destination has failed too often and rests for a while."
        "Look at why they fail (weft_requests by status); the limits are those of the BackendPolicy in the details.";
    RequestLimitReached "request_limit_reached" 503
        "A limit on requests to the destination was hit."
        "The details name the limit and the BackendPolicy that sets it; raise it, or add replicas.";
    FaultInjected "fault_injected" 503
        "A policy injects this fault on purpose."
        "The details name the TrafficPolicy; delete its fault when the experiment is over.";
    ProxyInternalError "proxy_internal_error" 500
        "The proxy could not go on: a bug, or a resource of its host has run out."
        "Look at the proxy's log; report a bug with it.";
    ProxyLoopDetected "proxy_loop_detected" 502
        "The connection's destination is the proxy itself."
        "Are the redirection rules in place? Nothing should dial the proxy's own ports.";
}

impl Reason {
    /// The status that a gRPC caller is given for this reason, as gRPC's mapping of HTTP statuses has it; a caller's own deadline
    /// and limits have statuses of their own.
    pub fn grpc_status(self) -> u16 {
        match self {
            Self::HttpResponseTimeout | Self::ConnectionReadTimeout => 4,
            Self::DestinationNotFound => 12,
            Self::HttpRequestError
            | Self::HttpProtocolError
            | Self::HttpResponseHeaderSectionSize
            | Self::ProxyInternalError => 13,
            _ => 14,
        }
    }
}

/// What an HTTP status means to a gRPC caller (gRPC, "HTTP to gRPC Status Code Mapping").
pub fn grpc_status_of(http: u16) -> u16 {
    match http {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_reason_has_its_own_word_of_rfc_9209_form() {
        let words: HashSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        for word in words {
            assert!(word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{word}");
        }
    }
}
