//! Keeps other sites' pages out: which hosts a request may name, and which pages may cause one.
//!
//! A page of any site that a user visits can make the browser send requests to this server. Two
//! checks stand against that. The host must be one of the server's names, else a site could point
//! its own name at this machine and so share an origin with the server (DNS rebinding). And what
//! browsers say of the page that causes a request, `sec-fetch-site` and `origin`, must not be
//! another site; a page on another port of this machine is one too. Programs that are no browsers
//! send neither header and pass: this is no access control.
//!
//! **Invariant:** no response ever has a CORS header, so no page of another site reads one.

use super::{ApiError, Code};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

/// The hosts that a request may name.
#[derive(Debug)]
pub(super) struct Guard {
    /// Names of this machine; with the port that the server listens on, or with none.
    local: Vec<String>,
    port: u16,
    /// Names from the configuration, with any port: what listens there may be a proxy.
    named: Vec<String>,
    /// Whether the server speaks TLS itself.
    tls: bool,
}

impl Guard {
    /// For a server that listens on `bound` and is also called `names`.
    pub(super) fn new(bound: SocketAddr, names: &[String], tls: bool) -> Self {
        let local = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
        let local = local.into_iter().chain([in_url(&bound.ip().to_string())]).collect();
        let named = names.iter().map(|name| in_url(&name.to_ascii_lowercase())).collect();
        Self { local, port: bound.port(), named, tls }
    }

    fn check(&self, request: &Request) -> Result<(), ApiError> {
        let headers = request.headers();
        let host = self.check_host(headers, request.uri())?;
        if caused_elsewhere(headers) && !opens_page(request)
            || headers
                .get_all(header::ORIGIN)
                .iter()
                .any(|origin| !self.same(origin.as_bytes(), host))
        {
            return Err(ApiError::new(
                Code::ForeignOrigin,
                "the request comes from a page of another site, only this server's own pages may \
                 make one",
            ));
        }
        Ok(())
    }

    /// The host that the request names, if it is one of this server's.
    fn check_host<'a>(&self, headers: &'a HeaderMap, uri: &Uri) -> Result<&'a str, ApiError> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(
                ApiError::new(Code::BadRequest, "the request needs one header host").field("host")
            );
        };
        let named = uri.authority().is_none_or(|authority| self.knows(authority.as_str()));
        host.to_str().ok().filter(|host| named && self.knows(host)).ok_or_else(|| {
            ApiError::new(
                Code::ForeignHost,
                "the request names a host that this server is not; if it is called so, add the name \
                 to server.hosts",
            )
            .field("host")
        })
    }

    /// Whether `host`, a name and perhaps a port, is this server.
    fn knows(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let Ok(authority) = host.parse::<Authority>() else { return false };
        // What stands before the name, a user, makes this no prefix.
        let Some(port) = host.strip_prefix(authority.host()) else { return false };
        let port = match port.strip_prefix(':').map(str::parse::<u16>) {
            None if port.is_empty() => None,
            Some(Ok(port)) => Some(port),
            _ => return false,
        };
        let is = |name: &String| name == authority.host();
        self.named.iter().any(is)
            || (self.local.iter().any(is) && port.is_none_or(|port| port == self.port))
    }

    /// Whether `origin` is the server that `host` names. `null` is not: sandboxed frames and local
    /// files have it.
    fn same(&self, origin: &[u8], host: &str) -> bool {
        let secure = origin.strip_prefix(b"https://");
        // Without TLS of its own the server may stand behind a proxy that has it.
        let host_of = secure.or_else(|| origin.strip_prefix(b"http://").filter(|_| !self.tls));
        host_of.is_some_and(|origin| origin.eq_ignore_ascii_case(host.as_bytes()))
    }
}

/// A host's name as it stands in an address: IPv6 has brackets.
fn in_url(name: &str) -> String {
    let address = name.trim_matches(['[', ']']).parse::<Ipv6Addr>();
    address.map_or_else(|_| name.to_owned(), |address| format!("[{}]", IpAddr::V6(address)))
}

/// Whether the browser says that a page of another site causes the request. `none` is a person: an
/// address typed in, a bookmark.
fn caused_elsewhere(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all("sec-fetch-site").iter();
    sites.any(|site| site != "same-origin" && site != "none")
}

/// Whether the request opens a page in a tab of its own. A link from elsewhere may do that, since
/// the page that holds the link sees nothing of it.
fn opens_page(request: &Request) -> bool {
    let says = |name, value| request.headers().get(name).is_some_and(|found| found == value);
    let path = request.uri().path();
    request.method() == Method::GET
        && says("sec-fetch-mode", "navigate")
        && says("sec-fetch-dest", "document")
        && path != "/api"
        && !path.starts_with("/api/")
}

/// The layer.
pub(super) async fn guard(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    match guard.check(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}
