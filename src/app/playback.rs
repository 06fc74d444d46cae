//! What plays on a session's page: one [`PlayerControl`] that the player, the waveform and the transcript share. It plays the
//! recording, or has the server make a copy if the browser can't play it.

use crate::{
    api::sessions::make_copy,
    feed::{
        browser::player,
        player::{Command, Playback, next_speed},
    },
    model::{
        Media, SessionId, Status,
        playback::{CopyForm, CopyState, plays},
    },
};
use leptos::{prelude::*, task::spawn_local};
use std::time::Duration;

/// The interval at which the page asks how far a copy is.
const COPY_POLL: Duration = Duration::from_secs(1);

/// What the browser's player plays.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    /// The recording itself.
    Recording,
    /// Nothing yet: it takes a copy, which is made when somebody wants to play it.
    Missing,
    /// Nothing yet: a copy is being made; how much of it in percent, if that is known.
    Making(Option<f64>),
    /// A copy.
    Copy,
    /// Nothing; with the reason.
    Failed(String),
}

impl Source {
    /// What people should know of what they hear. Empty if that is the recording itself.
    pub(crate) fn note(&self, kind: &str, picture: bool) -> String {
        let without = if picture { " Its picture can't be shown." } else { "" };
        match self {
            Self::Recording => String::new(),
            Self::Missing => {
                format!("Not every browser can play {kind}. When you press play, Hark makes a copy that yours can.")
            }
            Self::Making(_) => format!("This browser can't play {kind}; Hark is making a copy that it can."),
            Self::Copy => format!("This is a copy, because this browser can't play {kind}.{without}"),
            Self::Failed(reason) => format!("This browser can't play {kind}. {reason}"),
        }
    }
}

/// What the player of a page has come to.
#[derive(Clone, Debug)]
pub(crate) struct PlayerState {
    /// What the browser's element is doing.
    pub(crate) now: Playback,
    pub(crate) source: Source,
    /// The form in which a copy is asked for.
    pub(crate) form: CopyForm,
    /// The position from which the person wants to hear the recording, once it can be played.
    wanted: Option<f64>,
    /// Grows by one whenever the person chooses where to play.
    pub(crate) chosen: u32,
    /// Grows by one whenever the person asks to see what is played.
    pub(crate) asked: u32,
    /// Whether keys control it.
    pub(crate) keys: bool,
}

/// The player of a session's page, for all parts of the page that play or show what is played.
#[derive(Clone, Copy)]
pub struct PlayerControl {
    /// The session.
    pub id: SessionId,
    /// One signal for all of it: each type of signal is code to load.
    pub(crate) state: RwSignal<PlayerState>,
}

impl PlayerControl {
    /// The player of this session's recording, which doesn't play yet.
    #[must_use]
    pub fn new(id: SessionId, media: &Media) -> Self {
        let source = if plays(media) { Source::Recording } else { Source::Missing };
        let now = Playback::default();
        let form = CopyForm::Opus;
        let player = PlayerState { now, source, form, wanted: None, chosen: 0, asked: 0, keys: true };
        Self { id, state: RwSignal::new(player) }
    }

    /// What it is doing.
    pub(crate) fn now(self) -> Playback {
        self.state.with(|player| player.now)
    }

    /// The length of the recording in seconds, as the server knows it, or else the browser.
    pub(crate) fn length(self, status: Memo<Status>) -> Option<f64> {
        status.with(|s| s.duration_total).or(self.now().length)
    }

    fn change(self, change: impl FnOnce(&mut PlayerState)) {
        self.state.update(change);
    }

    /// Plays from a position, in seconds.
    pub fn play_from(self, seconds: f64) {
        self.change(|player| {
            player.chosen += 1;
            player.wanted = Some(seconds);
        });
        match self.state.with_untracked(|player| player.source.clone()) {
            Source::Recording | Source::Copy => {
                player::seek(seconds);
                player::play(true);
            }
            Source::Making(_) => {}
            Source::Missing | Source::Failed(_) => self.make_copy(),
        }
    }

    /// Makes the recording begin at a position, in seconds, when somebody plays it.
    pub fn begin_at(self, seconds: f64) {
        match self.state.with_untracked(|player| player.source.clone()) {
            Source::Missing => self.change(|player| player.wanted = Some(seconds)),
            _ => player::seek(seconds),
        }
    }

