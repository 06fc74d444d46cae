//! Hark's own icons, drawn with strokes in the text's colour. They are decoration: each has a text beside it.

use leptos::prelude::*;

/// An icon, named by its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symbol {
    Waiting,
    Working,
    Done,
    Failed,
    Cancelled,
    Upload,
    Download,
    Search,
    Retry,
    Delete,
    Edit,
    Play,
    Pause,
    Sound,
    NoSound,
    Screen,
    Keyboard,
    Down,
    Up,
    Plus,
    Bell,
    More,
    Close,
}

impl Symbol {
    /// The strokes as an SVG path, in a box of 24 by 24.
    fn path(self) -> &'static str {
        match self {
            Self::Waiting => "M12 3.5a8.5 8.5 0 1 0 0 17a8.5 8.5 0 0 0 0-17M12 7.5V12l3 2",
            Self::Working => "M5 10v4M9 7v10M13 4v16M17 8v8M21 11v2",
            Self::Done => "M5 12.5l4.5 4.5L19 7.5",
            Self::Failed => "M12 4L2.8 19.5h18.4zM12 10v4.5M12 17v.2",
            Self::Cancelled => "M12 3.5a8.5 8.5 0 1 0 0 17a8.5 8.5 0 0 0 0-17M6 6l12 12",
            Self::Upload => "M12 16V4M7 9l5-5 5 5M4 16v3.5h16V16",
            Self::Download => "M12 4v12M7 11l5 5 5-5M4 19.5h16",
            Self::Search => "M10.5 4a6.5 6.5 0 1 0 0 13a6.5 6.5 0 0 0 0-13M15.5 15.5L20.5 20.5",
            Self::Retry => "M4 12a8 8 0 1 0 2.5-5.8M4 4v4.5h4.5",
            Self::Delete => "M4.5 7h15M9.5 7V4.5h5V7M6.5 7l1 13h9l1-13M10 11v5M14 11v5",
            Self::Edit => "M4 20l1-4.5L16.5 4l3.5 3.5L8.5 19z",
            Self::Play => "M7 4.5v15l12-7.5z",
            Self::Pause => "M8.5 5v14M15.5 5v14",
            Self::Sound => "M4 9.5v5h3.5l4.5 4v-13l-4.5 4zM15.5 9a4 4 0 0 1 0 6M18 6.5a8 8 0 0 1 0 11",
            Self::NoSound => "M4 9.5v5h3.5l4.5 4v-13l-4.5 4zM15.5 9.5l5 5M20.5 9.5l-5 5",
            Self::Screen => "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
            Self::Keyboard => "M3 7h18v10H3zM6.5 10.4h.1M10.2 10.4h.1M13.8 10.4h.1M17.5 10.4h.1M8 13.8h8",
            Self::Down => "M12 5v14M6 13l6 6 6-6",
            Self::Up => "M12 19V5M6 11l6-6 6 6",
            Self::Plus => "M12 5v14M5 12h14",
            Self::Close => "M6 6l12 12M18 6L6 18",
            Self::More => "M5 11.9v.2M12 11.9v.2M19 11.9v.2",
            Self::Bell => "M5 17h14c-1.5-1.8-2-3-2-6.5a5 5 0 0 0-10 0c0 3.5-.5 4.7-2 6.5M10 20.5h4",
        }
    }
}

impl Symbol {
    /// The icon as HTML.
    pub(super) fn svg(self) -> String {
        let path = self.path();
        format!(
            "<svg class=\"icon\" viewBox=\"0 0 24 24\" aria-hidden=\"true\" focusable=\"false\"><path d=\"{path}\"></path></svg>"
        )
    }
}

/// Draws an icon.
#[component]
pub fn Icon(symbol: Symbol) -> impl IntoView {
    view! {
        <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
            <path d=symbol.path()></path>
        </svg>
    }
}
