//! Connections: how many there are at once, how long a client may leave a response unread, and how
//! they end.
//!
//! [`Gate`] stands under TLS, at the socket, so that it counts a connection from its first moment
//! and sees every byte that moves.

use axum_server::accept::Accept;
use std::{
    future::{Future, Ready, ready},
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};

/// How long a connection that ends takes what the client still sends. Closing at once would make
/// the system reset it, and a client that is still uploading would never read why it was refused.
const LINGER: Duration = Duration::from_secs(2);

/// Lets connections in while there are places.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    places: Arc<Semaphore>,
    idle: Duration,
}

impl Gate {
    /// With room for `places` connections, on each of which the client must read something within
    /// `idle` while a response waits.
    pub(super) fn new(places: usize, idle: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))), idle }
    }
}

impl<S> Accept<TcpStream, S> for Gate {
    type Stream = Watched;
    type Service = S;
    type Future = Ready<io::Result<(Watched, S)>>;

    /// A connection for which there is no place is closed: waiting ones would hold a socket each.
    fn accept(&self, socket: TcpStream, service: S) -> Self::Future {
        let place = self.places.clone().try_acquire_owned();
        ready(place.map_err(|_| io::Error::other("all connections are taken")).and_then(|place| {
            // Events are small and should not wait for each other.
            socket.set_nodelay(true)?;
            let watched =
                Watched { socket, idle: self.idle, stall: None, linger: None, _place: place };
            Ok((watched, service))
        }))
    }
}

/// A socket with a limit on how long a write waits for its client.
#[derive(Debug)]
pub(super) struct Watched {
    socket: TcpStream,
    idle: Duration,
    /// Ends when a write has waited too long; none while no write waits.
    stall: Option<Pin<Box<Sleep>>>,
    /// Ends when the client had long enough to hang up, once we have.
    linger: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Watched {
    /// What became of a write, or an error if it waits for too long.
    fn moved(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let idle = self.idle;
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(idle)));
        stall.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.moved(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.moved(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    /// Says that no more comes, then takes what does until the client hangs up too.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            std::task::ready!(Pin::new(&mut self.socket).poll_shutdown(context))?;
        }
        let Self { socket, linger, .. } = &mut *self;
        let linger = linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut dropped = [0; 4096];
        while linger.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut dropped);
            std::task::ready!(Pin::new(&mut *socket).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}
