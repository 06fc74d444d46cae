//! Uploads by XMLHttpRequest, which reports how much was sent; fetch doesn't. The files and requests can't leave the thread,
//! so they are kept here under integer keys. `app/uploads.rs` decides which upload is sent when. Files that were chosen or dropped
//! are collected here until they are sent, and not in the form's input, which forgets them when others are chosen.

use crate::{
    feed::uploads::{Event, Picked, UploadOptions},
    model::{ErrorBody, Session},
};
use leptos::{ev, html, prelude::*};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
};
use wasm_bindgen::{JsCast, closure::Closure};
use web_sys::{File, FileList, FormData, ProgressEvent, XmlHttpRequest};

const URL: &str = "/api/v1/sessions";

thread_local! {
    /// The files that were chosen and aren't sent yet.
    static CHOSEN: RefCell<Vec<(u32, File)>> = RefCell::default();
    static FILES: RefCell<HashMap<u32, File>> = RefCell::default();
    static REQUESTS: RefCell<HashMap<u32, Request>> = RefCell::default();
    /// What dragged files have entered last, while they are over the window.
    static ENTERED: RefCell<Option<web_sys::EventTarget>> = const { RefCell::new(None) };
    static NEXT_KEY: Cell<u32> = const { Cell::new(0) };
}

/// A request under way, with its listeners, which must live as long as it.
struct Request {
    xhr: XmlHttpRequest,
    _on_progress: Closure<dyn FnMut(ProgressEvent)>,
    _on_load: Closure<dyn FnMut()>,
    _on_error: Closure<dyn FnMut()>,
}

fn files(list: Option<FileList>) -> Vec<File> {
    let list = list.as_ref();
    (0..list.map_or(0, FileList::length)).filter_map(|i| list.and_then(|l| l.get(i))).collect()
}

fn picked(key: u32, file: &File) -> Picked {
    Picked { key, name: file.name(), bytes: file.size() as u64 }
}

/// Whether two files are the same one, chosen twice. A browser tells nothing of where it is.
fn is_same(a: &File, b: &File) -> bool {
    a.name() == b.name() && a.size() == b.size() && a.last_modified() == b.last_modified()
}

/// Adds these files to those that are chosen already. Returns all.
fn add(list: Option<FileList>) -> Vec<Picked> {
    CHOSEN.with_borrow_mut(|chosen| {
        for file in files(list) {
            if !chosen.iter().any(|(_, known)| is_same(known, &file)) {
                chosen.push((NEXT_KEY.replace(NEXT_KEY.get() + 1), file));
            }
        }
        chosen.iter().map(|(key, file)| picked(*key, file)).collect()
    })
}

/// Adds the files that an input holds. Returns all that are chosen now.
#[must_use]
pub fn add_chosen(input: NodeRef<html::Input>) -> Vec<Picked> {
    add(input.get_untracked().and_then(|input| input.files()))
}

/// Adds the files that were dropped. Returns all that are chosen now.
#[must_use]
pub fn add_dropped(event: &ev::DragEvent) -> Vec<Picked> {
    add(event.data_transfer().and_then(|data| data.files()))
}

/// Whether files are dragged, and not a text or a link.
#[must_use]
pub fn brings_files(event: &ev::DragEvent) -> bool {
    event.data_transfer().is_some_and(|data| data.types().includes(&"Files".into(), 0))
}

/// Whether files are over the window after this event of a drag. What they enter is told before what they leave, so only leaving
/// what was entered last is leaving the window.
#[must_use]
pub fn over_window(event: &ev::DragEvent) -> bool {
    ENTERED.with_borrow_mut(|entered| {
        match event.type_().as_str() {
            "dragenter" if brings_files(event) => *entered = event.target(),
            "dragleave" if *entered == event.target() => *entered = None,
            "drop" => *entered = None,
            _ => {}
        }
        entered.is_some()
    })
}

/// Notes that no files are over the window any more, although no event has said so.
pub fn end_drag() {
    ENTERED.with_borrow_mut(|entered| *entered = None);
}

/// Removes a chosen file. Returns those that are left.
#[must_use]
pub fn unchoose(key: u32) -> Vec<Picked> {
    CHOSEN.with_borrow_mut(|chosen| chosen.retain(|(known, _)| *known != key));
    add(None)
}

/// Puts the chosen files into an input, and no others, so that the form says what it would send.
pub fn show_chosen(input: NodeRef<html::Input>) {
    let Some(input) = input.get_untracked() else { return };
    let Ok(data) = web_sys::DataTransfer::new() else { return };
    let items = js_sys::Reflect::get(&data, &"items".into()).unwrap_or_default();
    let add = js_sys::Reflect::get(&items, &"add".into()).ok().and_then(|add| add.dyn_into::<js_sys::Function>().ok());
    let Some(add) = add else { return };
    CHOSEN.with_borrow(|chosen| {
        for (_, file) in chosen {
            // This fails only for what isn't a file.
            let _ = add.call1(&items, file);
        }
    });
    input.set_files(data.files().as_ref());
}

