//! Uploads in parts: performs what `feed/transfer.rs` says, and remembers uploads for later pages. The files and requests can't
//! leave the thread, so they are kept here under integer keys. `app/uploads.rs` decides which upload is sent when. Files that were
//! chosen or dropped are collected here until they are sent, and not in the form's input, which forgets them when others are
//! chosen.

use super::dom;
use crate::{
    feed::{
        transfer::{Answer, Step, Transfer},
        uploads::{Event, Picked, Unfinished, UploadOptions},
    },
    model::{
        ErrorBody, Session,
        page::UPLOAD_PATH as SESSIONS,
        upload::{HASH_BLOCK, PART_TYPE, TUS_VERSION, UPLOADS_PATH},
    },
};
use leptos::{ev, html, prelude::*};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    time::Duration,
};
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use wasm_bindgen_futures::JsFuture;
use web_sys::{Blob, File, FileList, XmlHttpRequest};

/// What the names of remembered uploads begin with in the browser's storage.
const MEMORY: &str = "hark-upload ";
/// A request without an answer after so many milliseconds is tried again. A part takes some seconds, and what a computer sent
/// before it slept may never be answered.
const TIMEOUT_MS: u32 = 120_000;
const UNREADABLE: &str = "The browser can't read the file. Choose it again.";

thread_local! {
    /// The files that were chosen and aren't sent yet.
    static CHOSEN: RefCell<Vec<(u32, File)>> = RefCell::default();
    static FILES: RefCell<HashMap<u32, File>> = RefCell::default();
    static REQUESTS: RefCell<HashMap<u32, Request>> = RefCell::default();
    /// The uploads that wait before they go on.
    static PAUSED: RefCell<HashMap<u32, Paused>> = RefCell::default();
    /// The files that are being hashed, each with a number that a later attempt doesn't have.
    static CURRENT: RefCell<HashMap<u32, u32>> = RefCell::default();
    /// What dragged files have entered last, while they are over the window.
    static ENTERED: RefCell<Option<web_sys::EventTarget>> = const { RefCell::new(None) };
    static NEXT_KEY: Cell<u32> = const { Cell::new(0) };
}

/// A request under way, with its listener, which must live as long as it.
struct Request {
    xhr: XmlHttpRequest,
    _on_end: Closure<dyn FnMut()>,
}

/// Notes that a file is being hashed; returns the number of the attempt.
fn begin(current: &mut HashMap<u32, u32>, key: u32) -> u32 {
    let attempt = NEXT_KEY.replace(NEXT_KEY.get() + 1);
    current.insert(key, attempt);
    attempt
}

fn files(list: Option<FileList>) -> Vec<File> {
    let list = list.as_ref();
    (0..list.map_or(0, FileList::length)).filter_map(|i| list.and_then(|l| l.get(i))).collect()
}

