//! A connection whose requests must be said in one go, and an answer that is under way until its
//! last byte was taken.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Duration, Instant, Sleep, sleep};

use crate::transports::http::visits::{Sight, UnderWay};

/// Fails a read once the head of a request has begun and has not ended for a time. Between
/// requests nothing is bounded here.
#[derive(Debug)]
pub(super) struct HeadGuard<S> {
    stream: S,
    sight: Sight,
    patience: Duration,
    /// Requests that were heard when the head began that is coming in.
    head_of: Option<u64>,
    /// Made with the first head.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> HeadGuard<S> {
    pub(super) const fn new(stream: S, sight: Sight, patience: Duration) -> Self {
        Self { stream, sight, patience, head_of: None, deadline: None }
    }

    /// Bytes came, or did not: begins to wait with the first of a head.
    fn heard(&mut self, some: bool) {
        let heard = self.sight.requests_if_idle();
        if heard.is_none() || self.head_of != heard {
            self.head_of = heard.filter(|_| some);
            if self.head_of.is_some() {
                let patience = self.patience;
                let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(patience)));
                deadline.as_mut().reset(Instant::now() + patience);
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadGuard<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        this.heard(buffer.filled().len() > before);
        if read.is_ready() {
            return read;
        }
        if let (Some(_head), Some(deadline)) = (this.head_of, &mut this.deadline) {
            ready!(deadline.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeadGuard<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, pieces)
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

/// The body of an answer, whose request is under way for as long as it is there.
pub(super) struct Answered {
    body: Body,
    _under_way: UnderWay,
}

impl Answered {
    pub(super) fn body(body: Body, under_way: UnderWay) -> Body {
        Body::new(Self { body, _under_way: under_way })
    }
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::transports::http::visits::{Visits, Welcome};

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_head_byte_by_byte_is_not_waited_for() {
        let visits = Visits::new(1);
        let Welcome::Seat(seat) = visits.enter(false) else { panic!("a seat") };
        let visit = visits.sit(seat);
        let (near, mut far) = duplex(64);
        let mut guard = HeadGuard::new(near, visit.sight(), PATIENCE);
        let mut byte = [0];
        let silent = tokio::time::timeout(PATIENCE * 10, guard.read_exact(&mut byte)).await;
        assert!(silent.is_err(), "who has not begun is not bounded");
        let begun = Instant::now();
        let mut drip = tokio::task::JoinSet::new();
        drip.spawn(async move {
            while far.write_all(b"x").await.is_ok() {
                sleep(PATIENCE / 10).await;
            }
        });
        let error = loop {
            if let Err(error) = guard.read_exact(&mut byte).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed().abs_diff(PATIENCE) < PATIENCE / 5);
        drop(guard);
        drip.join_next().await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn between_requests_and_in_them_nothing_is_bounded() {
        let visits = Visits::new(1);
        let Welcome::Seat(seat) = visits.enter(false) else { panic!("a seat") };
        let visit = visits.sit(seat);
        let (near, mut far) = duplex(64);
        let mut guard = HeadGuard::new(near, visit.sight(), PATIENCE);
        let mut byte = [0];
        far.write_all(b"ab").await.unwrap();
        guard.read_exact(&mut byte).await.unwrap();
        let under_way = visit.sight().request();
        assert!(tokio::time::timeout(PATIENCE * 2, guard.read_exact(&mut byte)).await.is_ok());
        assert!(tokio::time::timeout(PATIENCE * 2, guard.read_exact(&mut byte)).await.is_err());
        drop(under_way);
        assert!(tokio::time::timeout(PATIENCE * 2, guard.read_exact(&mut byte)).await.is_err());
    }
}
