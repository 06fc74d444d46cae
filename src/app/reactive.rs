//! Effects and memos of one shape. Each closure given to Leptos' own makes another copy of their machinery, which a browser
//! has to load; here closures are boxed first. The pages and components use these.

use leptos::prelude::{Effect, Memo};

type Compute<T> = Box<dyn Fn(Option<&T>) -> T + Send + Sync>;

/// Runs `run` after hydration, and again whenever a signal changes that it read.
pub(crate) fn effect(run: impl FnMut() + 'static) {
    let run: Box<dyn FnMut()> = Box::new(run);
    Effect::new(run);
}

/// The same with what `run` returned the last time.
pub(crate) fn effect_after<T: 'static>(mut run: impl FnMut(Option<T>) -> T + 'static) {
    let mut before = None;
    effect(move || before = Some(run(before.take())));
}

/// A value computed of others, which tells those who read it only when it has changed.
pub(crate) fn memo<T>(compute: impl Fn(Option<&T>) -> T + Send + Sync + 'static) -> Memo<T>
where
    T: PartialEq + Send + Sync + 'static,
{
    let compute: Compute<T> = Box::new(compute);
    Memo::new(compute)
}
