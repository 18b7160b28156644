// Live pages and keys. Without this script, every page can be read as it is.
"use strict";

const pulse = document.getElementById("pulse");
const before = new Map(); // the text of each part as it was read last: the page's own changes are not the server's

let reading = false;
let leaving = false; // a page that is left aborts what it reads
addEventListener("pagehide", () => (leaving = true));

async function read() {
  try {
    const answer = await fetch(location.href, { signal: AbortSignal.timeout(10000) });
    return answer.ok ? await answer.text() : null;
  } catch {
    return null;
  }
}

async function refresh() {
  if (document.hidden || reading) return;
  reading = true;
  const text = await read();
  reading = false;
  if (leaving) return;
  if (text === null) {
    pulse.textContent = "no connection, trying again";
    return;
  }
  const fresh = new DOMParser().parseFromString(text, "text/html");
  for (const part of fresh.querySelectorAll("[data-part]")) {
    const here = document.getElementById(part.id);
    if (!here || before.get(part.id) === part.innerHTML) continue;
    before.set(part.id, part.innerHTML);
    const holdsFocus = here.contains(document.activeElement);
    const address = holdsFocus ? document.activeElement.getAttribute("href") : null;
    here.replaceChildren(...part.childNodes);
    if (address) [...here.querySelectorAll("a")].find((link) => link.getAttribute("href") === address)?.focus();
  }
  const stillLive = fresh.body.hasAttribute("data-live");
  if (stillLive) {
    if (pulse.textContent.trim() !== "live") pulse.replaceChildren(...fresh.getElementById("pulse").childNodes);
  } else {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", refresh);
    pulse.textContent = "ended";
  }
}

let timer = 0;
if (document.body.hasAttribute("data-live")) {
  for (const part of document.querySelectorAll("[data-part]")) before.set(part.id, part.innerHTML);
  timer = setInterval(refresh, Number(document.body.dataset.live) * 1000);
  document.addEventListener("visibilitychange", refresh);
}

const help = document.getElementById("help");
document.getElementById("keys").addEventListener("click", () => help.showModal());

// People who dictate to their computer must be able to switch keys of one character off. A browser may keep nothing.
const KEYS_OFF = "codealign-keys-off";
const singleKeys = document.getElementById("single-keys");
try {
  singleKeys.checked = localStorage.getItem(KEYS_OFF) === null;
} catch {}
singleKeys.addEventListener("change", () => {
  try {
    if (singleKeys.checked) localStorage.removeItem(KEYS_OFF);
    else localStorage.setItem(KEYS_OFF, "1");
  } catch {}
});

let leader = false; // "g" was pressed
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  if (event.target.closest('input:not([type="checkbox"]), select, textarea')) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (!singleKeys.checked) return;
  const waited = leader;
  leader = false;
  if (waited) {
    document.querySelector(`[data-key="${CSS.escape(event.key)}"]`)?.click();
    return;
  }
  if (event.key === "g") leader = true;
  else if (event.key === "?") help.showModal();
  else if (event.key === "n") document.querySelector('a[rel="next"]')?.click();
  else if (event.key === "/") {
    const search = document.querySelector('input[type="search"], .filters input:not([type="hidden"])');
    if (search) {
      event.preventDefault();
      search.focus();
    }
  } else if (event.key === "j" || event.key === "k") {
    const links = [...document.querySelectorAll(".to")];
    const at = links.indexOf(document.activeElement);
    const next = links[at < 0 ? 0 : at + (event.key === "j" ? 1 : -1)];
    next?.focus();
  }
});
