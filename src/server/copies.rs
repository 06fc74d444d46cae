//! Copies of recordings that browsers can't play. One is made when somebody wants to play the recording, and kept beside it
//! in the storage, so that every node has it. It is removed with the recording, after some days, and where room is needed,
//! and made again when somebody asks. Called by `sessions` and `jobs`.

mod kept;

use super::{
    audio::{self, CopyError, Decoders, Selection, wav_head},
    config::{DecodeConfig, KeepConfig},
    error::Error,
    media::{CopyName, MediaError, Recordings, Scratch, StoredCopy},
    owner::Owner,
    store::Store,
    turns::{Caller, Turns},
};
use crate::model::{
    Session, Timestamp, bytes,
    playback::{CopyForm, CopyState},
};
use futures::{StreamExt, TryStreamExt, stream};
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{self, Instant},
};

/// How long a failure is told to those who ask again, before it is tried again.
const FAILURE_KEPT: Duration = Duration::from_secs(60);
/// How long a request waits for a copy: less than proxies wait for an answer, which is 60 s in most, and in those of `deploy/`.
const MAX_WAIT: Duration = Duration::from_secs(50);
/// After how many bytes of a copy it is looked whether the disk still has room for copies.
const ROOM_STEP: u64 = 1024 * 1024;
/// How many copies are looked for at once.
const LOOKED_FOR: usize = 16;

/// The copies that this node makes.
#[derive(Clone)]
pub struct Copies {
    store: Store,
    media: Recordings,
    decoders: Decoders,
    max_duration: f64,
    limit: u32,
    /// How many bytes the copies of one owner may take.
    bytes_per_owner: Option<u64>,
    turns: Arc<Turns>,
    making: Arc<Mutex<HashMap<CopyName, Making>>>,
}

/// A copy that is being made, or that could not be made.
struct Making {
    owner: Owner,
    caller: Caller,
    progress: watch::Receiver<Progress>,
}

#[derive(Clone, Debug)]
enum Progress {
    /// How many seconds of the recording are done.
    Under(f64),
    Done,
    /// Why it failed, in words for people, and when.
    Failed(String, Instant),
}

impl Copies {
    /// No copies are being made yet. No recording may be longer than `max_duration` seconds.
    #[must_use]
    pub fn new(
        store: Store,
        media: Recordings,
        decoders: Decoders,
        config: &DecodeConfig,
        kept: &KeepConfig,
        max_duration: f64,
    ) -> Self {
        Self {
            store,
            media,
            decoders,
            max_duration,
            limit: config.max_copies_per_owner,
            bytes_per_owner: kept.max_bytes_per_owner,
            turns: Turns::new(config.max_copies as usize),
            making: Arc::default(),
        }
    }

    /// Finds the copy of a session's recording, of which `form` is wanted, or a form in its place.
    ///
    /// # Errors
    /// If the storage fails.
    pub async fn find(&self, session: &Session, form: CopyForm) -> Result<Option<StoredCopy>, MediaError> {
        // Every browser plays the last form, so that one takes the place of any.
        let forms = if form == CopyForm::Wav { &[CopyForm::Wav][..] } else { &[form, CopyForm::Wav] };
        for form in forms.iter().copied() {
            if let Some(copy) = self.media.copy(CopyName::of(session, form)).await? {
                return Ok(Some(copy));
            }
        }
        Ok(None)
    }

    /// Begins to make a copy that wasn't found, unless it is being made. Returns how far it is.
    ///
    /// # Errors
    /// If it can't be made, or too many are being made for this owner or this caller.
    pub fn ask(&self, owner: &Owner, caller: Caller, session: &Session, form: CopyForm) -> Result<CopyState, Error> {
        let progress = self.begin(owner, caller, session, form)?;
        let progress = progress.borrow().clone();
        match progress {
            Progress::Under(seconds) => {
                let total = session.status.duration_total.filter(|total| *total > 0.0);
                Ok(CopyState::Making(total.map(|total| (seconds / total * 100.0).clamp(0.0, 99.0))))
            }
            Progress::Done => Ok(CopyState::Ready),
            Progress::Failed(reason, _) => Err(Error::NoCopy(reason)),
        }
    }

