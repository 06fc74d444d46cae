//! Requests of server functions. On the server nobody makes them: their bodies are called instead.

/// What the server answered.
pub struct Reply {
    pub failed: bool,
    pub text: String,
}

/// No answer, as there is nothing to ask with.
#[allow(clippy::unused_async)]
pub async fn ask(_method: &str, _path: &str, _args: &str) -> Option<Reply> {
    None
}
