//! The names that statements are written with. SQL is put together before the program runs, so they are macros; a test
//! holds them against the model, which they must agree with.

/// The name of a state, or of several as a list.
macro_rules! state {
    (queued) => {
        "'queued'"
    };
    (processing) => {
        "'processing'"
    };
    (completed) => {
        "'completed'"
    };
    (failed) => {
        "'failed'"
    };
    (cancelled) => {
        "'cancelled'"
    };
    // Those that haven't ended.
    (active) => {
        concat!("(", state!(queued), ", ", state!(processing), ")")
    };
    // Those that can be tried again.
    (stopped) => {
        concat!("(", state!(failed), ", ", state!(cancelled), ")")
    };
}

/// The name of an engine that statements treat in another way: that of workers outside Hark, which have no queue.
macro_rules! engine {
    (external) => {
        "'external'"
    };
}

#[cfg(test)]
mod tests {
    use crate::model::{EngineId, State};

    #[test]
    fn names_are_those_of_the_model() {
        let quoted = |name: &str| format!("'{name}'");
        let names = [state!(queued), state!(processing), state!(completed), state!(failed), state!(cancelled)];
        assert_eq!(names.map(str::to_owned), State::ALL.map(|state| quoted(state.as_str())));
        assert_eq!(engine!(external), quoted(EngineId::External.as_str()));
        let list = |which: fn(&State) -> bool| {
            let names: Vec<String> = State::ALL.into_iter().filter(which).map(|state| quoted(state.as_str())).collect();
            format!("({})", names.join(", "))
        };
        assert_eq!(state!(active), list(|state| !state.is_terminal()));
        assert_eq!(state!(stopped), list(|state| state.is_terminal() && *state != State::Completed));
    }
}
