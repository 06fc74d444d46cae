//! Errors as people see them: an alert within a page, and the view that replaces a page that couldn't be loaded, which then
//! retries by itself.

use super::{Icon, PageSkeleton, Symbol};
use crate::{
    app::{actions::Actions, clock::Clock, detours::live_text},
    model::ApiError,
};
use leptos::{error::Errors, ev, prelude::*};
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;

/// The wait before loading is retried, which grows by as much with each failure. The same as the poll interval.
const RETRY_INTERVAL: Duration = Duration::from_secs(3);
/// The longest wait, so that the page notices soon when the server is back.
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// An alert with an error message.
#[component]
pub fn Alert(#[prop(into)] message: String) -> impl IntoView {
    view! {
        <div class="alert" role="alert">
            <Icon symbol=Symbol::Failed/>
            <p data-testid="error-message" inner_html=live_text(message)></p>
        </div>
    }
}

/// An alert with the error of a failed action, until that is over or dismissed.
#[component]
pub fn ActionAlert(actions: Actions) -> impl IntoView {
    let hydrated = move || Clock::expect().is_hydrated();
    move || {
        actions.error().map(|message| {
            view! {
                <div class="alert" role="alert" data-testid="action-error">
                    <Icon symbol=Symbol::Failed/>
                    <p data-testid="error-message" inner_html=live_text(message)></p>
                    // Without scripts the next page has no alert any more.
                    <button class="button quiet" type="button" data-testid="dismiss" hidden=move || !hydrated() on:click=move |_| actions.dismiss()>
                        "Dismiss"
                    </button>
                </div>
            }
        })
    }
}

/// Shown if loading failed, with a button to try again: the fallback of a page's `ErrorBoundary`.
#[component]
pub fn LoadError(
    /// The errors that the boundary caught.
    errors: ArcRwSignal<Errors>,
    /// The page's heading, if it has no other.
    #[prop(optional_no_strip)]
    heading: Option<&'static str>,
    /// Called to try again.
    #[prop(into)]
    on_retry: Callback<()>,
) -> impl IntoView {
    // The same error again must not change the view, because a screen reader would announce it each time.
    let error = Memo::new(move |before: Option<&Option<ApiError>>| {
        let find = |errors: &Errors| errors.iter().find_map(|(_, e)| e.downcast_ref::<ApiError>().cloned());
        errors.with(find).or_else(|| before.cloned().flatten())
    });
    let clock = Clock::expect();
    let retries = move || clock.is_hydrated() && error.with(|e| e.as_ref().is_some_and(ApiError::is_transient));
    view! {
        {heading.map(|heading| view! { <h1 class="hidden">{heading}</h1> })}
        <section class="empty" role="alert">
            <h2>"This couldn't be loaded"</h2>
            <p
                data-testid="error-message"
                inner_html=move || live_text(error.get().map(|error| error.message).unwrap_or_default())
            ></p>
            <Show when=retries><p>"This page keeps trying by itself."</p></Show>
            // A link, because it works without JavaScript.
            <p><a class="button" href="" rel="external" data-testid="retry" on:click=move |event| {
                event.prevent_default();
                on_retry.run(());
            }><Icon symbol=Symbol::Retry/>"Try again"</a></p>
        </section>
    }
}

/// Surrounds what a page loads: shows a skeleton until the children's data is loaded, and the error if loading failed.
#[component]
pub fn LoadBoundary(
    /// The heading of the error view, if the page has no other.
    #[prop(optional)]
    heading: Option<&'static str>,
    /// Called to try again.
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

/// Loads a resource again after a transient error: after a wait, and when the network is back.
pub fn retry_on_failure<T>(loaded: Resource<Result<T, ApiError>>)
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    Effect::new(move |failures: Option<u32>| {
        if !loaded.with(|answer| matches!(answer, Some(Err(error)) if error.is_transient())) {
            return 0;
        }
        let failures = failures.unwrap_or_default() + 1;
        let wait = (RETRY_INTERVAL * failures).min(MAX_RETRY_INTERVAL);
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
