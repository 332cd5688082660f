//! QUIC's own settings, the same on both sides unless said otherwise.

use std::sync::Arc;

use quinn::{IdleTimeout, TransportConfig, VarInt};

use crate::formats::limits::{
    KEEP_ALIVE_EVERY, QUIC_SEND_WINDOW_BYTES, QUIC_STREAM_WINDOW_BYTES, QUIC_WINDOW_BYTES,
    STREAM_IDLE_MAX, STREAMS_MAX,
};

/// Why a connection is closed, as the number in QUIC's CONNECTION_CLOSE. PROTOCOL.md, "Closing".
#[derive(Clone, Copy, Debug)]
pub(super) enum CloseReason {
    /// 0: nothing more to say.
    Done,
    /// 1: the greeting was refused; the refusal went before.
    Refused,
    /// 2: the box goes down.
    ShuttingDown,
}

impl CloseReason {
    pub(super) const fn code(self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::ShuttingDown => 2,
        })
    }
}

/// A box: clients may open the control stream and [`STREAMS_MAX`] requests beside it.
pub(super) fn of_box() -> Arc<TransportConfig> {
    let mut config = shared();
    config.max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX + 1));
    Arc::new(config)
}

/// A client: boxes open no streams; the client keeps the connection alive.
pub(super) fn of_client() -> Arc<TransportConfig> {
    let mut config = shared();
    config.max_concurrent_bidi_streams(VarInt::from_u32(0));
    config.keep_alive_interval(Some(KEEP_ALIVE_EVERY));
    Arc::new(config)
}

fn shared() -> TransportConfig {
    let mut config = TransportConfig::default();
    let idle_ms = VarInt::try_from(u64::try_from(STREAM_IDLE_MAX.as_millis()).unwrap_or(u64::MAX));
    config
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IdleTimeout::from(idle_ms.unwrap_or(VarInt::MAX))))
        .stream_receive_window(VarInt::from_u32(QUIC_STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(QUIC_WINDOW_BYTES))
        .send_window(QUIC_SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None);
    config
}