    /// Returns a copy that wasn't found, once it is made.
    ///
    /// # Errors
    /// As [`Self::ask`], and [`Error::CopyUnderWay`] if it takes long.
    pub async fn wait(
        &self,
        owner: &Owner,
        caller: Caller,
        session: &Session,
        form: CopyForm,
    ) -> Result<StoredCopy, Error> {
        let mut progress = self.begin(owner, caller, session, form)?;
        let ended = progress.wait_for(|progress| !matches!(progress, Progress::Under(_)));
        let ended = time::timeout(MAX_WAIT, ended).await.map_err(|_| Error::CopyUnderWay)?;
        // If the task panicked, there is no copy.
        if let Ok(Progress::Failed(reason, _)) = ended.map(|ended| ended.clone()) {
            return Err(Error::NoCopy(reason));
        }
        match self.find(session, form).await? {
            Some(copy) => Ok(copy),
            // Another track was chosen meanwhile, whose copy is still to be made.
            None if self.store.exists(session.id).await? => Err(Error::CopyUnderWay),
            None => Err(Error::NoRecording),
        }
    }

    fn begin(
        &self,
        owner: &Owner,
        caller: Caller,
        session: &Session,
        form: CopyForm,
    ) -> Result<watch::Receiver<Progress>, Error> {
        let key = CopyName::of(session, form);
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        making.retain(|_, making| match &*making.progress.borrow() {
            Progress::Under(_) => making.progress.has_changed().is_ok(),
            Progress::Done => false,
            Progress::Failed(_, at) => at.elapsed() < FAILURE_KEPT,
        });
        if let Some(making) = making.get(&key) {
            return Ok(making.progress.clone());
        }
        let under: Vec<&Making> =
            making.values().filter(|making| matches!(*making.progress.borrow(), Progress::Under(_))).collect();
        if under.iter().filter(|making| making.owner == *owner).count() >= self.limit as usize {
            return Err(Error::TooManyCopies { limit: self.limit, of: "your" });
        }
        if under.iter().filter(|making| making.caller == caller).count() >= self.limit as usize {
            return Err(Error::TooManyCopies { limit: self.limit, of: "your network's" });
        }
        let (sender, progress) = watch::channel(Progress::Under(0.0));
        making.insert(key, Making { owner: owner.clone(), caller: caller.clone(), progress: progress.clone() });
        let (copies, owner, session) = (self.clone(), owner.clone(), session.clone());
        tokio::spawn(async move {
            let id = session.id;
            let made = copies.make(&owner, caller, &session, form, &sender).await;
            let result = if made.is_ok() { "made" } else { "failed" };
            metrics::counter!("hark_playable_copies_total", "result" => result).increment(1);
            sender.send_replace(match made {
                Ok(()) => Progress::Done,
                Err(error) => {
                    tracing::info!(session_id = %id, %error, "no playable copy of session {id} could be made");
                    let reason = match error {
                        Error::NoCopy(reason) => reason,
                        error => error.public().message,
                    };
                    Progress::Failed(reason, Instant::now())
                }
            });
        });
        Ok(progress)
    }

    async fn make(
        &self,
        owner: &Owner,
        caller: Caller,
        session: &Session,
        form: CopyForm,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), Error> {
        let id = session.id;
        let _place = Turns::take(&self.turns, caller).await;
        // Another node may have made it while this one waited.
        if self.find(session, form).await?.is_some() {
            return Ok(());
        }
        let (recording, _fetched) = self.recording(session).await?;
        match self.encode(session, &recording, form, progress).await {
            Err(EncodeError::Encoder(reason)) if form != CopyForm::Wav => {
                tracing::warn!(session_id = %id, reason, "ffmpeg can't encode Opus; the copy for browsers will be a WAV file");
                self.encode(session, &recording, CopyForm::Wav, progress).await
            }
            made => made,
        }?;
        // If the session was deleted meanwhile, or another track was chosen, whoever did it may have removed the copies before
        // this one was stored.
        let name = CopyName::of(session, form);
        if self.store.find(id).await?.is_none_or(|(now, _)| CopyName::of(&now, form) != name) {
            let copies = CopyForm::ALL.map(|form| CopyName { form, ..name });
            return Ok(self.media.remove_copies(&copies).await?);
        }
        tracing::info!(session_id = %id, "a playable copy of session {id} was made");
        // Only now, so that of several nodes and copies the last one sees all of them.
        self.remove_oldest(owner).await
    }

