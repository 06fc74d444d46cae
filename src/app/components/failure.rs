//! Errors as people see them: a notice within a page, and what stands where a page couldn't be loaded. And what every page
//! is within while it loads.

use super::{Icon, Symbol};
use crate::{
    app::loading::{Answer, Page},
    model::ApiError,
};
use leptos::prelude::*;
use std::sync::Arc;

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
    view! {
        {heading.map(|heading| view! { <h1 class="hidden">{heading}</h1> }.into_any())}
        <section class="empty" role="alert">
            <h2>"This couldn't be loaded"</h2>
            <p data-testid="error-message">{error.message}</p>
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
    let show: Arc<dyn Fn(Answer) -> Result<AnyView, ApiError> + Send + Sync> = show.into();
    let shown = move || {
        let show = Arc::clone(&show);
        Suspend::new(async move {
            show(answer.await).unwrap_or_else(|error| view! { <LoadError error heading on_retry/> }.into_any())
        })
    };
    view! {
        <Transition fallback=skeleton>
            {shown}
            // Not before the answer is there: on the server, a memo made earlier may be read before it has heard of it.
            {children.map(|children| Suspend::new(async move {
                drop(answer.await);
                children()
            }))}
        </Transition>
    }
}
