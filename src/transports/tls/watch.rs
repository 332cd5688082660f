//! A connection that fails when it is silent for too long, and whose sent bytes are counted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Duration, Instant, Sleep, sleep};

/// Fails reads once nothing has come for a time. Somebody must always be reading, as HTTP/2 does.
#[derive(Debug)]
pub(in crate::transports) struct Watched<S> {
    stream: S,
    patience: Duration,
    deadline: Pin<Box<Sleep>>,
    sent_bytes: Arc<AtomicU64>,
}

impl<S> Watched<S> {
    pub(in crate::transports) fn new(stream: S, patience: Duration) -> Self {
        let deadline = Box::pin(sleep(patience));
        Self { stream, patience, deadline, sent_bytes: Arc::default() }
    }

    /// Where the bytes sent are counted.
    pub(in crate::transports) fn sent_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent_bytes)
    }

    fn count(&self, said: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(written)) = said {
            let written = u64::try_from(*written).unwrap_or(u64::MAX);
            self.sent_bytes.fetch_add(written, Ordering::Relaxed);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(context, buffer) {
            this.deadline.as_mut().reset(Instant::now() + this.patience);
            return Poll::Ready(read);
        }
        ready!(this.deadline.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let said = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.count(&said);
        said
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let said = Pin::new(&mut this.stream).poll_write_vectored(context, pieces);
        this.count(&said);
        said
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_ends_and_each_sign_of_life_starts_it_anew() {
        let (near, mut far) = duplex(64);
        let mut watched = Watched::new(near, Duration::from_secs(120));
        let before = Instant::now();
        let speak = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(119)).await;
                far.write_all(b"x").await.unwrap();
            }
        };
        let listen = async {
            let mut bytes = [0; 4];
            watched.read_exact(&mut bytes).await.unwrap_err().kind()
        };
        let (kind, ()) = tokio::join!(listen, speak);
        assert_eq!(kind, io::ErrorKind::TimedOut);
        assert_eq!(before.elapsed().as_secs(), 3 * 119 + 120);
    }

    #[tokio::test]
    async fn what_is_sent_is_counted() {
        let (near, _far) = duplex(64);
        let mut watched = Watched::new(near, Duration::from_secs(120));
        let counter = watched.sent_bytes();
        watched.write_all(b"seven b").await.unwrap();
        assert_eq!(counter.load(Ordering::Relaxed), 7);
    }
}
