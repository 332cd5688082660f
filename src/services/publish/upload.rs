//! One path on its way in: the asynchronous face of `store::Ingest`.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use crate::formats::limits::INLINE_NAR_BYTES_MAX;
use crate::services::metrics::{Metrics, PushEnd};
use crate::services::publish::{Inner, PublishError, PusherId};
use crate::store::{
    Added, Cache, FinishedNar, Ingest, IngestError, NarSource, NewPath, Pusher, StoreError,
};
use crate::wire::message::{ChunkRef, InlineChunk, PushOutcome};

/// One path on its way in.
///
/// Hashing, decompression and writing happen on blocking threads, at most one for each core at a
/// time. Whoever drops it, or a future of it, leaves nothing behind but chunks that count for
/// nothing until their owner pushes again.
#[derive(Debug)]
pub struct Upload {
    inner: Arc<Inner>,
    cache: Arc<Cache>,
    path: Box<NewPath>,
    /// Not there while a blocking thread has it, and after that was given up or has failed.
    intake: Option<Box<Intake>>,
    under_way: UnderWay,
}

/// Counts a push that is neither done nor refused as broken off.
#[derive(Debug)]
struct UnderWay {
    metrics: Arc<Metrics>,
    is_settled: bool,
}

impl UnderWay {
    fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.pushes_under_way.inc();
        Self { metrics: Arc::clone(metrics), is_settled: false }
    }

    fn refuse(&mut self) {
        if !self.is_settled {
            self.is_settled = true;
            self.metrics.push(PushEnd::Refused);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.metrics.pushes_under_way.dec();
        if !self.is_settled {
            self.metrics.push(PushEnd::BrokenOff);
        }
    }
}

impl Upload {
    pub(super) fn new(inner: Arc<Inner>, cache: Arc<Cache>, path: NewPath) -> Self {
        let (hash, size) = (path.info.nar_hash, path.info.nar_size);
        let Pusher { token, at, .. } = path.pusher;
        let ingest = inner.store.begin_ingest(path.cache, hash, size, token, at);
        let under_way = UnderWay::new(&inner.metrics);
        let intake = Some(Box::new(Intake { ingest, batches: VecDeque::new() }));
        Self { inner, cache, path: Box::new(path), intake, under_way }
    }

    /// Starts the next batch of the NAR, in its order; places in it of the chunks that must be
    /// sent, ascending. Earlier batches may still be open.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; the upload is over then.
    pub async fn batch(&mut self, chunks: Vec<ChunkRef>) -> Result<Vec<usize>, PublishError> {
        let again = chunks.clone();
        match self.on_blocking_thread(move |intake| intake.start(chunks)).await {
            Err(PublishError::Ingest(IngestError::Store(StoreError::NoSpace {
                needed_bytes,
                ..
            }))) => {
                self.inner.collections.make_room(needed_bytes).await;
                self.on_blocking_thread(move |intake| intake.start(again)).await
            }
            answered => answered,
        }
        .inspect_err(|_error| self.under_way.refuse())
    }

    /// Takes frames of the oldest open batch, with their places in it: as many of those that were
    /// asked for as have come. An empty list says that all have come, and ends the batch, unless
    /// something is asked for again.
    ///
    /// Gives the places of chunks that the box believed to have and cannot read: they must be
    /// sent after all. That also heals the box.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; the upload is over then.
    pub async fn frames(
        &mut self,
        frames: Vec<(usize, Bytes)>,
    ) -> Result<Vec<usize>, PublishError> {
        if frames.is_empty() && self.intake.as_mut().is_some_and(|intake| intake.end_if_taken()) {
            return Ok(Vec::new());
        }
        self.inner.metrics.push_received(frames.iter().map(|(_, frame)| frame.len()).sum());
        let again = self.on_blocking_thread(move |intake| intake.take(frames)).await;
        let again = again.inspect_err(|_error| self.under_way.refuse())?;
        if !again.is_empty() {
            self.inner.forget_damaged();
        }
        Ok(again)
    }

    /// Takes a small NAR whole, all chunks with their frames, verifies it and commits the path;
    /// returns when that is durable. Takes one turn on a blocking thread where batches take
    /// several.
    ///
    /// # Errors
    ///
    /// As of [`finish`](Self::finish).
    pub async fn whole(self, chunks: Vec<InlineChunk>) -> Result<PushOutcome, PublishError> {
        self.inner.metrics.push_received(chunks.iter().map(|chunk| chunk.frame.len()).sum());
        // A collection cannot come in between later.
        if !self.inner.store.space()?.has_left(INLINE_NAR_BYTES_MAX) {
            self.inner.collections.make_room(INLINE_NAR_BYTES_MAX).await;
        }
        let inner = Arc::clone(&self.inner);
        self.finish_after(move |intake| intake.take_whole(&chunks, || inner.forget_damaged())).await
    }

    /// Verifies the NAR as a whole and commits the path; returns when that is durable.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; nothing is visible then. Where chunks vanished meanwhile, pushing again
    /// sends them.
    pub async fn finish(self) -> Result<PushOutcome, PublishError> {
        self.finish_after(|_all_is_taken| Ok(())).await
    }

