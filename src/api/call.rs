//! How pages call server functions. On the wire as Leptos does it; but the browser's half of that knows streams, sockets
//! and uploads as well, to be loaded by every browser, so here it is made of what the feed has already.

use super::json::JsonText;
use crate::{
    feed::browser::{fetch::ask, json::read},
    model::ApiError,
};
use http::Method;
use leptos::server_fn::{
    Http, Protocol,
    client::Client,
    codec::Post,
    error::{IntoAppError, ServerFnErrorErr},
    server::Server,
};
use serde::{Serialize, de::DeserializeOwned};
use std::marker::PhantomData;

/// As Leptos does it.
type Leptos<In> = Http<In, Post<JsonText>>;

/// What server functions have as their `protocol`; `In` says how the arguments travel.
pub struct Call<In>(PhantomData<In>);

impl<In, Input, Output, C, S> Protocol<Input, Output, C, S, ApiError> for Call<In>
where
    Leptos<In>: Protocol<Input, Output, C, S, ApiError>,
    Input: Serialize + Send,
    Output: DeserializeOwned,
    C: Client<ApiError>,
    S: Server<ApiError>,
{
    const METHOD: Method = Leptos::<In>::METHOD;

    fn run_server<F, Fut>(request: S::Request, body: F) -> impl Future<Output = Result<S::Response, ApiError>> + Send
    where
        F: Fn(Input) -> Fut + Send,
        Fut: Future<Output = Result<Output, ApiError>> + Send,
    {
        Leptos::<In>::run_server(request, body)
    }

    async fn run_client(path: &str, input: Input) -> Result<Output, ApiError> {
        let args = serde_json::to_string(&input).map_err(|_| unreadable())?;
        read(&answer(Self::METHOD.as_str(), path, &args).await?).ok_or_else(unreadable)
    }
}

async fn answer(method: &str, path: &str, args: &str) -> Result<String, ApiError> {
    match ask(method, path, args).await {
        Some(reply) if reply.failed => Err(read(&reply.text).unwrap_or_else(unreadable)),
        Some(reply) => Ok(reply.text),
        None => Err(ServerFnErrorErr::Request(String::new()).into_app_error()),
    }
}

fn unreadable() -> ApiError {
    ServerFnErrorErr::Deserialization(String::new()).into_app_error()
}
