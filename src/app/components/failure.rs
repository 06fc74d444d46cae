//! Errors as people see them: a notice within a page, and what stands where a page couldn't be loaded, which then tries
//! again by itself.

use super::{Icon, PageSkeleton, Symbol};
use crate::{app::clock::Clock, model::ApiError};
use leptos::{error::Errors, ev, prelude::*};
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;

/// What couldn't be loaded is asked for again after as long as polling waits, and so much later with each failure.
const RETRY: Duration = Duration::from_secs(3);
/// But no later than this, so that a server that is back is noticed soon.
const RETRY_LATEST: Duration = Duration::from_secs(30);

/// A notice that something went wrong.
#[component]
pub fn Alert(#[prop(into)] message: String) -> impl IntoView {
    view! {
        <div class="alert" role="alert">
            <Icon symbol=Symbol::Failed/>
            <p data-testid="error-message">{message}</p>
        </div>
    }
}

/// Stands where something couldn't be loaded, with a way to try again: the fallback of a page's `ErrorBoundary`.
#[component]
pub fn LoadError(
    /// What the boundary caught.
    errors: ArcRwSignal<Errors>,
    /// A heading for the page, where it has none of its own.
    #[prop(optional_no_strip)]
    heading: Option<&'static str>,
    /// Tries again.
    #[prop(into)]
    on_retry: Callback<()>,
) -> impl IntoView {
    // The same error again changes nothing, or a screen reader would say it each time.
    let error = Memo::new(move |before: Option<&Option<ApiError>>| {
        let find = |errors: &Errors| errors.iter().find_map(|(_, e)| e.downcast_ref::<ApiError>().cloned());
        errors.with(find).or_else(|| before.cloned().flatten())
    });
    let clock = Clock::expect();
    let keeps_trying = move || clock.is_hydrated() && error.with(|e| e.as_ref().is_some_and(ApiError::is_transient));
    view! {
        {heading.map(|heading| view! { <h1 class="hidden">{heading}</h1> })}
        <section class="empty" role="alert">
            <h2>"This couldn't be loaded"</h2>
            <p data-testid="error-message">{move || error.get().map(|error| error.message)}</p>
            <Show when=keeps_trying><p>"This page keeps trying by itself."</p></Show>
            // A link to the page itself works without JavaScript.
            <p><a class="button" href="" rel="external" data-testid="retry" on:click=move |event| {
                event.prevent_default();
                on_retry.run(());
            }><Icon symbol=Symbol::Retry/>"Try again"</a></p>
        </section>
    }
}

/// What a page loads, which its children await: a skeleton until it is there, and the error if it can't be had.
#[component]
pub fn LoadBoundary(
    /// A heading for the error, where the page has none of its own.
    #[prop(optional)]
    heading: Option<&'static str>,
    /// Tries again.
    #[prop(into)]
    on_retry: Callback<()>,
    children: Children,
) -> impl IntoView {
    view! {
        <Transition fallback=PageSkeleton>
            <ErrorBoundary fallback=move |errors| view! { <LoadError errors heading on_retry/> }>{children()}</ErrorBoundary>
        </Transition>
    }
}

/// Asks again for what couldn't be had, if it may be had later: after a while, and when the network is back.
pub fn keep_trying<T>(loaded: Resource<Result<T, ApiError>>)
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    Effect::new(move |failures: Option<u32>| {
        if !loaded.with(|answer| matches!(answer, Some(Err(error)) if error.is_transient())) {
            return 0;
        }
        let failures = failures.unwrap_or_default() + 1;
        let wait = (RETRY * failures).min(RETRY_LATEST);
        let timer = set_timeout_with_handle(move || loaded.refetch(), wait);
        let network = window_event_listener(ev::online, move |_| loaded.refetch());
        on_cleanup(move || {
            network.remove();
            if let Ok(timer) = timer {
                timer.clear();
            }
        });
        failures
    });
}
