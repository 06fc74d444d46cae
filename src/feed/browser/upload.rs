//! Uploads by XMLHttpRequest, which reports how much was sent; fetch doesn't. The files and requests can't leave the thread,
//! so they are kept here under integer keys. `app/uploads.rs` decides which upload is sent when.

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
    static FILES: RefCell<HashMap<u32, File>> = RefCell::default();
    static REQUESTS: RefCell<HashMap<u32, Request>> = RefCell::default();
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

/// The files that are chosen in an input now. They have no keys yet.
#[must_use]
pub fn chosen(input: NodeRef<html::Input>) -> Vec<Picked> {
    let files = files(input.get_untracked().and_then(|input| input.files()));
    files.iter().map(|file| picked(0, file)).collect()
}

/// Moves the files out of an input and keeps them under new keys.
#[must_use]
pub fn take(input: NodeRef<html::Input>) -> Vec<Picked> {
    let Some(input) = input.get_untracked() else { return Vec::new() };
    let taken = files(input.files());
    input.set_value("");
    taken
        .into_iter()
        .map(|file| {
            let key = NEXT_KEY.replace(NEXT_KEY.get() + 1);
            let picked = picked(key, &file);
            FILES.with_borrow_mut(|files| files.insert(key, file));
            picked
        })
        .collect()
}

/// Puts dropped files into the input, as if they had been chosen there.
pub fn choose_dropped(event: &ev::DragEvent, input: NodeRef<html::Input>) {
    let list = event.data_transfer().and_then(|data| data.files()).filter(|list| list.length() > 0);
    if let (Some(list), Some(input)) = (list, input.get_untracked()) {
        input.set_files(Some(&list));
    }
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
        return Event::Done(session.id);
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
