//! The Host header of the status page.
//!
//! A page in an operator's browser can point a name of its own at 127.0.0.1 (DNS rebinding) and then read whatever answers
//! there, as the browser takes both for one site. Such a request still carries the foreign name in `Host`. So the page is
//! served under an address, under `localhost` and under the node's name, and under nothing else. A reverse proxy that gives
//! the page another name must set `Host` to one of these.

use std::net::IpAddr;

use hyper::http::uri::Authority;

/// Whether the page may be served under this `Host` (or the authority of an absolute request line).
#[must_use]
pub fn allowed(host: &str, node: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    address.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || (!node.is_empty() && name == node.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_the_node_are_allowed() {
        for host in
            ["127.0.0.1:12050", "127.0.0.1", "[::1]:12050", "10.1.2.3:80", "localhost:12050", "LOCALHOST.", "Node-7"]
        {
            assert!(allowed(host, "node-7"), "{host}");
        }
    }

    #[test]
    fn other_names_and_nonsense_are_not() {
        for host in [
            "evil.example",
            "evil.example:12050",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "a b",
            "@",
            "::1::",
        ] {
            assert!(!allowed(host, "node-7"), "{host}");
        }
        assert!(!allowed("", ""));
    }
}
