// The frame around all pages: which one is shown, the health, and keys.

import { get, repeat } from "./api.js";
import { h, plain, setText } from "./dom.js";
import { duration } from "./format.js";
import { alertsPage } from "./alerts.js";
import { askPage } from "./ask.js";
import { devicePage } from "./device.js";
import { devicesPage } from "./devices.js";
import { overviewPage } from "./overview.js";
import { plotPage } from "./plot.js";
import { tailPage } from "./tail.js";

const PAGES = {
  "": overviewPage,
  devices: devicesPage,
  device: devicePage,
  plot: plotPage,
  tail: tailPage,
  ask: askPage,
  alerts: alertsPage,
};
const view = document.getElementById("view");
const listeners = new Set();
let leave = () => {};
let latest = null;
let shown = "";
let title = "";

export function onStatus(listener) {
  listeners.add(listener);
  if (latest !== null) listener(latest);
  return () => listeners.delete(listener);
}

function show() {
  leave();
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/").map(decoded);
  const page = PAGES[name] ?? overviewPage;
  view.replaceChildren();
  const stop = page(view, { name: rest.join("/"), query: new URLSearchParams(query), onStatus });
  leave = typeof stop === "function" ? stop : () => {};
  shown = name === "device" ? "devices" : name || "overview";
  markPage();
  title = `${plain(rest[0] ?? (name || "overview"))} · ingest`;
  showTitle();
  window.scrollTo(0, 0);
}

// The name of its tab says whether all is well, too.
function showTitle() {
  document.title = latest !== null && latest.health !== "ok" ? `✕ ${title}` : title;
}

function markPage() {
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === shown) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function decoded(part) {
  try { return decodeURIComponent(part); } catch { return part; }
}

const GLYPHS = { ok: "●", down: "✕" };

function showHealth(status) {
  const badge = document.getElementById("health");
  badge.className = `badge ${status.health === "ok" ? "good" : "bad"}`;
  badge.title = status.reason || "all is well";
  badge.replaceChildren(
    h("span", { class: "glyph", "aria-hidden": "true" }, GLYPHS[status.health] ?? "▲"),
    h("span", {}, plain(status.health)));
  const banner = document.getElementById("banner");
  banner.hidden = status.health === "ok";
  setText(banner, status.health === "ok" ? "" : sentence(status));
  showFollowing(status.watcher);
}

function sentence(status) {
  if (status.unreachable) return `${status.reason}. What is shown may be old.`;
  if (status.health === "down") return `The listener is down: ${status.reason}`;
  return `${status.health}: ${status.reason}`;
}

function showFollowing(watcher) {
  const parts = [];
  if (watcher) {
    parts.push(watcher.behind > 3 ? `${duration(watcher.behind)} behind the log` : "follows the log");
    if (watcher.stride > 1) parts.push(`curves have one in ${watcher.stride} lines`);
    parts.push(`curves of ${watcher.width} s`);
  }
  setText(document.getElementById("follow"), parts.join(" · "));
}

async function look(signal) {
  let status;
  try {
    status = await get("status", {}, signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    status = { ...(latest ?? { states: {}, watcher: null }), health: "down", reason: error.message,
      listener: null, unreachable: true };
  }
  if (status.alerts !== null && status.alerts !== undefined) addAlerts(status.alerts);
  latest = status;
  showTitle();
  showHealth(status);
  for (const listener of listeners) listener(status);
}

function addAlerts(firing) {
  let link = document.querySelector("nav a[data-page=alerts]");
  if (!link) {
    link = h("a", { href: "#/alerts", "data-page": "alerts" });
    document.querySelector("nav").append(link);
    markPage();
  }
  setText(link, firing ? `Alerts (${firing})` : "Alerts");
}

// Light, dark, or as the system has it.
const THEMES = ["system", "light", "dark"];
const button = document.getElementById("theme");

function theme() {
  return document.documentElement.dataset.theme ?? "system";
}

function showTheme() {
  const name = theme();
  button.replaceChildren(
    h("span", { "aria-hidden": "true" }, { system: "◐", light: "○", dark: "●" }[name]),
    h("span", { class: "hidden" }, `Theme: ${name}`));
  document.dispatchEvent(new Event("theme"));
}

button.addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
  if (next === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try { localStorage.setItem("ingest-theme", next); } catch { /* storage may be forbidden */ }
  showTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);

const KEYS = { 1: "#/", 2: "#/devices", 3: "#/plot", 4: "#/tail", 5: "#/ask", 6: "#/alerts" };

document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (KEYS[event.key]) location.hash = KEYS[event.key];
  if (event.key === "/") {
    event.preventDefault();
    const field = view.querySelector("input[type=search]");
    if (field) field.focus();
    else { location.hash = "#/devices"; setTimeout(() => view.querySelector("input[type=search]")?.focus()); }
  }
});

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is the page's own
  view.focus();
});
addEventListener("hashchange", show);
showTheme();
show();
repeat(2, look);
