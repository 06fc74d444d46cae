//! Whether a transcript scrolls by itself: to the end while lines come, to the line that is played while the recording plays.
//! It stops when the reader scrolls away, and goes on when the reader comes back or asks for it. Pure: the component sends
//! events, and `browser::player` scrolls.

/// What is kept in view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aim {
    #[default]
    Nothing,
    /// The end of the transcript, where new lines come.
    End,
    /// The line that is played, counted from the transcript's first.
    Line(u32),
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// There are so many lines now.
    Lines(usize),
    /// Something else is to be kept in view.
    Aim(Aim),
    /// A scroll that this asked for has begun.
    Begun,
    /// Something was scrolled. `sees`: whether what is kept in view is in view.
    Scrolled { sees: bool },
    /// The reader uses the wheel, a finger or a key to scroll.
    Touched,
    /// The reader has chosen where to play.
    Chosen,
    /// The reader asks to be brought back.
    Asked,
}

/// The state of one transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follow {
    aim: Aim,
    follows: bool,
    /// Whether a scroll that this asked for is under way, whose events say nothing about the reader.
    moving: bool,
    lines: Option<usize>,
    /// The number of lines when the reader was last at the end, or at first, when none of them was new.
    seen: usize,
}

impl Default for Follow {
    fn default() -> Self {
        Self { aim: Aim::Nothing, follows: true, moving: false, lines: None, seen: 0 }
    }
}

impl Follow {
    /// Takes in an event. Returns what to scroll to, if anything.
    pub fn on(&mut self, event: Event) -> Option<Aim> {
        let scroll = match event {
            // A page that has just been opened shows the first lines; it scrolls only when more lines come.
            Event::Lines(lines) => {
                let is_first = self.lines.replace(lines).is_none();
                if is_first {
                    self.seen = lines;
                }
                !is_first && self.follows && self.aim == Aim::End
            }
            Event::Aim(aim) => self.aim_at(aim),
            Event::Begun => {
                self.moving = true;
                false
            }
            Event::Scrolled { sees } => {
                if sees || !self.moving {
                    self.moving = false;
                    self.follows = sees || self.aim == Aim::Nothing;
                }
                false
            }
            Event::Touched => {
                self.moving = false;
                false
            }
            Event::Chosen => {
                // There the next line that is played brings the scrolling.
                self.follows |= self.aim != Aim::End;
                false
            }
            Event::Asked => {
                self.follows = true;
                true
            }
        };
        if self.follows && self.aim != Aim::Nothing {
            self.seen = self.lines.unwrap_or(0);
        }
        (scroll && self.aim != Aim::Nothing).then_some(self.aim)
    }

    fn aim_at(&mut self, aim: Aim) -> bool {
        let before = std::mem::replace(&mut self.aim, aim);
        match (before, aim) {
            _ if before == aim => false,
            (Aim::Line(_), Aim::Line(_)) => self.follows,
            // Whoever starts to play wants to read along.
            (_, Aim::Line(_)) => {
                self.follows = true;
                true
            }
            // Whoever pauses wants to read on there, and not to be taken to the newest line.
            (Aim::Line(_), Aim::End) => {
                self.follows = false;
                false
            }
            _ => {
                self.follows = true;
                false
            }
        }
    }

    /// What the reader has scrolled away from, and can be brought back to.
    #[must_use]
    pub fn left(&self) -> Aim {
        if self.follows { Aim::Nothing } else { self.aim }
    }

