//! Marks what is searched in the lines of a transcript, without changing the document: by the browser's custom highlights where it
//! has them, and by an attribute of the lines. Called from effects and event handlers.

use super::player;
use crate::model::find::matches;
use leptos::{html, prelude::*};
use std::cell::RefCell;
use wasm_bindgen::{JsCast, JsValue};

/// How many places are marked: more are of no use, and cost time.
const MAX_MARKS: usize = 2000;
/// The names of the highlights in the style sheet: all places, and the current one.
const ALL: &str = "found";
const CURRENT: &str = "found-now";
/// The attribute of a line with a place.
const ATTRIBUTE: &str = "data-found";

thread_local! {
    /// The places that are marked, each with its line and that line's number, from 0.
    static FOUND: RefCell<Vec<(u32, web_sys::Element, web_sys::Range)>> = const { RefCell::new(Vec::new()) };
}

/// Marks what is searched, and no longer what was. Returns how many places there are, 2000 at most.
pub fn mark(list: NodeRef<html::Div>, wanted: &str) -> usize {
    clear();
    let Some(list) = list.get_untracked().filter(|_| !wanted.trim().is_empty()) else { return 0 };
    let Ok(lines) = list.query_selector_all(".line p") else { return 0 };
    let wanted = lower(wanted);
    let mut found = Vec::new();
    let ranges = js_sys::Array::new();
    for n in 0..lines.length() {
        let Some(line) = lines.get(n).and_then(|line| line.dyn_into::<web_sys::Element>().ok()) else { continue };
        // Most lines have nothing, and this is quicker than to go through their nodes.
        if matches(&lower(&line.text_content().unwrap_or_default()), &wanted).is_empty() {
            continue;
        }
        let nodes = text_nodes(&line);
        let text: String = nodes.iter().filter_map(web_sys::Node::text_content).collect();
        for (from, to) in matches(&lower(&text), &wanted) {
            if let Some(range) = range(&nodes, from, to) {
                ranges.push(&range);
                let _ = line.set_attribute(ATTRIBUTE, "");
                found.push((n, line.clone(), range));
            }
        }
        if found.len() >= MAX_MARKS {
            break;
        }
    }
    highlight(ALL, &ranges);
    FOUND.with(|all| {
        *all.borrow_mut() = found;
        all.borrow().len()
    })
}

/// The number of the first place in this line or below; of the first of all if there is none.
pub fn first_from(line: u32) -> usize {
    FOUND.with(|found| found.borrow().iter().position(|(n, ..)| *n >= line).unwrap_or(0))
}

/// Marks the place with this number as the current one, and scrolls to it if so wanted.
pub fn make_current(number: usize, scroll: bool) {
    let place = FOUND.with(|found| found.borrow().get(number).cloned());
    let Some((_, line, range)) = place else { return };
    highlight(CURRENT, &js_sys::Array::of1(&range));
    if scroll {
        player::bring_into_view(line, web_sys::ScrollLogicalPosition::Nearest);
    }
}

/// Marks nothing any more.
pub fn clear() {
    let found = FOUND.with(RefCell::take);
    for (_, line, _) in found {
        let _ = line.remove_attribute(ATTRIBUTE);
    }
    for name in [ALL, CURRENT] {
        highlight(name, &js_sys::Array::new());
    }
}

/// A text in lower case, in which every place is where it was; or the text, if a letter becomes several.
fn lower(text: &str) -> String {
    let text = js_sys::JsString::from(text);
    let lower = text.to_lower_case();
    if lower.length() == text.length() { lower.into() } else { text.into() }
}

/// The texts of a line, without the name of the speaker.
fn text_nodes(line: &web_sys::Element) -> Vec<web_sys::Node> {
    fn collect(parent: &web_sys::Node, nodes: &mut Vec<web_sys::Node>) {
        let children = parent.child_nodes();
        for child in (0..children.length()).filter_map(|n| children.get(n)) {
            match child.dyn_ref::<web_sys::Element>() {
                Some(element) if element.class_list().contains("speaker") => {}
                Some(element) => collect(element, nodes),
                None if child.node_type() == web_sys::Node::TEXT_NODE => nodes.push(child),
                None => {}
            }
        }
    }
    let mut nodes = Vec::new();
    collect(line, &mut nodes);
    nodes
}

/// A range within these texts, by its start and end in UTF-16.
fn range(nodes: &[web_sys::Node], from: u32, to: u32) -> Option<web_sys::Range> {
    let range = document().create_range().ok()?;
    let mut at = 0;
    let mut started = false;
    for node in nodes {
        let length = node.text_content().map_or(0, |text| text.encode_utf16().count() as u32);
        if !started && from < at + length {
            range.set_start(node, from - at).ok()?;
            started = true;
        }
        if started && to <= at + length {
            range.set_end(node, to - at).ok()?;
            return Some(range);
        }
        at += length;
    }
    None
}

/// Sets the ranges of a highlight, if the browser has highlights.
fn highlight(name: &str, ranges: &js_sys::Array) -> Option<()> {
    let get = |object: &JsValue, name: &str| js_sys::Reflect::get(object, &JsValue::from_str(name)).ok();
    let registry = get(&get(&window(), "CSS")?, "highlights").filter(|registry| registry.is_object())?;
    let constructor: js_sys::Function = get(&window(), "Highlight")?.dyn_into().ok()?;
    let made = js_sys::Reflect::construct(&constructor, ranges).ok()?;
    let set: js_sys::Function = get(&registry, "set")?.dyn_into().ok()?;
    set.call2(&registry, &JsValue::from_str(name), &made).ok().map(drop)
}
