// Keeps an administrator's page live. Its stream says that something has changed; then the page is fetched again, and each
// element with `data-live` whose HTML differs is replaced by the new one with its id. Also shows the numbers of a chart's point.
(() => {
  const main = document.getElementById("main");
  const badge = document.getElementById("live-badge");
  const say = (mode, word) => {
    if (!badge) return;
    badge.hidden = false;
    badge.dataset.mode = mode;
    document.getElementById("live-word").textContent = word;
  };

  // What the server sent last of each element: the elements themselves may have changed since.
  const sent = new Map();
  const remember = () => document.querySelectorAll("[data-live]").forEach(e => sent.set(e.id, e.outerHTML));

  // A point's number is read by hovering over it, and by the arrow keys from its chart.
  const prepare = () =>
    document.querySelectorAll("svg.plot").forEach(plot => {
      plot.querySelectorAll("rect.hit > title").forEach(title => {
        title.parentNode.dataset.tip = title.textContent;
        title.remove();
      });
    });
  const show = hit => {
    const figure = hit.closest("figure");
    figure.querySelectorAll(".hit.chosen").forEach(e => e.classList.remove("chosen"));
    hit.classList.add("chosen");
    figure.querySelector(".tip").textContent = hit.dataset.tip;
  };
  document.addEventListener("pointerover", event => {
    const hit = event.target.closest?.("rect.hit[data-tip]");
    if (hit) show(hit);
  });
  document.addEventListener("keydown", event => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !event.target.matches?.("svg.plot")) return;
    const hits = [...event.target.querySelectorAll("rect.hit")];
    if (hits.length === 0) return;
    const now = hits.findIndex(hit => hit.classList.contains("chosen"));
    const next = now < 0 ? (step > 0 ? 0 : hits.length - 1) : Math.min(Math.max(now + step, 0), hits.length - 1);
    show(hits[next]);
    event.preventDefault();
  });

  // Where an element is within another, to find its successor.
  const pathOf = (element, root) => {
    const path = [];
    for (let e = element; e !== root; e = e.parentNode) path.unshift([...e.parentNode.children].indexOf(e));
    return path;
  };
  const replace = (old, fresh) => {
    const focused = old.contains(document.activeElement) ? pathOf(document.activeElement, old) : null;
    const chosen = [...old.querySelectorAll(".hit")].findIndex(hit => hit.classList.contains("chosen"));
    const checked = [...old.querySelectorAll("input:checked")].map(input => input.id || input.name + "=" + input.value);
    const open = [...old.querySelectorAll("details[open][id]")].map(details => details.id);
    const scrolled = [old.scrollLeft, old.scrollTop];
    fresh = document.importNode(fresh, true);
    old.replaceWith(fresh);
    [fresh.scrollLeft, fresh.scrollTop] = scrolled;
    fresh.querySelectorAll("input").forEach(input => {
      if (checked.includes(input.id || input.name + "=" + input.value)) input.checked = true;
    });
    fresh.querySelectorAll("details[id]").forEach(details => (details.open ||= open.includes(details.id)));
    if (chosen >= 0) fresh.querySelectorAll(".hit")[chosen]?.classList.add("chosen");
    focused?.reduce((e, n) => e?.children[n], fresh)?.focus({ preventScroll: true });
  };
  const update = text => {
    // Its styles are those that this page has; parsed copies of them would violate the policy, which names another nonce.
    const page = new DOMParser().parseFromString(text.replace(/<style[^]*?<\/style>/g, ""), "text/html");
    // An element that came or went changes the page's structure: the part around it is replaced, if that is live too.
    page.querySelectorAll("[data-live]").forEach(fresh => {
      const html = fresh.outerHTML;
      const old = document.getElementById(fresh.id);
      if (old && sent.get(fresh.id) !== html) {
        sent.set(fresh.id, html);
        replace(old, fresh);
      }
    });
    prepare();
  };

  remember();
  prepare();
  const address = main.dataset.stream;
  const every = Number(main.dataset.refresh) * 1000;
  let busy = false;
  let again = false;
  const refresh = async () => {
    if (document.hidden) return (again = true);
    if (busy) return (again = true);
    busy = true;
    again = false;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, redirect: "manual" });
      if (answer.ok) update(await answer.text());
      // Signed out meanwhile: the page's own address says where to sign in.
      else if (answer.type === "opaqueredirect" || answer.status === 401 || answer.status === 403) location.reload();
    } catch {
      // The stream says soon that the connection is broken.
    }
    busy = false;
    if (again) setTimeout(refresh, 500);
  };
  document.addEventListener("visibilitychange", () => !document.hidden && again && refresh());
  if (every > 0) setInterval(refresh, every);
  if (!address || !window.EventSource) return;
  let source;
  const open = () => {
    source = new EventSource(address);
    source.addEventListener("open", () => say("live", "Live"));
    source.addEventListener("overview", refresh);
    source.addEventListener("error", () => {
      say("offline", "Connection lost");
      // An answer that isn't a stream ends it for good.
      if (source.readyState === EventSource.CLOSED) setTimeout(open, 10000);
    });
  };
  say("connecting", "Connecting");
  open();
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", event => event.persisted && open());
})();
