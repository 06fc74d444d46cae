//! Errors as people see them: a notice within a page, and what stands where a page couldn't be loaded. And what every page
//! is within while it loads.

use super::{Icon, Symbol};
use crate::{
    app::{
        clock::Clock,
        loading::{Answer, Page},
        reactive::{effect_after, memo},
    },
    model::ApiError,
};
use leptos::{ev, prelude::*};
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

/// Stands where something couldn't be loaded, with a way to try again.
#[component]
pub fn LoadError(
    error: ApiError,
    /// A heading for the page, where it has none of its own.
    heading: Option<&'static str>,
    /// Tries again.
    on_retry: Callback<()>,
) -> impl IntoView {
    let (clock, keeps_trying) = (Clock::expect(), error.may_pass());
    let says_so =
        move || (keeps_trying && clock.is_awake()).then(|| view! { <p>"This page keeps trying by itself."</p> });
    view! {
        {heading.map(|heading| view! { <h1 class="hidden">{heading}</h1> }.into_any())}
        <section class="empty" role="alert">
            <h2>"This couldn't be loaded"</h2>
            <p data-testid="error-message">{error.message}</p>
            {says_so}
            // A link to the page itself works without JavaScript.
            <p><a class="button" href="" rel="external" data-testid="retry" on:click=move |event| {
                event.prevent_default();
                on_retry.run(());
            }><Icon symbol=Symbol::Retry/>"Try again"</a></p>
        </section>
    }
}

/// Makes a view of an answer, or leaves the error to [`Loading`].
pub type Show = Box<dyn Fn(Answer) -> Result<AnyView, ApiError> + Send + Sync>;

/// What a page loads: a skeleton meanwhile, the error with a way to try again if it failed.
#[component]
pub fn Loading(
    answer: Page,
    /// Stands there meanwhile.
    #[prop(into)]
    skeleton: ViewFnOnce,
    /// A heading for the error, where the page has none of its own.
    #[prop(optional)]
    heading: Option<&'static str>,
    show: Show,
    /// What follows the view, is made once, and reads the answer by itself.
    #[prop(optional)]
    children: Option<Children>,
) -> impl IntoView {
    let on_retry = Callback::new(move |()| answer.refetch());
    keep_trying(answer);
    let settled = async move {
        // Nothing that reads the answer is made before it is there: on the server, a memo made earlier may be read before
        // it has heard of it.
        drop(answer.await);
        // The same error again changes nothing, or a screen reader would say it each time.
        let change = memo(move |before: Option<&(u32, Option<ApiError>)>| {
            let error = answer.with(|answer| answer.as_ref()?.as_ref().err().cloned());
            match before {
                Some(before) if error.is_some() && before.1 == error => before.clone(),
                _ => (before.map_or(0, |before| before.0 + 1), error),
            }
        });
        let shown = move || {
            let answer = change.with(|_| untrack(|| answer.get()))?;
            let view = show(answer);
            Some(view.unwrap_or_else(|error| view! { <LoadError error heading on_retry/> }.into_any()))
        };
        view! { {shown} {children.map(|children| children())} }.into_any()
    };
    view! { <Transition fallback=skeleton>{Suspend::new(settled)}</Transition> }
}

/// Asks again for what couldn't be had, if it may be had later: after a while, and when the network is back.
fn keep_trying(answer: Page) {
    effect_after(move |failures: Option<u32>| {
        if !answer.with(|answer| matches!(answer, Some(Err(error)) if error.may_pass())) {
            return 0;
        }
        let failures = failures.unwrap_or_default() + 1;
        let wait = (RETRY * failures).min(RETRY_LATEST);
        let timer = set_timeout_with_handle(move || answer.refetch(), wait);
        let network = window_event_listener(ev::online, move |_| answer.refetch());
        on_cleanup(move || {
            network.remove();
            if let Ok(timer) = timer {
                timer.clear();
            }
        });
        failures
    });
}
