//! The identity page, which opens one's sessions on another device: a link that works once, a recovery key, and leaving. All
//! forms are plain HTML, also with scripts: a new key goes to the next page in a cookie that scripts can't read.

use crate::{
    api::{
        failed_form,
        identity::{
            IdentityInfo, LeaveIdentity, LinkInfo, MakeLink, MakeRecoveryKey, OPEN_PAGE, RevokeRecoveryKey,
            load_identity,
        },
    },
    app::components::{Alert, LoadBoundary, Moment, retry_on_failure},
    model::text,
};
use leptos::{prelude::*, server_fn::ServerFn};
use leptos_meta::Title;
use leptos_router::components::A;

/// The width of the light margin around a QR code, which readers need to find it, in squares (ISO/IEC 18004, 6.3.8).
const QUIET_ZONE: u32 = 4;

/// The page.
#[component]
pub fn IdentityPage() -> impl IntoView {
    let forms = [MakeLink::PATH, MakeRecoveryKey::PATH, RevokeRecoveryKey::PATH, LeaveIdentity::PATH];
    let info = Resource::new(|| (), |()| load_identity());
    retry_on_failure(info);
    view! {
        <Title text="Your sessions on another device · Hark"/>
        <div class="page-head"><h1>"Your sessions on another device"</h1></div>
        {failed_form(&forms).map(|error| view! { <Alert message=error.message/> })}
        <LoadBoundary on_retry=move |()| info.refetch()>
            {move || Suspend::new(async move { info.await.map(|info| view! { <Choices info/> }) })}
        </LoadBoundary>
    }
}

/// The actions that are possible with this browser's sessions.
#[component]
fn Choices(info: IdentityInfo) -> impl IntoView {
    let some = info.sessions > 0;
    let count = usize::try_from(info.sessions).unwrap_or(usize::MAX);
    let sessions = if count == 1 { "session".to_owned() } else { text::count(count, "session") };
    let (seen, them) = (format!("Your {sessions} will no longer be seen in this browser."), sessions);
    let made_at = info.recovery_made_at;
    view! {
        <p class="lead">
            "Hark asks for no name and no password: it knows you by a cookie in this browser. Here you can open your sessions "
            "in another browser, and keep a way back to them should the cookie get lost."
        </p>
        {(!some).then(|| view! {
            <section class="card stack" data-testid="no-sessions">
                <h2>"There is nothing to take along yet"</h2>
                <p>"This browser has no sessions. Send a " <A href="/upload">"recording"</A> " first."</p>
            </section>
        })}
        {some.then(|| view! {
            <section class="card stack" aria-labelledby="link-heading">
                <h2 id="link-heading">"Open them on another device"</h2>
                <p>{format!("A link opens your {them} there as well. It works once, within ten minutes. Give it to nobody else: who opens it can read, change and delete what is yours.")}</p>
                {info.link.map(|link| view! { <Shareable link id="link"/> })}
                <form method="post" action=MakeLink::url()>
                    <button class="button primary" data-testid="make-link">"Make a new link"</button>
                </form>
            </section>
            <section class="card stack" aria-labelledby="recovery-heading">
                <h2 id="recovery-heading">"Keep a recovery key"</h2>
                <p>"It is such a link that goes on working until you replace or revoke it. Save it where you keep passwords: it opens your sessions in any browser when this cookie is lost."</p>
                {info.recovery.map(|link| view! {
                    <p><strong>"Save it now. It is shown only this once."</strong></p>
                    <Shareable link id="recovery"/>
                })}
                {made_at.map(|at| view! {
                    <p data-testid="recovery-made">"Your recovery key was made on " <Moment at/> "."</p>
                })}
                <div class="row-actions">
                    <form method="post" action=MakeRecoveryKey::url()>
                        <button class="button" data-testid="make-recovery">
                            {if made_at.is_some() { "Replace the recovery key" } else { "Make a recovery key" }}
                        </button>
                    </form>
                    {made_at.map(|_| view! {
                        <form method="post" action=RevokeRecoveryKey::url()>
                            <button class="button quiet" data-testid="revoke-recovery">"Revoke it"</button>
                        </form>
                    })}
                </div>
            </section>
        })}
        <section class="card stack" aria-labelledby="other-heading">
            <h2 id="other-heading">"Open those of another device here"</h2>
            <p>"Open the link here, or " <A href=OPEN_PAGE>"type in a key"</A> "."</p>
        </section>
        {some.then(|| view! {
            <section class="card stack" aria-labelledby="leave-heading">
                <h2 id="leave-heading">"Leave this browser"</h2>
                <p>"If others use this browser too, you can make it forget you."</p>
                <details class="leave">
                    <summary class="button quiet" data-testid="leave">"Leave"</summary>
                    <form method="post" action=LeaveIdentity::url()>
                        <input type="hidden" name="token" value=info.leave_token/>
                        <p>{seen} " "
                            {if made_at.is_some() {
                                "Your recovery key brings you back, and nothing else does."
                            } else {
                                "You have no recovery key, so nothing could bring you back: make one above first."
                            }}
                        </p>
                        <p class="check">
                            <input id="sure" type="checkbox" name="sure" value="yes" required data-testid="leave-sure"/>
                            <label for="sure">
                                {if made_at.is_some() { "I have saved my recovery key" } else { "I don't need these sessions any more" }}
                            </label>
                        </p>
                        <button class="button danger" data-testid="leave-confirm">"Forget me in this browser"</button>
                    </form>
                </details>
            </section>
        })}
    }
}

/// A link as text and as a QR code.
#[component]
fn Shareable(
    link: LinkInfo,
    /// The prefix of the elements' ids.
    id: &'static str,
) -> impl IntoView {
    let side = link.qr_size + 2 * QUIET_ZONE;
    let offset = format!("translate({QUIET_ZONE} {QUIET_ZONE})");
    view! {
        <div class="share">
            <svg
                class="qr"
                viewBox=format!("0 0 {side} {side}")
                role="img"
                aria-label="The link as a QR code"
                shape-rendering="crispEdges"
                data-testid=format!("{id}-qr")
            >
                <rect class="qr-light" width=side.to_string() height=side.to_string()></rect>
                <path class="qr-dark" transform=offset d=link.qr_path></path>
            </svg>
            <p class="field">
                <label for=id>"The link"</label>
                <input class="input" id=id readonly value=link.url data-testid=format!("{id}-url")/>
                {link.expires_at.map(|at| view! { <span class="muted">"Works once, until " <Moment at/></span> })}
            </p>
        </div>
    }
}
