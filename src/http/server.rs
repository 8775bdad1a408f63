//! The server: a router behind the layers that every request passes, on a socket.
//!
//! `app` calls [`Server::start`]. Nothing here knows a route. What each layer is for stands in its
//! module; from the socket inwards they are:
//!
//! 1. `connection`: a place for it, and an end to unread responses; then TLS, then hyper, which ends
//!    headers that do not arrive and connections that stay idle.
//! 2. `headers`: security headers, the list of allowed ones; compression of text.
//! 3. `error`: the request's id, the shape of errors, panics.
//! 4. `guard`: hosts and origins.
//! 5. `body`: size and pace of what is uploaded.

use super::{
    Code,
    body::{self, Limits},
    connection::Gate,
    error, guard,
    guard::Guard,
    headers,
    tls::{self, Fingerprint, Tls, TlsError},
};
use axum::{Router, extract::DefaultBodyLimit, middleware::from_fn_with_state};
use axum_server::{
    Handle,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinHandle;

/// The most bytes of a request's line and headers, and the buffer of a connection.
const HEADER_BYTES: usize = 32 * 1024;

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where to listen. Port 0 stands for one that is free.
    pub bind: SocketAddr,
    /// The most bytes of a request's body.
    pub max_body: u64,
    /// The most connections at once; further ones are closed.
    pub max_connections: usize,
    /// How long the headers of a request may take, and a connection may stay without one.
    pub header_timeout: Duration,
    /// How long a body may bring no byte, and a client may read none of a response.
    pub idle_timeout: Duration,
    /// Names of the server besides `localhost` and its address, as they stand in a URL, without port.
    pub hosts: Vec<String>,
    /// Whether and how connections are encrypted.
    pub tls: Tls,
    /// Who is told of every request that is answered with an error.
    pub refused: Refused,
}

/// Told the code of every error that is sent.
#[derive(Clone)]
pub struct Refused(pub Arc<dyn Fn(Code) + Send + Sync>);

impl std::fmt::Debug for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Refused")
    }
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address is not to be had.
    #[error(
        "cannot listen on {address}: {source}; choose another address in server.bind, or stop the \
         program that has this one"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    fingerprint: Option<Fingerprint>,
    handle: Handle<SocketAddr>,
    task: JoinHandle<io::Result<()>>,
}

impl Server {
    /// Serves `router` until it is stopped. When this returns, clients can connect.
    ///
    /// # Errors
    /// The address is taken or not this machine's, or the certificate cannot be read or made.
    pub async fn start(router: Router, options: &ServerOptions) -> Result<Self, ServeError> {
        let ServerOptions { bind, max_connections, header_timeout, idle_timeout, .. } = *options;
        let ServerOptions { hosts, tls, .. } = options;
        let secret = tls::load(tls, bind.ip(), hosts)?;
        let refused = |source| ServeError::Bind { address: bind, source };
        let listener = TcpListener::bind(bind).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;

        let options = ServerOptions { bind: address, ..options.clone() };
        let service = layered(router, &options).into_make_service();

        let handle = Handle::new();
        let gate = Gate::new(max_connections, idle_timeout);
        let mut server = axum_server::from_tcp(listener)
            .map_err(refused)?
            .handle(handle.clone())
            .http1_only()
            .accept_error_handler(|peer, error| match peer {
                // One client's connection, of which it learns itself.
                Some(_) => tracing::debug!(%error, "a connection was refused"),
                None => tracing::warn!(%error, "no connection can be accepted"),
            });
        let mut http = server.http_builder().http1();
        http.header_read_timeout(header_timeout).max_buf_size(HEADER_BYTES);
        let (task, fingerprint) = match secret {
            None => (tokio::spawn(server.acceptor(gate).serve(service)), None),
            Some(secret) => {
                let acceptor = RustlsAcceptor::new(RustlsConfig::from_config(secret.config))
                    .handshake_timeout(header_timeout)
                    .acceptor(gate);
                let task = tokio::spawn(server.acceptor(acceptor).serve(service));
                (task, Some(secret.fingerprint))
            }
        };
        Ok(Self { address, fingerprint, handle, task })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The fingerprint of its certificate; none without TLS.
    pub const fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// Takes no more connections and no more requests, and lets those that run end for as long as
    /// `within`; then it cuts them.
    pub fn stop(&self, within: Duration) {
        self.handle.graceful_shutdown(Some(within));
    }

    /// Waits until a stopped server has ended.
    ///
    /// # Errors
    /// The task that serves failed.
    pub async fn ended(self) -> io::Result<()> {
        self.task.await?
    }
}

/// `router` behind all layers, as it is served on the address `options.bind`, whose port is known.
pub fn layered(router: Router, options: &ServerOptions) -> Router {
    let ServerOptions { bind, max_body, idle_timeout, ref hosts, ref tls, .. } = *options;
    let guard = Arc::new(Guard::new(bind, hosts, *tls != Tls::Off));
    let limits = Limits { max_body, idle: idle_timeout };
    // A browser that accepted a certificate that nobody vouches for must not be bound to it.
    let hsts = matches!(tls, Tls::Files { .. });
    // Of two layers the one that is added later is passed first.
    router
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        // axum's own limit is smaller than ours and answers in another shape.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(limits, body::limit))
        .layer(from_fn_with_state(guard, guard::guard))
        .layer(from_fn_with_state(options.refused.clone(), error::answer))
        .layer(headers::compression())
        .layer(from_fn_with_state(hsts, headers::dress))
}
