(() => {
  const awake = () => document.documentElement.hasAttribute("data-hydrated");
  const plain = () => awake() || document.querySelectorAll("noscript").forEach(e => (e.outerHTML = e.textContent));
  const failed = error => {
    if (!awake()) setTimeout(plain, 3000);
    else if (error instanceof WebAssembly.RuntimeError) setTimeout(() => location.reload(), 3000);
  };
  addEventListener("error", event => failed(event.error));
  addEventListener("unhandledrejection", event => failed(event.reason));
  setTimeout(plain, 60000);
})();
