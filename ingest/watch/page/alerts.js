// What fires, since when, and what it did.

import { get, repeat } from "./api.js";
import { h, plain } from "./dom.js";

export function alertsPage(view) {
  const list = h("ul", { class: "alerts" });
  view.append(h("h1", {}, "Alerts"), list);
  return repeat(5, async (signal) => {
    const { alerts } = await get("alerts", {}, signal);
    list.replaceChildren(...alerts.map((alert) =>
      h("li", {}, Object.entries(alert).map(([name, value]) =>
        h("div", {}, h("b", {}, `${plain(name)}: `),
          plain(typeof value === "object" ? JSON.stringify(value) : value))))));
    if (!alerts.length) list.append(h("li", {}, "Nothing fires."));
  });
}
