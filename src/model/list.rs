//! Which sessions a list shows, and in which order: read from the parameters of an address and written to them, for the JSON API
//! and for the page alike. Pure.

use super::{State, Timestamp, text};
use std::{fmt, str::FromStr};

/// A group of states that a list can be limited to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Queued or processing.
    Active,
    Completed,
    Failed,
    Cancelled,
}

impl Condition {
    /// Every condition.
    pub const ALL: [Self; 4] = [Self::Active, Self::Completed, Self::Failed, Self::Cancelled];

    /// The name in an address.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The name shown to people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Active => "Running and waiting",
            Self::Completed => "Done",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
        }
    }

    /// The states that belong to it.
    #[must_use]
    pub fn states(self) -> &'static [State] {
        match self {
            Self::Active => &[State::Queued, State::Processing],
            Self::Completed => &[State::Completed],
            Self::Failed => &[State::Failed],
            Self::Cancelled => &[State::Cancelled],
        }
    }
}

/// The order of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    Newest,
    Oldest,
    /// By the length of the recording. Those whose length isn't known come last.
    Longest,
    /// By the title, whatever its case.
    Title,
}

impl Order {
    /// Every order.
    pub const ALL: [Self; 4] = [Self::Newest, Self::Oldest, Self::Longest, Self::Title];

    /// The name in an address.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Oldest => "oldest",
            Self::Longest => "longest",
            Self::Title => "title",
        }
    }

    /// The name shown to people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Newest => "Newest first",
            Self::Oldest => "Oldest first",
            Self::Longest => "Longest first",
            Self::Title => "Title",
        }
    }
}

impl FromStr for Order {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|order| order.as_str() == name).ok_or(())
    }
}

/// Which sessions a list shows. The default shows all, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// What the title must contain; all titles if empty.
    pub query: String,
    pub condition: Option<Condition>,
    /// A language tag. Its region doesn't count.
    pub language: Option<String>,
    /// The first and the last day or moment at which a session may have been created, as it stands in the address: a day in UTC
    /// (`2026-11-23`) or a time as in RFC 3339. A page writes the start and the end of a person's own day with its offset.
    pub since: Option<String>,
    pub until: Option<String>,
    pub order: Order,
}

/// A parameter with a value that it can't have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidFilter {
    pub name: &'static str,
    pub value: String,
}

impl fmt::Display for InvalidFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value } = self;
        let allowed = match *name {
            "state" => "active, completed, failed or cancelled",
            "order" => "newest, oldest, longest or title",
            "language" => "a language tag, such as en or de",
            _ => "a day, such as 2026-11-23, or a time as in RFC 3339",
        };
        write!(f, "'{name}' can't be '{value}'; it must be {allowed}.")
    }
}

/// The first moment of a day in UTC, or the moment that a text names.
fn first_moment(text: &str) -> Option<Timestamp> {
    moment(text, "T00:00:00Z")
}

/// The last moment of a day in UTC, or the moment that a text names.
fn last_moment(text: &str) -> Option<Timestamp> {
    moment(text, "T23:59:59.999Z")
}

fn moment(text: &str, time: &str) -> Option<Timestamp> {
    if text.len() == "2026-11-23".len() { format!("{text}{time}").parse().ok() } else { text.parse().ok() }
}