    /// Makes the server make a copy, and plays it when it is there.
    fn make_copy(self) {
        self.change(|player| player.source = Source::Making(None));
        self.ask_for_copy();
    }

    fn ask_for_copy(self) {
        spawn_local(async move {
            let form = |player: &PlayerState| player.form;
            let Some(form) = self.state.try_with_untracked(form) else { return };
            let answer = make_copy(self.id, form == CopyForm::Wav).await;
            let source = match answer {
                Ok(CopyState::Ready) => Source::Copy,
                Ok(CopyState::Making(percent)) => Source::Making(percent),
                Err(error) => Source::Failed(error.message),
            };
            // The page may have been left since.
            let changed = self.state.try_update(|player| {
                player.source = source.clone();
                player.wanted.unwrap_or(0.0)
            });
            match (source, changed) {
                (Source::Copy, Some(wanted)) => {
                    player::load(&copy_address(self.id, form));
                    player::seek(wanted);
                    player::play(true);
                }
                (Source::Making(_), Some(_)) => set_timeout(move || self.ask_for_copy(), COPY_POLL),
                _ => {}
            }
        });
    }

    /// Handles that the browser can't play its source: makes a copy, or another one, as soon as somebody wants to play it.
    fn unplayable(self) {
        let PlayerState { source, form, wanted, .. } = self.state.get_untracked();
        match source {
            Source::Recording if wanted.is_none() => self.change(|player| player.source = Source::Missing),
            Source::Recording => self.make_copy(),
            Source::Copy if form != CopyForm::Wav => {
                self.change(|player| player.form = CopyForm::Wav);
                self.make_copy();
            }
            Source::Copy => {
                let reason = "It can't play a copy of it either.".to_owned();
                self.change(|player| player.source = Source::Failed(reason));
            }
            Source::Missing | Source::Making(_) | Source::Failed(_) => {}
        }
    }

    /// Plays or pauses.
    fn toggle(self, now: Playback) {
        let PlayerState { source, wanted, .. } = self.state.get_untracked();
        match source {
            Source::Recording | Source::Copy => {
                if !now.playing {
                    self.change(|player| player.wanted = Some(now.position.unwrap_or(0.0)));
                }
                player::play(!now.playing);
            }
            _ => self.play_from(wanted.unwrap_or(0.0)),
        }
    }

    /// Does what a key or a control means.
    pub(crate) fn perform(self, command: Command) {
        // Asked anew: the events of the key before this one may be under way.
        let now = player::playback();
        match command {
            Command::Toggle => self.toggle(now),
            Command::Skip(seconds) => {
                let to = now.position.unwrap_or(0.0) + seconds;
                player::seek(now.length.map_or(to, |length| to.min(length)));
            }
            Command::Seek(seconds) => player::seek(seconds),
            Command::PlayFrom(seconds) => self.play_from(seconds),
            Command::Faster => player::set_speed(next_speed(now.speed, true)),
            Command::Slower => player::set_speed(next_speed(now.speed, false)),
            Command::Speed(speed) => player::set_speed(speed),
            Command::Volume(volume) => player::set_volume(volume),
            Command::Mute => player::mute(!now.muted),
            Command::FullScreen => player::full_screen(),
            Command::Follow => self.change(|player| player.asked += 1),
            Command::UseKeys(on) => {
                player::keep_keys(on);
                self.change(|player| player.keys = on);
            }
            Command::Close => {
                if !player::close_keys() {
                    player::play(false);
                }
            }
        }
    }

    /// Takes in what the browser's element is doing.
    pub(crate) fn report(self) {
        let now = player::playback();
        self.change(|player| player.now = now);
        if now.unplayable {
            self.unplayable();
        }
    }

    /// Begins, once the player is in the document: reads what the browser keeps, and what its element has done by then.
    pub(crate) fn begin(self) {
        player::mark_player(true);
        let keys = player::keys_on();
        player::show_keys(keys);
        self.change(|player| {
            player.keys = keys;
            if !player::can_play(CopyForm::Opus.media_type()) {
                player.form = CopyForm::Wav;
            }
        });
        if let Some(speed) = player::kept_speed() {
            player::set_speed(speed);
        }
        self.report();
    }
}

/// The address of a copy.
pub(crate) fn copy_address(id: SessionId, form: CopyForm) -> String {
    let query = if form == CopyForm::Wav { "?as=wav" } else { "" };
    format!("/api/v1/sessions/{id}/playable{query}")
}
