(() => {
  const root = document.documentElement;
  const address = () => location.pathname + location.search;
  const hydrated = () => root.hasAttribute("data-hydrated");
  const storage = f => { try { return f(sessionStorage); } catch { return null; } };
  const since = key => Date.now() - Number(storage(s => s.getItem(key)) ?? 0);
  const note = key => storage(s => s.setItem(key, Date.now()));

  // The page as it works without JavaScript, with a word on why.
  let isPlain = false;
  const plain = () => {
    if (isPlain) return;
    isPlain = true;
    delete root.dataset.scripts;
    if (root.dataset.address !== address()) return location.reload();
    const why = document.createElement("p");
    why.className = "notice";
    why.dataset.testid = "not-live";
    why.textContent = "This page doesn't update by itself here: this browser, or something in it, keeps the page's app from running.";
    document.querySelector("main")?.prepend(why);
    document.querySelectorAll("noscript").forEach(e => (e.outerHTML = e.textContent));
  };
  const failed = error => {
    if (!hydrated()) return setTimeout(() => hydrated() || plain(), 3000);
    if (!(error instanceof WebAssembly.RuntimeError)) return;
    // The page is loaded again once. If the app crashes again within a minute, it isn't started for ten.
    const again = since("hark-crashed") < 60000;
    note(again ? "hark-plain" : "hark-crashed");
    setTimeout(() => (again ? plain() : location.reload()), 3000);
  };
  root.dataset.address = address();
  // What only scripts can unfold is folded only where they run, and from the first paint on.
  root.dataset.scripts = "";
  addEventListener("error", event => failed(event.error));
  addEventListener("unhandledrejection", event => failed(event.reason));
  setTimeout(() => hydrated() || plain(), 60000);

  // What translators and extensions do to the page before the app takes it over: then its nodes aren't those that the app
  // expects. What they append to the page is no matter.
  let altered = false;
  const watch = records => {
    altered ||= records.some(r => r.target !== document.body || r.removedNodes.length || [...r.addedNodes].some(n => n.nextSibling));
  };
  const before = new MutationObserver(watch);
  document.addEventListener("readystatechange", () => {
    if (document.readyState === "interactive") before.observe(document.body, { childList: true, subtree: true });
  });

  // What they do afterwards: the app finds places by its comments, so those that go alone are put back. It never removes only
  // a comment itself.
  const restore = records => {
    const changed = new Set(), lost = [];
    for (const record of records) {
      if ([...record.addedNodes, ...record.removedNodes].some(n => n.nodeType !== Node.COMMENT_NODE)) changed.add(record.target);
      else if (record.addedNodes.length) changed.add(record.target);
      else for (const node of record.removedNodes) lost.push([node, record]);
    }
    for (const [node, { target, nextSibling, previousSibling }] of lost.reverse()) {
      if (node.parentNode || changed.has(target)) continue;
      const next = nextSibling?.parentNode === target ? nextSibling : previousSibling?.parentNode === target ? previousSibling.nextSibling : null;
      target.insertBefore(node, next);
    }
  };

  // Asked by the app when it starts: whether it can take over the nodes, must make its own, or has crashed before.
  window.harkStart = () => {
    watch(before.takeRecords());
    before.disconnect();
    if (isPlain || since("hark-plain") < 600000) return plain(), "stay";
    new MutationObserver(restore).observe(document.body, { childList: true, subtree: true });
    const comments = document.createTreeWalker(document.body, NodeFilter.SHOW_COMMENT).nextNode();
    return altered || !comments ? "anew" : "hydrate";
  };
})();