    /// Removes the owner's oldest copies, if they take more than they may.
    async fn remove_oldest(&self, owner: &Owner) -> Result<(), Error> {
        let Some(most) = self.bytes_per_owner else { return Ok(()) };
        let recordings = self.store.recordings(owner).await?;
        let wanted = recordings
            .into_iter()
            .flat_map(|(id, track, tracks)| CopyForm::ALL.map(|form| CopyName::new(id, track, tracks, form)));
        let looks: Vec<_> = wanted.map(|name| self.media.copy(name)).collect();
        let found: Vec<_> = stream::iter(looks).buffer_unordered(LOOKED_FOR).try_collect().await?;
        for copy in kept::too_many(found.into_iter().flatten().collect(), Timestamp(i64::MIN), most) {
            self.media.remove_copy(copy.name).await?;
        }
        Ok(())
    }

    /// Whether the disk has so little room that copies have to go.
    ///
    /// # Errors
    /// If the system doesn't tell.
    pub fn lack_room(&self) -> Result<bool, MediaError> {
        Ok(self.media.lacking_for_copies()? > 0)
    }

    /// Removes the copies that were made before `since`, and the oldest ones where the disk has too little room.
    ///
    /// # Errors
    /// If the storage fails.
    pub async fn sweep(&self, since: Timestamp) -> Result<(), MediaError> {
        let copies = self.media.copies().await?;
        let all: u64 = copies.iter().map(|copy| copy.bytes).sum();
        let most = all.saturating_sub(self.media.lacking_for_copies()?);
        let gone = kept::too_many(copies, since, most);
        for copy in &gone {
            self.media.remove_copy(copy.name).await?;
        }
        if !gone.is_empty() {
            let (copies, bytes) = (gone.len(), gone.iter().map(|copy| copy.bytes).sum::<u64>());
            tracing::info!(
                copies,
                bytes,
                "old copies for browsers were removed; they are made again when they are needed"
            );
        }
        Ok(())
    }

    /// The recording as a file of this machine, with its scratch file if it had to be fetched.
    async fn recording(&self, session: &Session) -> Result<(PathBuf, Option<Scratch>), Error> {
        if let Some(file) = self.media.file(session.id) {
            return Ok((file, None));
        }
        let mut room = self.media.reserve_copy(session.media.bytes)?;
        let fetched = self.media.scratch(session.id, 0, "playable")?;
        self.media.fetch(session.id, &fetched, &mut room).await?;
        Ok((fetched.path().to_owned(), Some(fetched)))
    }

    async fn encode(
        &self,
        session: &Session,
        recording: &std::path::Path,
        form: CopyForm,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), EncodeError> {
        let limits = audio::Limits { max_duration: self.max_duration };
        let selection = Selection { track: session.track, ..Selection::default() };
        let mut copying = self.decoders.copy(recording, limits, selection, form).await?;
        let (name, room) = (CopyName::of(session, form), self.media.reserve_upload(None)?);
        let mut file = self.media.receive_copy(name, room)?;
        let mut looked_at = 0;
        while let Some(piece) = copying.next().await? {
            file.write(&piece).await?;
            if let Some(most) = self.bytes_per_owner.filter(|most| file.bytes > *most) {
                return Err(EncodeError::Other(Error::NoCopy(format!(
                    "It would be larger than {}, which is as much as the copies of your recordings may take here. \
                     Download the recording and play it in another program.",
                    bytes(most)
                ))));
            }
            if file.bytes >= looked_at {
                self.media.check_room_for_copies()?;
                looked_at = file.bytes + ROOM_STEP;
            }
            progress.send_replace(Progress::Under(copying.seconds()));
        }
        let made = file.finish().await?;
        if form == CopyForm::Wav {
            made.overwrite(wav_head(made.bytes).to_vec()).await?;
        }
        self.media.keep_copy(name, &made).await?;
        Ok(())
    }
}

/// Why a copy can't be made in this form.
enum EncodeError {
    /// Another form may be possible.
    Encoder(String),
    Other(Error),
}

impl From<CopyError> for EncodeError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Encoder(reason) => Self::Encoder(reason),
            CopyError::Audio(error) => Self::Other(error.into()),
        }
    }
}

impl From<MediaError> for EncodeError {
    fn from(error: MediaError) -> Self {
        Self::Other(error.into())
    }
}

impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::Encoder(reason) => Self::Internal(format!("the encoder failed: {reason}")),
            EncodeError::Other(error) => error,
        }
    }
}