fn picked(key: u32, file: &File) -> Picked {
    let begun = remembered(&memory_key(file)).is_some();
    Picked { key, name: file.name(), bytes: file.size() as u64, begun }
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

/// Takes chosen files, to be sent under their keys: all, or only those that earlier pages have begun to send.
#[must_use]
pub fn take_chosen(only_begun: bool) -> Vec<Picked> {
    let chosen = CHOSEN.take().into_iter().map(|(key, file)| (picked(key, &file), file));
    let (taken, left): (Vec<_>, Vec<_>) = chosen.partition(|(picked, _)| picked.begun || !only_begun);
    CHOSEN.set(left.into_iter().map(|(picked, file)| (picked.key, file)).collect());
    let keep = |(picked, file): (Picked, File)| {
        FILES.with_borrow_mut(|files| files.insert(picked.key, file));
        picked
    };
    taken.into_iter().map(keep).collect()
}

/// Seconds of a monotonic clock.
#[must_use]
pub fn now() -> f64 {
    window().performance().map_or(0.0, |p| p.now()) / 1000.0
}

/// Sends a kept file in parts of at most `limit` bytes, and reports its progress and outcome.
pub fn send(key: u32, options: &UploadOptions, limit: u64, on_event: impl Fn(Event) + 'static) {
    let Some(file) = FILES.with_borrow(|files| files.get(&key).cloned()) else {
        return on_event(Event::Failed(UNREADABLE.to_owned()));
    };
    let memory = memory_key(&file);
    let address = remembered(&memory).map(|(_, address)| address);
    let transfer = Transfer::new(file.size() as u64, limit, address.is_some());
    let options = options.clone();
    let sending = Sending {
        key,
        file,
        options,
        memory,
        address,
        hash: None,
        transfer,
        found: false,
        on_event: Box::new(on_event),
    };
    sending.go();
}

/// An upload that is being sent.
struct Sending {
    key: u32,
    file: File,
    options: UploadOptions,
    /// Under which the upload is remembered, and its address, once it has one.
    memory: String,
    address: Option<String>,
    hash: Option<String>,
    transfer: Transfer,
    /// Whether what the server had before was reported.
    found: bool,
    on_event: Box<dyn Fn(Event)>,
}

impl Sending {
    fn go(self) {
        let step = self.transfer.next();
        self.perform(step);
    }

    fn perform(self, step: Step) {
        match step {
            Step::Hash if self.hash.is_some() || self.options.again => self.create(),
            Step::Hash => self.hash(),
            Step::Create => self.create(),
            Step::Ask => self.ask("HEAD", &[], None),
            Step::Send(from, to) => match self.file.slice_with_f64_and_f64(from as f64, to as f64) {
                Ok(part) => {
                    self.ask("PATCH", &[("Content-Type", PART_TYPE), ("Upload-Offset", &from.to_string())], Some(&part))
                }
                Err(_) => self.fail(UNREADABLE.to_owned()),
            },
            Step::Load { id, sent_before } => self.load(&id, sent_before),
            Step::Wait(seconds) => {
                (self.on_event)(Event::Stalled);
                pause(self.key, seconds, move || self.go());
            }
            Step::Fail(message) => self.fail(message),
        }
    }

    fn fail(self, message: String) {
        if !self.transfer.is_begun() {
            forget_memory(&self.memory);
        }
        (self.on_event)(Event::Failed(message));
    }

    /// Computes the hash of the file, where the browser can.
    fn hash(mut self) {
        let (key, step) = (self.key, Step::Create);
        let running = CURRENT.with_borrow_mut(|current| begin(current, key));
        leptos::task::spawn_local(async move {
            self.hash = Some(hash(&self.file).await.unwrap_or_default());
            if CURRENT.with_borrow(|current| current.get(&key) == Some(&running)) {
                self.perform(step);
            }
        });
    }

    fn create(self) {
        let options = &self.options;
        let hash = self.hash.clone().unwrap_or_default();
        let name = self.file.name();
        let pairs = [
            ("filename", &name),
            ("title", &options.title),
            ("language", &options.language),
            ("engine", &options.engine),
            ("vocabulary", &options.vocabulary),
            ("channels", &options.channels),
            ("track", &options.track),
            ("hash", &hash),
        ];
        let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
        let mut metadata: Vec<String> = pairs.map(|(name, value)| format!("{name} {}", base64(value))).collect();
        if options.again {
            metadata.push("again".to_owned());
        }
        let (metadata, length) = (metadata.join(","), (self.file.size() as u64).to_string());
        self.ask("POST", &[("Upload-Metadata", &metadata), ("Upload-Length", &length)], None);
    }

    fn load(self, id: &str, sent_before: bool) {
        let address = format!("{SESSIONS}/{id}");
        self.request("GET", &address, &[], None, move |mut sending, xhr, _| {
            let body = xhr.response_text().ok().flatten().unwrap_or_default();
            match serde_json::from_str::<Session>(&body) {
                Ok(session) => {
                    forget_memory(&sending.memory);
                    let status = Box::new(session.status);
                    (sending.on_event)(if sent_before { Event::SentBefore(status) } else { Event::Done(status) });
                }
                Err(_) => {
                    // An answer that is neither a session nor an error of Hark's is as good as none.
                    let step = match answer(&xhr).message {
                        Some(message) => Step::Fail(message),
                        None => sending.transfer.on(Answer::default(), 0.0),
                    };
                    sending.perform(step);
                }
            }
        });
    }

    /// Asks about the upload, or begins it if it has no address yet.
    fn ask(self, method: &str, headers: &[(&str, &str)], body: Option<&Blob>) {
        let begins = method == "POST";
        let address = self.address.clone().filter(|_| !begins).unwrap_or_else(|| UPLOADS_PATH.to_owned());
        self.request(method, &address, headers, body, move |mut sending, xhr, seconds| {
            let answer = answer_about_upload(&xhr);
            if begins && let Some(address) = header(&xhr, "Location") {
                sending.address = Some(address);
            }
            let before = sending.transfer.offset();
            let (known, step) = (answer.offset.is_some(), sending.transfer.on(answer, seconds));
            let here = sending.transfer.offset();
            match &sending.address {
                Some(address) if begins || here != before => remember(&sending.memory, here, address),
                _ => {}
            }
            if matches!(step, Step::Send(..)) {
                let event = |bytes| {
                    if sending.found || !known {
                        Event::Sent { bytes, at: now() }
                    } else {
                        Event::Found { bytes, at: now() }
                    }
                };
                (sending.on_event)(event(here));
                sending.found = true;
            }
            sending.perform(step);
        });
    }

    /// Sends a request, and calls `then` with what has come of it and after how many seconds.
    fn request(
        self,
        method: &str,
        address: &str,
        headers: &[(&str, &str)],
        body: Option<&Blob>,
        then: impl FnOnce(Self, XmlHttpRequest, f64) + 'static,
    ) {
        let key = self.key;
        let Some(xhr) = open(method, address, headers) else { return self.fail(UNREADABLE.to_owned()) };
        let began = now();
        let on_end = Closure::once({
            let xhr = xhr.clone();
            move || {
                forget(key);
                then(self, xhr, now() - began);
            }
        });
        // Also after an error, with the status 0.
        xhr.set_onloadend(Some(on_end.as_ref().unchecked_ref()));
        // This fails only for a request that isn't open.
        let _ = xhr.send_with_opt_blob(body);
        REQUESTS.with_borrow_mut(|requests| drop(requests.insert(key, Request { xhr, _on_end: on_end })));
    }
}

/// A request that can be sent.
fn open(method: &str, address: &str, headers: &[(&str, &str)]) -> Option<XmlHttpRequest> {
    let xhr = XmlHttpRequest::new().ok()?;
    xhr.open(method, address).ok()?;
    for (name, value) in headers.iter().chain(&[("Tus-Resumable", TUS_VERSION), ("Accept", "application/json")]) {
        xhr.set_request_header(name, value).ok()?;
    }
    xhr.set_timeout(TIMEOUT_MS);
    Some(xhr)
}

/// What an answer about an upload says. Something between here and Hark may answer in its place, such as a network that wants a
/// login: what is no error then counts as no answer.
fn answer_about_upload(xhr: &XmlHttpRequest) -> Answer {
    let answer = answer(xhr);
    let is_harks = header(xhr, "Tus-Resumable").is_some();
    if is_harks || !matches!(answer.status, 200..=299 | 404 | 410) { answer } else { Answer::default() }
}

/// What an answer says.
fn answer(xhr: &XmlHttpRequest) -> Answer {
    let number = |name| header(xhr, name).and_then(|text| super::dom::number(&text));
    let body = xhr.response_text().ok().flatten().unwrap_or_default();
    Answer {
        status: xhr.status().unwrap_or(0),
        message: serde_json::from_str::<ErrorBody>(&body).ok().map(|body| body.error.message),
        retry_after: number("Retry-After").map(|seconds| seconds as u32),
        offset: number("Upload-Offset").map(|bytes| bytes as u64),
        session: header(xhr, "Hark-Session"),
    }
}

fn header(xhr: &XmlHttpRequest, name: &str) -> Option<String> {
    xhr.get_response_header(name).ok().flatten()
}

/// A text as base64 of its UTF-8. The browser knows base64 of characters below 256 only.
fn base64(text: &str) -> String {
    let bytes: String = text.bytes().map(char::from).collect();
    window().btoa(&bytes).unwrap_or_default()
}

/// The hash of a file, as the server computes it: of the hashes of its blocks. None where the browser has no `crypto.subtle`, as
/// over plain http, or can't read the file.
async fn hash(file: &File) -> Option<String> {
    let crypto = js_sys::Reflect::get(&window(), &"crypto".into()).ok()?;
    let subtle = js_sys::Reflect::get(&crypto, &"subtle".into()).ok()?;
    let digest: js_sys::Function = js_sys::Reflect::get(&subtle, &"digest".into()).ok()?.dyn_into().ok()?;
    let sha256 = async |bytes: &JsValue| {
        let promise: js_sys::Promise = digest.call2(&subtle, &"SHA-256".into(), bytes).ok()?.dyn_into().ok()?;
        Some(js_sys::Uint8Array::new(&JsFuture::from(promise).await.ok()?).to_vec())
    };
    let (size, mut hashes, mut from) = (file.size(), Vec::new(), 0.0);
    while from < size {
        let to = from + HASH_BLOCK as f64;
        let block = file.slice_with_f64_and_f64(from, to).ok()?;
        hashes.extend(sha256(&JsFuture::from(block.array_buffer()).await.ok()?).await?);
        from = to;
    }
    let all = sha256(&js_sys::Uint8Array::from(&*hashes)).await?;
    Some(all.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Calls `then` after so many seconds, or when the network is back, unless the upload is aborted before.
fn pause(key: u32, seconds: u32, then: impl FnOnce() + 'static) {
    thread_local! {
        static LISTENS: Cell<bool> = const { Cell::new(false) };
    }
    if !LISTENS.replace(true) {
        window_event_listener(ev::online, |_| PAUSED.take().into_iter().for_each(|(_, paused)| paused.end()));
    }
    let timer = set_timeout_with_handle(
        move || {
            if let Some(paused) = PAUSED.with_borrow_mut(|paused| paused.remove(&key)) {
                paused.end();
            }
        },
        Duration::from_secs(seconds.into()),
    );
    PAUSED.with_borrow_mut(|paused| drop(paused.insert(key, Paused { timer: timer.ok(), then: Box::new(then) })));
}

/// What goes on after a pause.
struct Paused {
    timer: Option<TimeoutHandle>,
    then: Box<dyn FnOnce()>,
}

impl Paused {
    fn end(self) {
        if let Some(timer) = self.timer {
            timer.clear();
        }
        (self.then)();
    }
}

/// Drops a request that has ended, after its own listener has returned.
fn forget(key: u32) {
    if let Some(request) = REQUESTS.with_borrow_mut(|requests| requests.remove(&key)) {
        request.xhr.set_onloadend(None);
        set_timeout(move || drop(request), Duration::ZERO);
    }
}

/// Stops sending a file. No further event is reported. What the server has of it stays there.
pub fn abort(key: u32) {
    PAUSED.with_borrow_mut(|paused| drop(paused.remove(&key)));
    CURRENT.with_borrow_mut(|current| current.remove(&key));
    if let Some(request) = REQUESTS.with_borrow_mut(|requests| requests.remove(&key)) {
        request.xhr.set_onloadend(None);
        let _ = request.xhr.abort();
    }
}

/// Drops a file that won't be sent again, and what the server has of it if it isn't a session.
pub fn discard(key: u32) {
    if let Some(file) = FILES.with_borrow_mut(|files| files.remove(&key)) {
        remove(&memory_key(&file));
    }
}

/// The key under which an upload of this file is remembered.
fn memory_key(file: &File) -> String {
    format!("{MEMORY}{} {} {}", file.size(), file.last_modified(), file.name())
}

/// How much of an upload was sent, and its address.
fn remembered(memory: &str) -> Option<(u64, String)> {
    let kept = dom::storage()?.get_item(memory).ok().flatten()?;
    let (sent, address) = kept.split_once(' ')?;
    // Written by this page, or by who has taken it over anyway; but never asked of another server.
    address.starts_with(UPLOADS_PATH).then(|| (dom::number(sent).unwrap_or_default() as u64, address.to_owned()))
}

/// Remembers an upload for a later page.
fn remember(memory: &str, sent: u64, address: &str) {
    if let Some(storage) = dom::storage() {
        // This fails only if storage is full or blocked. Then a later page begins anew.
        let _ = storage.set_item(memory, &format!("{sent} {address}"));
    }
}

fn forget_memory(memory: &str) {
    if let Some(storage) = dom::storage() {
        let _ = storage.remove_item(memory);
    }
}

/// The uploads that earlier pages have begun.
#[must_use]
pub fn unfinished() -> Vec<Unfinished> {
    let Some(storage) = dom::storage() else { return Vec::new() };
    let keys = (0..storage.length().unwrap_or(0)).filter_map(|n| storage.key(n).ok().flatten());
    let read = |key: String| {
        let (bytes, rest) = key.strip_prefix(MEMORY)?.split_once(' ')?;
        let (_, name) = rest.split_once(' ')?;
        let (bytes, name) = (dom::number(bytes)? as u64, name.to_owned());
        let (sent, _) = remembered(&key)?;
        Some(Unfinished { key, name, bytes, sent })
    };
    keys.filter_map(read).collect()
}

/// Asks how much the server has of an upload that is remembered, and calls `then` with it: none if it isn't there any more. Nothing
/// is called without an answer.
pub fn ask_unfinished(memory: &str, then: impl FnOnce(Option<u64>) + 'static) {
    let Some((_, address)) = remembered(memory) else { return };
    let Some(xhr) = open("HEAD", &address, &[]) else { return };
    let memory = memory.to_owned();
    let on_end = Closure::once_into_js({
        let xhr = xhr.clone();
        move || match answer_about_upload(&xhr) {
            // It may have become a session after that page was left.
            Answer { status: 404 | 410, .. } | Answer { session: Some(_), .. } => {
                forget_memory(&memory);
                then(None);
            }
            Answer { offset: Some(offset), .. } => {
                remember(&memory, offset, &address);
                then(Some(offset));
            }
            _ => {}
        }
    });
    xhr.set_onloadend(Some(on_end.unchecked_ref()));
    // This fails only for a request that isn't open.
    let _ = xhr.send();
}

/// Calls `then` whenever another tab has sent more of a remembered upload, with how much the server has, and when it isn't
/// remembered any more, with none.
pub fn watch_unfinished(then: impl Fn(&str, Option<u64>) + 'static) {
    window_event_listener(ev::storage, move |event| {
        if let Some(memory) = event.key().filter(|key| key.starts_with(MEMORY)) {
            then(&memory, remembered(&memory).map(|(sent, _)| sent));
        }
    });
}

/// Removes an upload that is remembered, here and at the server.
pub fn remove(memory: &str) {
    if let Some(xhr) = remembered(memory).and_then(|(_, address)| open("DELETE", &address, &[])) {
        // If this fails, the server removes it when it expires.
        let _ = xhr.send();
    }
    forget_memory(memory);
}
