// The log of all devices, live, with filters.

import { h } from "./dom.js";
import { Lines } from "./lines.js";

export function tailPage(view, { query }) {
  const asked = { device: query.get("device") ?? "", grep: query.get("grep") ?? "" };
  let typing = null;
  const change = () => { clearTimeout(typing); typing = setTimeout(apply, 300); };
  const device = h("input", { type: "search", placeholder: "Device, such as sensor-*", value: asked.device,
    "aria-label": "Device", autocomplete: "off", spellcheck: "false", oninput: change });
  const grep = h("input", { type: "search", placeholder: "Text in the line", value: asked.grep,
    "aria-label": "Text", autocomplete: "off", spellcheck: "false", oninput: change });
  const lines = new Lines(asked);
  const apply = () => {
    const wanted = { device: device.value.trim(), grep: grep.value };
    const kept = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value));
    history.replaceState(null, "", `#/tail${kept.size ? `?${kept}` : ""}`);
    lines.ask(wanted);
  };
  view.append(h("h1", {}, "Tail"), h("div", { class: "filters" }, device, grep), lines.element);
  return () => { clearTimeout(typing); lines.destroy(); };
}
