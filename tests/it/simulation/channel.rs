//! Messages on a stream of a simulated connection.

use larder::wire::framing::{Decoder, encode};
use larder::wire::message::Message;
use quinn_proto::{Connection, Dir, ReadError, StreamId, WriteError};

/// One bidirectional stream with what is on its way out.
pub(crate) struct Channel {
    pub(crate) id: StreamId,
    decoder: Decoder,
    out: Vec<u8>,
    written: usize,
    finish: bool,
    /// The other side ended, reset or stopped the stream, or the connection is gone.
    pub(crate) ended: bool,
}

impl Channel {
    pub(crate) fn open(connection: &mut Connection) -> Option<Self> {
        connection.streams().open(Dir::Bi).map(Self::on)
    }

    pub(crate) fn on(id: StreamId) -> Self {
        let decoder = Decoder::new(usize::MAX);
        Self { id, decoder, out: Vec::new(), written: 0, finish: false, ended: false }
    }

    pub(crate) fn say<M: Message>(&mut self, message: &M) {
        self.out.extend_from_slice(&encode(message).expect("a message that fits"));
    }

    /// Ends our half once all is written.
    pub(crate) fn finish(&mut self) {
        self.finish = true;
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.written == self.out.len()
    }

    /// The next message, reading what arrived.
    pub(crate) fn hear<M: Message>(&mut self, connection: &mut Connection) -> Option<M> {
        loop {
            if let Some(message) = self.decoder.next_message().expect("whole messages") {
                return Some(message);
            }
            let mut stream = connection.recv_stream(self.id);
            let Ok(mut chunks) = stream.read(true) else {
                self.ended = true;
                return None;
            };
            let piece = chunks.next(usize::MAX);
            let _the_link_polls_anyway = chunks.finalize();
            match piece {
                Ok(Some(piece)) => self.decoder.feed(&piece.bytes),
                Err(ReadError::Blocked) => return None,
                Ok(None) | Err(ReadError::Reset(_)) => {
                    self.ended = true;
                    return None;
                }
            }
        }
    }

    /// Writes as much as QUIC takes.
    pub(crate) fn flush(&mut self, connection: &mut Connection) {
        let mut stream = connection.send_stream(self.id);
        while self.written < self.out.len() {
            match stream.write(&self.out[self.written..]) {
                Ok(length) => self.written += length,
                Err(WriteError::Blocked) => return,
                Err(_stopped_or_closed) => {
                    self.written = self.out.len();
                }
            }
        }
        if self.finish {
            let _finished_before = stream.finish();
            self.finish = false;
        }
    }
}
