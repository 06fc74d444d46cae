//! The document around each of the administrators' pages: head, navigation, the script that keeps the page live, and the
//! Content-Security-Policy for it. Used by the handlers of `server::http`.

use leptos::{nonce::Nonce, prelude::*};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");
/// The theme is that of the app's pages.
const DARK: &str = include_str!("../../style/dark.css");
const THEME: &str = include_str!("../app/theme.js");
const THEME_CONTROL: &str = include_str!("../app/theme.html");

/// Pages that have a script reload only without it.
const RELOAD: &str = r#"<meta http-equiv="refresh" content="10"/>"#;

/// The parts of the dashboard, in the order of the navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Overview,
    Sessions,
    Nodes,
    Savings,
}

impl Section {
    const ALL: [Self; 4] = [Self::Overview, Self::Sessions, Self::Nodes, Self::Savings];

    /// The name in the navigation.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Sessions => "Sessions",
            Self::Nodes => "Nodes",
            Self::Savings => "Savings",
        }
    }

    /// The address of its page.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Overview => "/admin",
            Self::Sessions => "/admin/sessions",
            Self::Nodes => "/admin/nodes",
            Self::Savings => "/admin/savings",
        }
    }
}

/// What is around a page.
#[derive(Clone, Debug)]
pub struct Head {
    pub title: String,
    /// The address of the app's style.
    pub style: String,
    /// The part that the page belongs to; none before somebody has signed in.
    pub section: Option<Section>,
    /// The address of the stream that says when the page has changed; none if it never does.
    pub stream: Option<String>,
    /// After how many seconds the page is fetched again, for what no stream says; none if never.
    pub refresh_secs: Option<u32>,
    /// Whether there is a session to sign out of: not where a proxy says who somebody is.
    pub may_sign_out: bool,
}

/// A whole page, and the policy that must be sent with it.
#[derive(Clone, Debug)]
pub struct Page {
    pub html: String,
    pub content_security_policy: String,
}

/// Renders a page.
#[must_use]
pub fn render(head: Head, body: impl IntoView + 'static) -> Page {
    let nonce = Nonce::new();
    let content_security_policy = format!(
        "default-src 'self'; script-src 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; \
         style-src-attr 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'none'"
    );
    let Head { title, style, section, stream, refresh_secs, may_sign_out } = head;
    let navigation = section.map(|current| {
        let links = Section::ALL.map(|section| {
            let here = (section == current).then_some("page");
            view! { <a href=section.path() aria-current=here>{section.label()}</a> }
        });
        view! { <nav class="nav" aria-label="Dashboard">{links.into_iter().collect_view()}</nav> }
    });
    let sign_out = may_sign_out.then(|| {
        view! {
            <form class="sign-out" method="post" action="/admin/sign-out">
                <button class="button quiet">"Sign out"</button>
            </form>
        }
    });
    let live = stream.is_some();
    let document = view! {
        <!DOCTYPE html>
        <html lang="en">
            <head>
                <meta charset="utf-8"/>
                <meta name="viewport" content="width=device-width, initial-scale=1"/>
                <meta name="color-scheme" content="light dark"/>
                <meta name="theme-color" data-only="light" media="(prefers-color-scheme: light)" content="#f7f6f3"/>
                <meta name="theme-color" data-only="dark" media="(prefers-color-scheme: dark)" content="#16181b"/>
                <style nonce=nonce.clone() data-only="dark" media="(prefers-color-scheme: dark)">{DARK}</style>
                <script nonce=nonce.clone()>{THEME}</script>
                <meta name="robots" content="noindex"/>
                <title>{format!("{title} · Hark")}</title>
                <link rel="icon" href="/favicon.svg" type="image/svg+xml"/>
                <link rel="stylesheet" href=style/>
                <style nonce=nonce.clone()>{STYLE}</style>
                {live.then(|| view! { <noscript inner_html=RELOAD></noscript> })}
            </head>
            <body>
                <a class="skip" href="#main">"Skip to the content"</a>
                <header class="header">
                    <div class="header-inner admin-header">
                        <a class="wordmark" href="/" aria-label="Hark, home">
                            <svg class="mark" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
                                <path d="M5 13v6M10.5 8v16M16 4v24M21.5 10v12M27 14v4"></path>
                            </svg>
                            <span>"Hark"</span>
                        </a>
                        {navigation}
                        {live.then(|| view! {
                            <p class="badge" id="live-badge" data-mode="connecting" hidden="">
                                <span class="dot"></span>
                                <span id="live-word">"Connecting"</span>
                            </p>
                        })}
                        {sign_out}
                    </div>
                </header>
                <main id="main" tabindex="-1" class="dashboard" data-stream=stream data-refresh=refresh_secs>{body}</main>
                <footer class="footer">
                    <p>"Hark, transcription on your own server"</p>
                    <p class="theme" inner_html=THEME_CONTROL></p>
                </footer>
                <script nonce=nonce>{SCRIPT}</script>
            </body>
        </html>
    };
    Page { html: document.to_html(), content_security_policy }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(section: Option<Section>, stream: Option<&str>) -> Head {
        Head {
            title: "Overview".to_owned(),
            style: "/pkg/hark.css".to_owned(),
            section,
            stream: stream.map(str::to_owned),
            refresh_secs: None,
            may_sign_out: false,
        }
    }

    #[test]
    fn a_page_runs_its_own_scripts_and_no_other() {
        let page = render(head(Some(Section::Nodes), Some("/stream")), view! { <p>"<b>"</p> });
        let nonce = page.content_security_policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
        // One for the theme, and one that keeps the page live.
        assert_eq!(page.html.matches(&format!("<script nonce=\"{nonce}\">")).count(), 2, "{}", page.html);
        assert_eq!(page.html.matches("<script").count(), 2);
        assert!(!page.html.contains(".wasm") && !page.html.contains("modulepreload"));
        // Scripts and styles as they are, and text as text.
        assert!([SCRIPT, THEME, DARK].iter().all(|file| page.html.contains(file)), "{}", page.html);
        assert!(page.html.contains("&lt;b&gt;"));
        assert!(page.html.contains("aria-current=\"page\">Nodes"), "{}", page.html);
        assert_ne!(render(head(None, None), ()).content_security_policy, page.content_security_policy);
    }

    #[test]
    fn only_a_live_page_reloads_without_scripts() {
        let has = |stream| render(head(None, stream), ()).html.contains("http-equiv=\"refresh\"");
        assert_eq!([has(None), has(Some("/stream"))], [false, true]);
    }
}
