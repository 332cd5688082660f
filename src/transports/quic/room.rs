//! Room for messages that are half there.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::formats::limits::{HALF_MESSAGE_BYTES_FREE, HALF_MESSAGES_BYTES_MAX};

/// What the streams of one connection may hold of messages that are not whole, out of what all
/// connections may.
///
/// There is no waiting for room: bytes that are not read use up the window of their connection,
/// and two streams that wait for each other's rest would wait for ever.
#[derive(Clone, Debug)]
pub(super) struct Room {
    of_connection: Arc<Semaphore>,
    of_box: Arc<Semaphore>,
}

impl Room {
    /// For one more connection.
    pub(super) fn new(of_box: Arc<Semaphore>) -> Self {
        Self { of_connection: Arc::new(Semaphore::new(HALF_MESSAGES_BYTES_MAX)), of_box }
    }

    /// For one more stream.
    pub(super) fn share(&self) -> Share {
        Share { room: self.clone(), held: None }
    }
}

/// What one stream takes of it; gives it back when it goes.
#[derive(Debug)]
pub(super) struct Share {
    room: Room,
    held: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl Share {
    /// Takes as much as `bytes` need, and gives the rest back. False if there is no room.
    pub(super) fn hold(&mut self, bytes: usize) -> bool {
        let wanted = if bytes > HALF_MESSAGE_BYTES_FREE { bytes } else { 0 };
        let held = self.held.as_ref().map_or(0, |(permit, _)| permit.num_permits());
        if wanted <= held {
            if let Some((own, all)) = &mut self.held {
                drop(own.split(held - wanted));
                drop(all.split(held - wanted));
            }
            return true;
        }
        let more = u32::try_from(wanted - held).unwrap_or(u32::MAX);
        let own = Arc::clone(&self.room.of_connection).try_acquire_many_owned(more);
        let all = Arc::clone(&self.room.of_box).try_acquire_many_owned(more);
        let (Ok(own), Ok(all)) = (own, all) else { return false };
        match &mut self.held {
            Some(held) => {
                held.0.merge(own);
                held.1.merge(all);
            }
            none => *none = Some((own, all)),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_share_what_there_is_and_give_it_back() {
        let of_box = Arc::new(Semaphore::new(HALF_MESSAGES_BYTES_MAX + (1 << 20)));
        let free = || of_box.available_permits();
        let before = free();
        let room = Room::new(Arc::clone(&of_box));
        let (mut one, mut two) = (room.share(), room.share());
        assert!(one.hold(HALF_MESSAGES_BYTES_MAX - 10_000) && two.hold(10_000));
        assert!(!two.hold(10_001), "the connection has no more");
        let mut elsewhere = Room::new(Arc::clone(&of_box)).share();
        assert!(elsewhere.hold(1 << 20) && !elsewhere.hold((1 << 20) + 1), "nor has the box");
        assert!(elsewhere.hold(HALF_MESSAGE_BYTES_FREE), "little things are free");
        assert_eq!(free(), 1 << 20);
        assert!(one.hold(5000) && two.hold(20_000));
        drop((one, two));
        assert_eq!(free(), before);
    }
}