    /// How many lines have come since the reader was at the end.
    #[must_use]
    pub fn new_lines(&self) -> usize {
        self.lines.unwrap_or(0).saturating_sub(self.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AWAY: Event = Event::Scrolled { sees: false };
    const BACK: Event = Event::Scrolled { sees: true };

    /// The last answer to these events.
    fn after(follow: &mut Follow, events: &[Event]) -> Option<Aim> {
        events.iter().map(|event| follow.on(*event)).last().flatten()
    }

    #[test]
    fn new_lines_are_followed_until_the_reader_leaves_the_end() {
        let mut follow = Follow::default();
        assert_eq!(after(&mut follow, &[Event::Aim(Aim::End), Event::Lines(5)]), None, "a page shows its first lines");
        assert_eq!(follow.on(Event::Lines(6)), Some(Aim::End));
        assert_eq!(after(&mut follow, &[Event::Begun, BACK, Event::Touched, AWAY, Event::Lines(8)]), None);
        assert_eq!((follow.left(), follow.new_lines()), (Aim::End, 2));
        assert_eq!(follow.on(Event::Asked), Some(Aim::End));
        assert_eq!((follow.left(), follow.new_lines()), (Aim::Nothing, 0));
        // Who scrolls to the end by hand follows again, too.
        assert_eq!(after(&mut follow, &[Event::Begun, BACK, AWAY, BACK, Event::Lines(9)]), Some(Aim::End));
    }

    #[test]
    fn lines_that_were_there_at_first_are_not_new() {
        let mut follow = Follow::default();
        // A page finds out that its end isn't in view before it counts its lines.
        after(&mut follow, &[Event::Aim(Aim::End), AWAY, Event::Lines(29)]);
        assert_eq!((follow.left(), follow.new_lines()), (Aim::End, 0));
        follow.on(Event::Lines(31));
        assert_eq!((follow.left(), follow.new_lines()), (Aim::End, 2));
    }

    #[test]
    fn the_played_line_is_followed_until_the_reader_scrolls_away() {
        let mut follow = Follow::default();
        assert_eq!(after(&mut follow, &[Event::Lines(9), Event::Aim(Aim::Line(0))]), Some(Aim::Line(0)));
        assert_eq!(follow.on(Event::Aim(Aim::Line(1))), Some(Aim::Line(1)));
        // On the way there the line isn't in view yet.
        assert_eq!(after(&mut follow, &[Event::Begun, AWAY, AWAY, Event::Aim(Aim::Line(2))]), Some(Aim::Line(2)));
        // The reader interrupts it.
        assert_eq!(after(&mut follow, &[Event::Begun, AWAY, Event::Touched, AWAY, Event::Aim(Aim::Line(3))]), None);
        assert_eq!(follow.left(), Aim::Line(3));
        assert_eq!(follow.on(Event::Asked), Some(Aim::Line(3)));
        assert_eq!(after(&mut follow, &[BACK, Event::Aim(Aim::Line(4))]), Some(Aim::Line(4)));
        // Who scrolls away and then chooses where to play is taken along again.
        assert_eq!(after(&mut follow, &[AWAY, Event::Aim(Aim::Line(5))]), None);
        assert_eq!(after(&mut follow, &[Event::Chosen, Event::Aim(Aim::Line(7))]), Some(Aim::Line(7)));
    }

    #[test]
    fn playing_goes_before_new_lines_and_a_pause_stays_where_it_is() {
        let mut follow = Follow::default();
        after(&mut follow, &[Event::Aim(Aim::End), Event::Lines(9), Event::Aim(Aim::Line(2))]);
        assert_eq!(follow.on(Event::Lines(10)), None);
        assert_eq!(follow.on(Event::Aim(Aim::End)), None);
        assert_eq!(follow.left(), Aim::End);
        assert_eq!(follow.on(Event::Lines(11)), None);
        // A place was chosen, which isn't played yet.
        assert_eq!(after(&mut follow, &[Event::Chosen, Event::Lines(11)]), None);
        // Unless the end was in view all the while.
        assert_eq!(after(&mut follow, &[BACK, Event::Lines(12)]), Some(Aim::End));
    }

    #[test]
    fn nothing_is_scrolled_when_nothing_plays_or_comes() {
        let mut follow = Follow::default();
        let events = [Event::Lines(3), AWAY, Event::Lines(4), Event::Asked, AWAY];
        assert!(events.iter().all(|event| follow.on(*event).is_none()));
        assert_eq!(follow.left(), Aim::Nothing);
    }

    proptest! {
        /// A reader who has scrolled away by hand is left alone, whatever lines come, until asking or coming back.
        #[test]
        fn a_reader_who_has_left_is_not_moved(
            lines in proptest::collection::vec(0_usize..50, 0..20), at in 0_u32..9, playing: bool,
        ) {
            let mut follow = Follow::default();
            let aim = |n: u32| if playing { Aim::Line(n) } else { Aim::End };
            after(&mut follow, &[Event::Lines(1), Event::Aim(aim(at)), Event::Begun, Event::Touched, AWAY]);
            for (n, lines) in (0..).zip(lines) {
                prop_assert_eq!(follow.on(Event::Lines(lines)), None);
                prop_assert_eq!(follow.on(Event::Aim(aim(n))), None);
                prop_assert!(follow.left() != Aim::Nothing);
            }
        }
    }
}
