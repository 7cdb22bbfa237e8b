// Lines of the log, live. Scrolling up stops them; nothing is lost when they go on, because the
// place behind the last line that was shown is where reading goes on.

import { address } from "./api.js";
import { h, plain, setText } from "./dom.js";
import { clocks } from "./format.js";

const KEPT = 3000; // lines on the page
const NEAR = 24; // pixels from the end that count as the end

export class Lines {
  constructor({ device = "", grep = "", short = false }) {
    this.asked = { device, grep };
    this.short = short;
    this.place = null;
    this.source = null;
    this.following = true;
    this.list = h("ol", { class: `lines ${short ? "short" : ""}`, tabindex: 0, role: "log", "aria-live": "off",
      "aria-label": "Lines of the log", onscroll: () => this.scrolled() });
    this.state = h("span", { role: "status" });
    this.button = h("button", { type: "button", onclick: () => this.toggle() }, "Stop");
    this.element = h("div", { class: "tail" }, this.list,
      h("div", { class: "tailbar" }, this.button, " ", this.state));
    this.seen = () => (document.hidden ? this.close() : this.following && this.open());
    document.addEventListener("visibilitychange", this.seen);
    this.open();
  }

  ask(asked) {
    this.close();
    this.asked = { ...this.asked, ...asked };
    this.place = null;
    this.list.replaceChildren();
    this.following = true;
    this.open();
  }

  open() {
    if (this.source) return;
    const parameters = { ...this.asked, ...(this.place ? { after: this.place } : {}) };
    if (this.short) parameters.last = 50;
    this.source = new EventSource(address("tail", parameters));
    this.source.addEventListener("lines", (event) => this.came(event));
    this.source.addEventListener("missing", (event) => {
      this.place = event.lastEventId;
      this.add([h("li", { class: "gap" }, plain(JSON.parse(event.data)))]);
    });
    this.source.addEventListener("trouble", (event) => this.say(plain(JSON.parse(event.data))));
    this.source.addEventListener("open", () => this.live());
    this.source.addEventListener("error", () => {
      this.say("no connection; it is tried again");
      // A browser gives up after an answer that is no stream: a proxy's, while we restart.
      if (this.source?.readyState === EventSource.CLOSED) {
        this.close();
        setTimeout(() => this.following && !document.hidden && this.list.isConnected && this.open(), 2000);
      }
    });
    setText(this.button, "Stop");
  }

  close() {
    this.source?.close();
    this.source = null;
  }

  came(event) {
    this.place = event.lastEventId;
    const lines = JSON.parse(event.data);
    this.add(lines.slice(-KEPT).map(row));
    this.live();
  }

  live() {
    this.say(this.list.childElementCount ? "live" : "live; no line yet");
  }

  add(rows) {
    this.list.append(...rows);
    while (this.list.childElementCount > KEPT) this.list.firstElementChild.remove();
    if (this.following) this.toEnd();
  }

  toEnd() {
    this.list.scrollTop = this.list.scrollHeight;
  }

  atEnd() {
    return this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < NEAR;
  }

  scrolled() {
    const atEnd = this.atEnd();
    if (atEnd === this.following) return;
    if (atEnd) this.go();
    else this.halt();
  }

  toggle() {
    if (this.following) this.halt();
    else { this.toEnd(); this.go(); }
  }

  halt() {
    this.following = false;
    this.close();
    setText(this.button, "Go on");
    this.say("stopped; nothing is lost, it goes on from here");
  }

  go() {
    this.following = true;
    this.open();
  }

  say(text) {
    setText(this.state, text);
  }

  destroy() {
    document.removeEventListener("visibilitychange", this.seen);
    this.close();
  }
}

const HEAD = /^\{"time":"([^"]{27})","device":"([^"]+)","seq":([0-9]+),(.*)\}$/s;

function row(line) {
  const found = HEAD.exec(line);
  if (!found) return h("li", {}, plain(line));
  const [, time, device, number, rest] = found;
  return h("li", {}, h("time", { datetime: time, title: `${time}\n${clocks(Date.parse(time) / 1000)}` }, time.slice(11, 23)), " ",
    h("a", { href: `#/device/${encodeURIComponent(device)}` }, device), " ",
    h("span", { class: "no" }, number), " ", h("span", { class: "rest" }, plain(rest)));
}