/// Whether a text has the form of a language tag.
fn is_tag(text: &str) -> bool {
    (2..=35).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl Filter {
    /// The parameters.
    pub const NAMES: [&'static str; 6] = ["q", "state", "language", "since", "until", "order"];

    /// Reads the parameters that `value` returns by name. What can't be read is left out, and the first such parameter is
    /// returned as well.
    #[must_use]
    pub fn read(value: impl Fn(&'static str) -> Option<String>) -> (Self, Option<InvalidFilter>) {
        let (mut filter, mut invalid) = (Self::default(), None);
        for name in Self::NAMES {
            // PostgreSQL's texts can't have NUL.
            let value = value(name).map(|value| value.replace('\0', "").trim().to_owned());
            let Some(value) = value.filter(|value| !value.is_empty()) else {
                continue;
            };
            if let Err(value) = filter.set(name, value) {
                invalid = invalid.or(Some(InvalidFilter { name, value }));
            }
        }
        (filter, invalid)
    }

    /// Reads a query, such as [`Filter::to_query`] writes. What can't be read is left out.
    #[must_use]
    pub fn from_query(query: &str) -> Self {
        let pairs: Vec<(&str, &str)> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let value = |name| pairs.iter().find(|(given, _)| *given == name).map(|(_, value)| text::percent_decode(value));
        Self::read(value).0
    }

    /// Returns the value if the parameter can't have it.
    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        match name {
            "state" => match Condition::ALL.into_iter().find(|condition| condition.as_str() == value) {
                Some(condition) => self.condition = Some(condition),
                None => return Err(value),
            },
            "language" if is_tag(&value) => self.language = Some(value),
            "since" if first_moment(&value).is_some() => self.since = Some(value),
            "until" if last_moment(&value).is_some() => self.until = Some(value),
            "order" => self.order = value.parse().map_err(|()| value)?,
            "q" => self.query = value,
            _ => return Err(value),
        }
        Ok(())
    }

    /// The value of a parameter; empty if it is the default.
    #[must_use]
    pub fn value(&self, name: &str) -> &str {
        match name {
            "q" => &self.query,
            "state" => self.condition.map_or("", Condition::as_str),
            "language" => self.language.as_deref().unwrap_or_default(),
            "since" => self.since.as_deref().unwrap_or_default(),
            "until" => self.until.as_deref().unwrap_or_default(),
            "order" if self.order != Order::default() => self.order.as_str(),
            _ => "",
        }
    }

    /// The same with another value of one parameter.
    #[must_use]
    pub fn with(&self, changed: &str, new: &str) -> Self {
        Self::read(|name| Some(if name == changed { new } else { self.value(name) }.to_owned())).0
    }

    /// The parameters as a query without its question mark; empty for the default.
    #[must_use]
    pub fn to_query(&self) -> String {
        let given = Self::NAMES.into_iter().filter(|name| !self.value(name).is_empty());
        let parts = given.map(|name| format!("{name}={}", text::percent_encode(self.value(name))));
        parts.collect::<Vec<_>>().join("&")
    }

    /// How many conditions it has besides what is searched.
    #[must_use]
    pub fn conditions(&self) -> usize {
        let names = ["state", "language", "since", "until"];
        names.into_iter().filter(|name| !self.value(name).is_empty()).count()
    }

    /// The first moment at which a session may have been created.
    #[must_use]
    pub fn created_after(&self) -> Option<Timestamp> {
        self.since.as_deref().and_then(first_moment)
    }

    /// The last such moment.
    #[must_use]
    pub fn created_before(&self) -> Option<Timestamp> {
        self.until.as_deref().and_then(last_moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &[(&str, &str)]) -> (Filter, Option<InvalidFilter>) {
        Filter::read(|name| query.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn a_filter_is_read_from_what_it_wrote() {
        let given = [
            ("q", "a b&ü"),
            ("state", "active"),
            ("language", "pt-BR"),
            ("since", "2026-11-23"),
            ("until", "2026-11-24T23:59:59.999+02:00"),
            ("order", "title"),
        ];
        let (filter, invalid) = read(&given);
        assert_eq!(invalid, None);
        assert_eq!((filter.condition, filter.order, filter.conditions()), (Some(Condition::Active), Order::Title, 4));
        assert_eq!(
            filter.to_query(),
            "q=a%20b%26%C3%BC&state=active&language=pt-BR&since=2026-11-23\
             &until=2026-11-24T23%3A59%3A59.999%2B02%3A00&order=title"
        );
        assert_eq!(read(&Filter::NAMES.map(|name| (name, filter.value(name)))).0, filter);
        assert_eq!(Filter::from_query(&filter.to_query()), filter);
        assert_eq!(
            Filter::from_query("q=a+b&&state&order=x&q=c"),
            Filter { query: "a b".to_owned(), ..Filter::default() }
        );
        assert_eq!(
            Filter::from_query("q=%00+a%00b%00&language=%00"),
            Filter { query: "ab".to_owned(), ..Filter::default() }
        );
        assert_eq!(filter.with("state", "").condition, None);
        assert_eq!(filter.with("order", "newest").value("order"), "");
        assert_eq!(Filter::default().to_query(), "");
        assert_eq!(read(&[("q", "  "), ("order", "newest"), ("state", "")]), (Filter::default(), None));
    }

    #[test]
    fn days_begin_and_end_in_utc_unless_their_offset_is_given() {
        let moments = |since, until| {
            let (filter, _) = read(&[("since", since), ("until", until)]);
            [filter.created_after(), filter.created_before()].map(|at| at.map(|at| at.to_string()).unwrap_or_default())
        };
        assert_eq!(moments("2026-11-23", "2026-11-23"), ["2026-11-23T00:00:00.000Z", "2026-11-23T23:59:59.999Z"]);
        assert_eq!(
            moments("2026-11-23T00:00:00+10:00", "2026-11-23T23:59:59.999+10:00"),
            ["2026-11-22T14:00:00.000Z", "2026-11-23T13:59:59.999Z"]
        );
    }

    #[test]
    fn what_cannot_be_read_is_named_and_left_out() {
        for (name, value) in [
            ("state", "done"),
            ("order", "Newest"),
            ("language", "e"),
            ("language", "en; --"),
            ("since", "2026-13-01"),
            ("until", "tomorrow"),
            ("since", "ééééé"),
        ] {
            let (filter, invalid) = read(&[(name, value), ("q", "kept")]);
            assert_eq!(filter, Filter { query: "kept".to_owned(), ..Filter::default() }, "{name}");
            let invalid = invalid.expect("it is named").to_string();
            assert!(invalid.starts_with(&format!("'{name}' can't be '{value}'; it must be ")), "{invalid}");
        }
        for condition in Condition::ALL {
            let invalid = InvalidFilter { name: "state", value: String::new() }.to_string();
            assert!(invalid.contains(condition.as_str()));
        }
        for order in Order::ALL {
            assert!(InvalidFilter { name: "order", value: String::new() }.to_string().contains(order.as_str()));
        }
        let mut states: Vec<State> = Condition::ALL.into_iter().flat_map(Condition::states).copied().collect();
        states.sort_by_key(|state| state.as_str());
        let mut all = State::ALL.to_vec();
        all.sort_by_key(|state| state.as_str());
        assert_eq!(states, all, "every state belongs to one condition");
    }
}
