//! Effects, memos and lists of one shape. Each closure or view given to Leptos' own makes another copy of
//! their machinery, which a browser has to load; here they are boxed first. The pages and components use these.

use leptos::prelude::*;
use std::sync::Arc;

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

/// What tells the items of a list apart.
pub(crate) type Key = u128;

/// A list: items are kept by key, so that those that stay aren't made anew.
pub(crate) fn each(
    keys: impl Fn() -> Vec<Key> + Send + Sync + 'static,
    item: impl Fn(Key) -> AnyView + Send + Sync + 'static,
) -> AnyView {
    let keys: Box<dyn Fn() -> Vec<Key> + Send + Sync> = Box::new(keys);
    let item: Arc<dyn Fn(Key) -> AnyView + Send + Sync> = Arc::new(item);
    view! { <For each=keys key=|key| *key children=move |key| item(key)/> }.into_any()
}
