// The service worker of the installed app, which every page starts. It keeps two things: the app's files, whose names have a hash
// of their content, and the page that is shown when the server can't be reached. Everything else goes to the server as if it
// weren't there: what is live, what belongs to somebody, what is sent, and each page, so that nobody is shown an old one.

// Another number makes all that was kept before go.
const CACHE = "hark-1";
const OFFLINE = "/offline.html";
const HASHED = /^\/pkg\/([^/.]+)\.[^/.]+\.(js|wasm|css)$/;

self.addEventListener("install", event => {
  self.skipWaiting();
  const page = new Request(OFFLINE, { cache: "reload" });
  event.waitUntil(caches.open(CACHE).then(cache => cache.add(page)));
});

self.addEventListener("activate", event => {
  const activate = async () => {
    const old = (await caches.keys()).filter(name => name.startsWith("hark-") && name !== CACHE);
    await Promise.all(old.map(name => caches.delete(name)));
    // The browser asks for a page while this starts.
    await self.registration.navigationPreload?.enable();
    await self.clients.claim();
  };
  event.waitUntil(activate());
});

// Keeps a file, and drops the same file of another release.
const keep = async (cache, address, response) => {
  await cache.put(address, response);
  const [, name, kind] = HASHED.exec(new URL(address).pathname);
  for (const { url } of await cache.keys()) {
    const known = HASHED.exec(new URL(url).pathname);
    if (known && known[1] === name && known[2] === kind && url !== address) await cache.delete(url);
  }
};

const file = async event => {
  const address = event.request.url;
  const cache = await caches.open(CACHE);
  const known = await cache.match(address, { ignoreVary: true });
  if (known) return known;
  const response = await fetch(event.request);
  // Where there is no room, the file comes from the server each time.
  if (response.status === 200) event.waitUntil(keep(cache, address, response.clone()).catch(() => {}));
  return response;
};

const page = async event => {
  try {
    return (await event.preloadResponse) ?? (await fetch(event.request));
  } catch {
    return (await caches.match(OFFLINE)) ?? Response.error();
  }
};

self.addEventListener("fetch", event => {
  const { request } = event;
  const { origin, pathname, search } = new URL(request.url);
  if (request.method !== "GET" || origin !== location.origin) return;
  if (HASHED.test(pathname) && !search) event.respondWith(file(event));
  // Downloads are no pages.
  else if (request.mode === "navigate" && !pathname.startsWith("/api/")) event.respondWith(page(event));
});
