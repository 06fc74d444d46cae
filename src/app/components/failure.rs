//! Errors as people see them: a notice within a page, and what stands where a page couldn't be loaded. And what every page
//! is within while it loads.

use super::{Icon, Symbol};
use leptos::prelude::*;

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
    errors: ArcRwSignal<Errors>,
    /// Tries again.
    on_retry: Callback<()>,
) -> impl IntoView {
    // Error values don't survive the way from the server to the browser, but their words do.
    let words = move || errors.with(|e| e.iter().next().map(|(_, e)| e.to_string()).unwrap_or_default());
    view! {
        <section class="empty" role="alert">
            <h2>"This couldn't be loaded"</h2>
            <p data-testid="error-message">{words}</p>
            // A link to the page itself works without JavaScript.
            <p><a class="button" href="" rel="external" data-testid="retry" on:click=move |event| {
                event.prevent_default();
                on_retry.run(());
            }><Icon symbol=Symbol::Retry/>"Try again"</a></p>
        </section>
    }
}

/// What a page loads: a skeleton meanwhile, the error with a way to try again if it failed. The children give errors up
/// to it.
#[component]
pub fn Loading(
    /// Stands there meanwhile.
    #[prop(into)]
    skeleton: ViewFnOnce,
    /// A heading for the error, where the page has none of its own.
    #[prop(optional)]
    heading: Option<&'static str>,
    /// Tries again.
    on_retry: Callback<()>,
    children: Children,
) -> impl IntoView {
    view! {
        <ErrorBoundary fallback=move |errors| view! {
            {heading.map(|heading| view! { <h1 class="hidden">{heading}</h1> })}
            <LoadError errors on_retry/>
        }>
            <Transition fallback=skeleton>{children()}</Transition>
        </ErrorBoundary>
    }
}
