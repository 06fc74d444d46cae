(() => {
  const root = document.documentElement;
  const address = () => location.pathname + location.search;
  const hydrated = () => root.hasAttribute("data-hydrated");
  const plain = () => {
    if (hydrated()) return;
    if (root.dataset.address !== address()) location.reload();
    document.querySelectorAll("noscript").forEach(e => (e.outerHTML = e.textContent));
  };
  const failed = error => {
    if (!hydrated()) setTimeout(plain, 3000);
    else if (error instanceof WebAssembly.RuntimeError) setTimeout(() => location.reload(), 3000);
  };
  root.dataset.address = address();
  addEventListener("error", event => failed(event.error));
  addEventListener("unhandledrejection", event => failed(event.reason));
  setTimeout(plain, 60000);
})();
