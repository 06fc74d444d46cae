//! The pages about being an administrator: signing in, how to become one where nobody is, and what went wrong.

use leptos::prelude::*;

/// The form that signs in.
#[must_use]
pub fn sign_in(
    error: Option<String>,
    // The page that was asked for.
    to: String,
) -> impl IntoView {
    let described = error.is_some().then_some("sign-in-error");
    view! {
        <div class="page-head"><h1>"Administration"</h1></div>
        {error.map(|error| view! { <div class="alert" role="alert" id="sign-in-error" data-testid="error-message">{error}</div> })}
        <section class="card stack" aria-labelledby="sign-in-heading">
            <h2 id="sign-in-heading">"Sign in"</h2>
            <p>"Administrators see and change the sessions of everybody. To transcribe, " <a href="/">"nobody needs to sign in"</a> "."</p>
            <form class="open-form" method="post" action="/admin/sign-in">
                <input type="hidden" name="to" value=to/>
                // Programs that keep passwords look for a name.
                <input class="hidden" type="text" name="user" value="administrator" autocomplete="username" tabindex="-1" aria-hidden="true" readonly/>
                <p class="field">
                    <label for="password">"Password"</label>
                    <input
                        class="input"
                        id="password"
                        name="password"
                        type="password"
                        autocomplete="current-password"
                        required
                        autofocus
                        aria-describedby=described
                        data-testid="password"
                    />
                </p>
                <button class="button primary" data-testid="sign-in">"Sign in"</button>
            </form>
        </section>
    }
}

/// How somebody becomes administrator.
#[must_use]
pub fn nobody() -> impl IntoView {
    view! {
        <div class="page-head"><h1>"Administration"</h1></div>
        <section class="card stack" aria-labelledby="nobody-heading" data-testid="admin-off">
            <h2 id="nobody-heading">"Nobody is administrator of this server yet"</h2>
            <p>"Administrators see how well this server works, and the sessions of everybody. Whoever runs it chooses one of these:"</p>
            <ul>
                <li>
                    <p>"A password. Set it on the server, while Hark runs:"</p>
                    <pre tabindex="0"><code>"hark admin set-password"</code></pre>
                </li>
                <li>
                    <p>"A proxy in front that knows who somebody is, such as oauth2-proxy, Authelia or Cloudflare Access:"</p>
                    <pre tabindex="0"><code>"HARK_TRUSTED_PROXIES=10.0.0.1\nHARK_ADMIN_HEADER=Remote-User\nHARK_ADMIN_USERS=ann,ben"</code></pre>
                </li>
                <li>
                    <p>"A token, for programs:"</p>
                    <pre tabindex="0"><code>"HARK_ADMIN_TOKEN=$(openssl rand -hex 32)"</code></pre>
                </li>
            </ul>
        </section>
    }
}

/// Why a page can't be shown, or what was asked for can't be done.
#[must_use]
pub fn failure(message: String) -> impl IntoView {
    view! {
        <div class="page-head"><h1>"Administration"</h1></div>
        <div class="alert" role="alert" data-testid="error-message">{message}</div>
        <p><a href="/admin">"Back to the overview"</a></p>
    }
}
