//! What carries streams between a client and a box: QUIC, or HTTP/2's frames inside TLS where UDP
//! does not get through. Everything above this file is the same for both.

use std::io;
use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use quinn::{ReadError, VarInt, WriteError};

use crate::transports::quic::transport::CloseReason;
use crate::transports::tls::streams::{self, Streams};

/// Bytes taken from a stream at a time.
const PIECE_BYTES: usize = 64 << 10;

/// What broke under a stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// A QUIC connection.
    #[error(transparent)]
    Quic(#[from] quinn::ConnectionError),
    /// The reading half of a QUIC stream.
    #[error(transparent)]
    QuicRead(#[from] ReadError),
    /// The writing half of a QUIC stream.
    #[error(transparent)]
    QuicWrite(#[from] WriteError),
    /// A connection by TLS over TCP before it carried streams.
    #[error(transparent)]
    Tls(#[from] io::Error),
    /// A connection by TLS over TCP, or a stream of it.
    #[error(transparent)]
    Streams(#[from] h2::Error),
    /// A connection by TLS over TCP that has ended.
    #[error("the connection has ended")]
    Ended,
}

/// A connection whose other side proved who it is.
#[derive(Debug)]
pub(super) enum Link {
    Quic(quinn::Connection),
    Tls(Streams),
}

impl Link {
    /// Where the other side is.
    pub(super) fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Quic(connection) => connection.remote_address(),
            Self::Tls(streams) => streams.remote_address(),
        }
    }

    /// Opens a stream; waits while as many are open as the box allows.
    pub(super) async fn open_bi(&self) -> Result<(SendHalf, RecvHalf), LinkError> {
        match self {
            Self::Quic(connection) => {
                let (send, recv) = connection.open_bi().await?;
                Ok((SendHalf::Quic(send), RecvHalf::Quic(recv)))
            }
            Self::Tls(streams) => {
                let (send, recv) = streams.open().await?;
                Ok((SendHalf::Tls(send), RecvHalf::Tls(recv)))
            }
        }
    }

    /// The next stream that the client opens.
    pub(super) async fn accept_bi(&self) -> Result<(SendHalf, RecvHalf), LinkError> {
        match self {
            Self::Quic(connection) => {
                let (send, recv) = connection.accept_bi().await?;
                Ok((SendHalf::Quic(send), RecvHalf::Quic(recv)))
            }
            Self::Tls(streams) => {
                let (send, recv) = streams.accept().await.ok_or(LinkError::Ended)?;
                Ok((SendHalf::Tls(send), RecvHalf::Tls(recv)))
            }
        }
    }

    /// Closes the connection. Only QUIC tells the other side the reason.
    pub(super) async fn close(&self, reason: CloseReason) {
        match self {
            Self::Quic(connection) => connection.close(reason.code(), b""),
            Self::Tls(streams) => streams.close().await,
        }
    }

    /// Bytes sent so far, of UDP or TCP payload.
    pub(super) fn sent_bytes(&self) -> u64 {
        match self {
            Self::Quic(connection) => connection.stats().udp_tx.bytes,
            Self::Tls(streams) => streams.sent_bytes(),
        }
    }
}

/// The half of a stream that bytes go to. Dropping it ends the stream.
#[derive(Debug)]
pub(super) enum SendHalf {
    Quic(quinn::SendStream),
    Tls(streams::SendHalf),
}

impl SendHalf {
    /// Takes what there is room for off the front of `pending`. Cancel-safe: what was not taken
    /// stays. `None` if the other side does not read any more, though it may still answer.
    pub(super) async fn write(&mut self, pending: &mut BytesMut) -> Result<Option<()>, LinkError> {
        match self {
            Self::Quic(stream) => match stream.write(pending).await {
                Ok(written) => pending.advance(written),
                Err(WriteError::Stopped(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            },
            Self::Tls(stream) => return Ok(stream.write(pending).await?),
        }
        Ok(Some(()))
    }

    /// Says that nothing more comes.
    pub(super) fn finish(&mut self) {
        match self {
            Self::Quic(stream) => {
                let _closed_by_the_other_side = stream.finish();
            }
            Self::Tls(stream) => stream.finish(),
        }
    }

    /// Waits until all that was written arrived, or the other side gave up on it.
    pub(super) async fn arrived(&mut self) {
        match self {
            Self::Quic(stream) => {
                let _code_or_loss: Result<Option<VarInt>, _> = stream.stopped().await;
            }
            Self::Tls(stream) => stream.given_up().await,
        }
    }
}

/// The half of a stream that bytes come from.
#[derive(Debug)]
pub(super) enum RecvHalf {
    Quic(quinn::RecvStream),
    Tls(streams::RecvHalf),
}

impl RecvHalf {
    /// The next bytes; `None` at the end. Cancel-safe.
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>, LinkError> {
        match self {
            Self::Quic(stream) => {
                let piece = stream.read_chunk(PIECE_BYTES, true).await?;
                Ok(piece.map(|piece| piece.bytes))
            }
            Self::Tls(stream) => Ok(stream.read().await?),
        }
    }
}