    async fn finish_after(
        mut self,
        rest: impl FnOnce(&mut Intake) -> Result<(), PublishError> + Send + 'static,
    ) -> Result<PushOutcome, PublishError> {
        let finished = self.finished_nar(rest).await?;
        let source = NarSource::Ingested(finished);
        match self.inner.store.commit_path(NewPath::clone(&self.path), source).await {
            Ok(outcome) => {
                self.under_way.is_settled = true;
                Ok(self.inner.settled(&self.cache, &self.path, outcome))
            }
            Err(error) => {
                self.under_way.refuse();
                Err(error.into())
            }
        }
    }

    fn pusher(&self) -> PusherId {
        let Pusher { token, device_key, .. } = self.path.pusher;
        PusherId { token, device_key }
    }

    async fn finished_nar(
        &mut self,
        rest: impl FnOnce(&mut Intake) -> Result<(), PublishError> + Send + 'static,
    ) -> Result<FinishedNar, PublishError> {
        let Some(mut intake) = self.intake.take() else { return Err(PublishError::FramesUnasked) };
        let core = self.inner.cores.take(self.pusher(), 1).await;
        let finished = spawn_blocking(move || {
            let _until_done = core;
            rest(&mut intake)?;
            intake.finish()
        });
        let finished = finished.await.map_err(StoreError::from)?;
        finished.inspect_err(|_error| self.under_way.refuse())
    }

    async fn on_blocking_thread(
        &mut self,
        work: impl FnOnce(&mut Intake) -> Result<Vec<usize>, PublishError> + Send + 'static,
    ) -> Result<Vec<usize>, PublishError> {
        let core = self.inner.cores.take(self.pusher(), 1).await;
        let Some(mut intake) = self.intake.take() else { return Err(PublishError::FramesUnasked) };
        let worked = spawn_blocking(move || {
            let _until_done = core;
            let places = work(&mut intake);
            (intake, places)
        });
        let (intake, places) = worked.await.map_err(StoreError::from)?;
        // Without room nothing has begun, and it may be begun again.
        if matches!(
            places,
            Ok(_) | Err(PublishError::Ingest(IngestError::Store(StoreError::NoSpace { .. })))
        ) {
            self.intake = Some(intake);
        }
        places
    }
}

impl Inner {
    /// Damage was found: narinfos that name the NARs it is in must not be served now, nor, once
    /// it is healed, with a revision that may have changed.
    fn forget_damaged(&self) {
        self.narinfos.forget_all();
    }
}

/// Chunks between the client and the store, which wants them in the order of the NAR. Blocking.
#[derive(Debug)]
struct Intake {
    ingest: Ingest,
    /// Batches that are not at their end, oldest first.
    batches: VecDeque<Batch>,
}

#[derive(Debug)]
struct Batch {
    chunks: Vec<ChunkRef>,
    /// Places of the chunks that were asked for.
    asked: BTreeSet<usize>,
    /// Frames that have come and whose turn has not.
    frames: HashMap<usize, Bytes>,
    /// The place of the next chunk for the store.
    next: usize,
}

impl Intake {
    fn start(&mut self, chunks: Vec<ChunkRef>) -> Result<Vec<usize>, PublishError> {
        let wanted = self.ingest.look_up(&chunks)?;
        let asked = wanted.iter().copied().collect();
        self.batches.push_back(Batch { chunks, asked, frames: HashMap::new(), next: 0 });
        Ok(wanted)
    }

    /// Ends the oldest batch if the store has all of it, which costs no work.
    fn end_if_taken(&mut self) -> bool {
        let is_taken = |batch: &mut Batch| batch.next == batch.chunks.len();
        self.batches.pop_front_if(is_taken).is_some()
    }

    fn take(&mut self, frames: Vec<(usize, Bytes)>) -> Result<Vec<usize>, PublishError> {
        let all_have_come = frames.is_empty();
        let batch = self.batches.front_mut().ok_or(PublishError::FramesUnasked)?;
        for (place, frame) in frames {
            let was_there = batch.frames.insert(place, frame).is_some();
            if was_there || place < batch.next || !batch.asked.contains(&place) {
                return Err(PublishError::FramesUnasked);
            }
        }
        while let Some(chunk) = batch.chunks.get(batch.next) {
            let frame = match batch.asked.contains(&batch.next) {
                false => None,
                true => match batch.frames.remove(&batch.next) {
                    Some(frame) => Some(frame),
                    None if all_have_come => return Err(PublishError::FramesMissing),
                    None => return Ok(Vec::new()),
                },
            };
            match self.ingest.add(*chunk, frame.as_deref())? {
                Added::Taken => batch.next += 1,
                Added::Resend => {
                    batch.asked.insert(batch.next);
                    return Ok(vec![batch.next]);
                }
            }
        }
        if all_have_come {
            self.end_if_taken();
        }
        Ok(Vec::new())
    }

    /// Takes all chunks of the NAR as one batch. `on_damage` is told at once of each chunk that
    /// the box believed to have and cannot read.
    fn take_whole(
        &mut self,
        chunks: &[InlineChunk],
        on_damage: impl Fn(),
    ) -> Result<(), PublishError> {
        let mut wanted = self.start(chunks.iter().map(|inline| inline.chunk).collect())?;
        let frame = |place: usize| Some((place, chunks.get(place)?.frame.clone()));
        while !self.batches.is_empty() {
            wanted = self.take(wanted.into_iter().filter_map(frame).collect())?;
            if !wanted.is_empty() {
                on_damage();
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<FinishedNar, PublishError> {
        if self.batches.is_empty() {
            Ok(self.ingest.finish()?)
        } else {
            Err(PublishError::FramesMissing)
        }
    }
}
