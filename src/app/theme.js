// The theme: the system's, or the one that was chosen in this browser. Run in the head of every page, before anything is painted.
// What belongs to one theme names it in `data-only`, and has a `media` that makes it apply. Also what the control does, wherever
// a page has one.
(() => {
  const KEY = "hark-theme";
  const root = document.documentElement;
  const storage = f => { try { return f(localStorage); } catch { return null; } };
  const stored = () => {
    const theme = storage(s => s.getItem(KEY));
    return theme === "light" || theme === "dark" ? theme : "system";
  };

  let theme;
  const show = () => {
    const control = document.getElementById("theme");
    if (control) control.value = theme;
  };
  const apply = next => {
    theme = next;
    root.dataset.theme = theme;
    for (const part of document.querySelectorAll("[data-only]")) {
      const only = part.dataset.only;
      // Nobody prints a dark page.
      const media = theme === "system" ? `(prefers-color-scheme: ${only})` : theme === only ? "screen" : "not all";
      part.setAttribute("media", media);
    }
    document.querySelector("meta[name=color-scheme]").content = theme === "system" ? "light dark" : theme;
    show();
  };
  apply(stored());

  document.addEventListener("DOMContentLoaded", show);
  // The app may have made its own nodes.
  new MutationObserver(show).observe(root, { attributeFilter: ["data-hydrated"] });
  document.addEventListener("change", event => {
    if (event.target.id !== "theme") return;
    const next = event.target.value;
    storage(s => (next === "system" ? s.removeItem(KEY) : s.setItem(KEY, next)));
    apply(next);
  });
  // Chosen in another tab, also while this page was in the back/forward cache.
  addEventListener("storage", event => {
    if (event.key === KEY || event.key === null) apply(stored());
  });
  addEventListener("pageshow", event => {
    if (event.persisted) apply(stored());
  });
})();
