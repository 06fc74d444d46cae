//! Requests by fetch: those of the feed, and those of server functions.

use js_sys::{Array, JSON, Object};
use leptos::server_fn::redirect::{REDIRECT_HEADER, call_redirect_hook};
use send_wrapper::SendWrapper;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, Request, RequestInit, Response, UrlSearchParams, window};

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
const JSON_PLEASE: (&str, &str) = ("Accept", "application/json");

/// What the server answered.
pub struct Reply {
    pub failed: bool,
    pub text: String,
}

/// Calls a server function. `args`: its arguments as JSON, texts or nothing. None if no answer came.
///
/// If the answer leads elsewhere, the page goes there.
pub fn ask(method: &str, path: &str, args: &str) -> impl Future<Output = Option<Reply>> + Send {
    SendWrapper::new(async move {
        let form = form(args)?;
        let abort = AbortOnDrop(AbortController::new().ok()?);
        let response = if method == "GET" {
            fetch(method, &format!("{path}?{form}"), &[FORM, JSON_PLEASE], None, &abort.0).await
        } else {
            fetch(method, path, &[FORM, JSON_PLEASE], Some(&form), &abort.0).await
        }?;
        let reply = Reply { failed: response.status() >= 400, text: text(&response).await.unwrap_or_default() };
        let header = |name| response.headers().get(name).ok().flatten();
        if let (false, Some(_), Some(place)) = (reply.failed, header(REDIRECT_HEADER), header("Location")) {
            call_redirect_hook(&place);
        }
        Some(reply)
    })
}

/// Arguments as a form sends them.
fn form(args: &str) -> Option<String> {
    let form = UrlSearchParams::new().ok()?;
    for entry in Object::entries(JSON::parse(args).ok()?.dyn_ref()?) {
        let entry: Array = entry.unchecked_into();
        if let Some(text) = entry.get(1).as_string() {
            form.append(&entry.get(0).as_string()?, &text);
        }
    }
    form.to_string().as_string()
}

/// Any answer, whatever its status; none if `abort` was faster.
pub(super) async fn fetch(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
    abort: &AbortController,
) -> Option<Response> {
    let options = RequestInit::new();
    options.set_method(method);
    options.set_signal(Some(&abort.signal()));
    if let Some(body) = body {
        options.set_body(&JsValue::from_str(body));
    }
    let request = Request::new_with_str_and_init(url, &options).ok()?;
    for (name, value) in headers {
        request.headers().set(name, value).ok()?;
    }
    JsFuture::from(window()?.fetch_with_request(&request)).await.ok()?.dyn_into().ok()
}

/// All of an answer.
pub(super) async fn text(response: &Response) -> Option<String> {
    JsFuture::from(response.text().ok()?).await.ok()?.as_string()
}

/// Takes a request back when nobody waits for it any more. Once the answer has been read, that does nothing.
struct AbortOnDrop(AbortController);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
