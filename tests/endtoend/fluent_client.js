// Pushes numbered events with one of Node's clients of Fluent Forward, each until it is acknowledged:
//   node fluent_client.js LIBRARY OPTIONS COUNT
// OPTIONS are those of the library, in JSON. It prints how many are acknowledged, now and then.

const [library, options, count] = [process.argv[2], JSON.parse(process.argv[3]), Number(process.argv[4])];
const WINDOW = 20; // events under way at once

function fluentOrgLogger() {
  const { FluentClient } = require("@fluent-org/logger");
  const client = new FluentClient("app", {
    ...options,
    ack: { ackTimeout: 1000 },
    milliseconds: true,
    socket: { ...options.socket, reconnect: { delay: 20, backoff: 1 } },
  });
  client.on?.("error", () => {});
  client.socketOn?.("error", () => {});
  return [(event) => client.emit("n", event), () => client.disconnect()];
}

function fluentLogger() {
  const quiet = { info() {}, error() {} };
  const sender = require("fluent-logger").createFluentSender("app", {
    ...options,
    requireAckResponse: true,
    ackResponseTimeout: 1000,
    reconnectInterval: 20,
    flushInterval: 1,
    internalLogger: quiet,
  });
  sender.on("error", () => {});
  const emit = (event) =>
    new Promise((resolve, reject) => sender.emit("n", event, (error) => (error ? reject(error) : resolve())));
  return [emit, () => sender.end()];
}

async function until(done) {
  for (;;) {
    try {
      return await done();
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

(async () => {
  const [emit, close] = library === "fluent-logger" ? fluentLogger() : fluentOrgLogger();
  for (let first = 0; first < count; first += WINDOW) {
    const numbers = Array.from({ length: Math.min(WINDOW, count - first) }, (_, index) => first + index);
    await Promise.all(numbers.map((n) => until(() => emit({ n }))));
    console.log(first + numbers.length);
  }
  await close();
})();
