//! The names of states and engines in SQL statements. Statements are put together at compile time, so the names are
//! macros; a test compares them with the model.

/// The name of a state, or a list of several.
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
    // The states that aren't terminal.
    (active) => {
        concat!("(", state!(queued), ", ", state!(processing), ")")
    };
    // The terminal states.
    (ended) => {
        concat!("(", state!(completed), ", ", state!(failed), ", ", state!(cancelled), ")")
    };
    // The states from which a session can be retried.
    (stopped) => {
        concat!("(", state!(failed), ", ", state!(cancelled), ")")
    };
}

/// The engine that statements treat differently: `external`, the workers outside Hark, whose sessions have no queue.
macro_rules! engine {
    (external) => {
        "'external'"
    };
}

#[cfg(test)]
mod tests {
    use crate::model::{EngineId, State};

    #[test]
    fn state_and_engine_names_match_the_model() {
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
