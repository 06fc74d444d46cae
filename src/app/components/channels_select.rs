//! The choice whether the channels of a recording are mixed or transcribed apart.

use crate::model::Channels;
use leptos::{html, prelude::*};

/// The select element.
#[component]
pub fn ChannelsSelect(
    /// What is chosen at first.
    default: Channels,
    /// Set to the element.
    select: NodeRef<html::Select>,
) -> impl IntoView {
    let options = Channels::ALL.map(|choice| {
        view! { <option value=choice.as_str() selected=choice == default>{choice.label()}</option> }
    });
    view! {
        <select class="input" id="channels" name="channels" data-testid="channels-select" node_ref=select>
            {options.into_iter().collect_view()}
        </select>
    }
}