/// Takes the chosen files, to be sent under their keys.
#[must_use]
pub fn take_chosen() -> Vec<Picked> {
    CHOSEN
        .take()
        .into_iter()
        .map(|(key, file)| {
            let picked = picked(key, &file);
            FILES.with_borrow_mut(|files| files.insert(key, file));
            picked
        })
        .collect()
}

/// Seconds of a monotonic clock.
#[must_use]
pub fn now() -> f64 {
    window().performance().map_or(0.0, |p| p.now()) / 1000.0
}

/// Sends a kept file, and reports its progress and outcome.
pub fn send(key: u32, options: &UploadOptions, on_event: impl Fn(Event) + 'static) {
    let on_event = Rc::new(on_event);
    let started = FILES
        .with_borrow(|files| files.get(&key).cloned())
        .and_then(|file| start_request(key, &file, options, Rc::clone(&on_event) as Rc<dyn Fn(Event)>));
    match started {
        Some(request) => REQUESTS.with_borrow_mut(|requests| drop(requests.insert(key, request))),
        None => on_event(Event::Failed("The browser can't read the file. Choose it again.".to_owned())),
    }
}

fn start_request(key: u32, file: &File, options: &UploadOptions, on_event: Rc<dyn Fn(Event)>) -> Option<Request> {
    let form = FormData::new().ok()?;
    // The options come before the file, so that the server can refuse them before it receives the file.
    let options = [
        ("title", &options.title),
        ("language", &options.language),
        ("engine", &options.engine),
        ("vocabulary", &options.vocabulary),
        ("channels", &options.channels),
        ("track", &options.track),
    ];
    for (name, value) in options {
        if !value.is_empty() {
            form.append_with_str(name, value).ok()?;
        }
    }
    form.append_with_blob_and_filename("file", file, &file.name()).ok()?;
    let xhr = XmlHttpRequest::new().ok()?;
    xhr.open("POST", URL).ok()?;
    xhr.set_request_header("Accept", "application/json").ok()?;

    let on_progress = Closure::<dyn FnMut(ProgressEvent)>::new({
        let on_event = Rc::clone(&on_event);
        move |event: ProgressEvent| on_event(Event::Sent { bytes: event.loaded() as u64, at: now() })
    });
    let on_load = Closure::<dyn FnMut()>::new({
        let (xhr, on_event) = (xhr.clone(), Rc::clone(&on_event));
        move || {
            let status = xhr.status().unwrap_or(0);
            let body = xhr.response_text().ok().flatten().unwrap_or_default();
            forget(key);
            on_event(event_of_response(status, &body));
        }
    });
    let on_error = Closure::<dyn FnMut()>::new(move || {
        forget(key);
        on_event(Event::Failed("The connection broke before the file was sent. Check it and try again.".to_owned()));
    });
    xhr.upload().ok()?.set_onprogress(Some(on_progress.as_ref().unchecked_ref()));
    xhr.set_onload(Some(on_load.as_ref().unchecked_ref()));
    xhr.set_onerror(Some(on_error.as_ref().unchecked_ref()));
    xhr.send_with_opt_form_data(Some(&form)).ok()?;
    Some(Request { xhr, _on_progress: on_progress, _on_load: on_load, _on_error: on_error })
}

fn event_of_response(status: u16, body: &str) -> Event {
    if status == 201
        && let Ok(session) = serde_json::from_str::<Session>(body)
    {
        return Event::Done(Box::new(session.status));
    }
    Event::Failed(match serde_json::from_str::<ErrorBody>(body) {
        Ok(body) => body.error.message,
        // A proxy may answer with a body of its own, above all if it finds the file too large.
        Err(_) if status == 413 => "Something between here and Hark refuses files of this size.".to_owned(),
        Err(_) => format!("The server answered with status {status}. Try again."),
    })
}

/// Drops a request that has ended, after its own listener has returned.
fn forget(key: u32) {
    if let Some(request) = REQUESTS.with_borrow_mut(|requests| requests.remove(&key)) {
        request.xhr.set_onload(None);
        request.xhr.set_onerror(None);
        set_timeout(move || drop(request), std::time::Duration::ZERO);
    }
}

/// Stops sending a file. No further event is reported.
pub fn abort(key: u32) {
    if let Some(request) = REQUESTS.with_borrow_mut(|requests| requests.remove(&key)) {
        request.xhr.set_onload(None);
        request.xhr.set_onerror(None);
        if let Ok(upload) = request.xhr.upload() {
            upload.set_onprogress(None);
        }
        let _ = request.xhr.abort();
    }
}

/// Drops a file that won't be sent again.
pub fn discard(key: u32) {
    FILES.with_borrow_mut(|files| drop(files.remove(&key)));
}
