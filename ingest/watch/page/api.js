// The JSON API (API.md). Addresses are below the page's own, whatever path a proxy gives it.

// `details`: what else the answer says, such as where in a query the mistake is.
export class ApiError extends Error {
  constructor(message, details = {}) {
    super(message);
    this.details = details;
  }
}

export async function get(path, parameters = {}, signal = undefined) {
  return answer(await reach(address(path, parameters), { signal }));
}

export async function post(path, value = null, signal = undefined) {
  const headers = { "X-Ingest": "page", ...(value ? { "Content-Type": "application/json" } : {}) };
  const body = value ? JSON.stringify(value) : undefined;
  return answer(await reach(address(path), { method: "POST", headers, body, signal }));
}

export function address(path, parameters = {}) {
  const query = parameters instanceof URLSearchParams ? parameters : new URLSearchParams(parameters);
  const text = query.toString();
  // Not relative: with a name and a password in the page's address no browser would fetch them.
  return new URL(`api/${path}${text ? `?${text}` : ""}`, location.href).href;
}

async function reach(url, options) {
  try {
    return await fetch(url, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("ingest-watch, which makes this page, does not answer");
  }
}

async function answer(response) {
  let value = null;
  try { value = await response.json(); } catch { /* not ours: a proxy's */ }
  if (!response.ok) throw new ApiError(value?.error ?? `the answer is ${response.status}`, value ?? {});
  return value;
}

// Calls `work` now and every `seconds`, while the page can be seen; returns what stops it.
export function repeat(seconds, work) {
  let timer = null;
  let stopped = false;
  const controller = new AbortController();
  const run = async () => {
    timer = null;
    if (!document.hidden) {
      try { await work(controller.signal); } catch (error) {
        if (error.name !== "AbortError") console.warn(error);
      }
    }
    if (!stopped) timer = setTimeout(run, seconds * 1000);
  };
  const seen = () => {
    if (!document.hidden && timer !== null) { clearTimeout(timer); run(); }
  };
  document.addEventListener("visibilitychange", seen);
  run();
  return () => {
    stopped = true;
    clearTimeout(timer);
    controller.abort();
    document.removeEventListener("visibilitychange", seen);
  };
}
