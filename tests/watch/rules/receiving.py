"""Receivers and watchers that tests start, and stop at the end."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, Self

from ingest.layout import Layout
from ingest.record import Values, record_block, record_time
from tests.support.processes import ROOT, Program
from tests.support.waiting import PATIENCE, wait_for


class Hook:
    """A receiver of webhooks.

    Attributes:
        got: what came: the key and the body of each request.
        answer: the code that is answered; None to hang.
        on_request: is called before the answer.
    """

    def __init__(self, port: int = 0) -> None:
        self.got: list[tuple[str, dict[str, Any]]] = []
        self.answer: int | None = 204
        self.on_request: Callable[[], object] = lambda: None
        self._closing = Event()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.got.append((self.headers.get("Idempotency-Key", ""), body))
                hook.on_request()
                if hook.answer is None:
                    hook._closing.wait(PATIENCE)
                    return
                with suppress(OSError):
                    self.send_response(hook.answer)
                    self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def states(self) -> list[tuple[str, str]]:
        """The device and the state of what came, repetitions left out."""
        once = {key: (body["device"], body["state"]) for key, body in self.got}
        return list(once.values())


class Device:
    """Devices whose records stand in the log as of now."""

    def __init__(self, layout: Layout) -> None:
        self._path = layout.log_folder / "ingest.log"
        self._numbers: dict[str, int] = {}

    def send(self, text: str, device: str = "a") -> None:
        number = self._numbers[device] = self._numbers.get(device, 0) + 1
        values = Values(b',"text":', [json.dumps(text).encode()], b"}\n")
        now = record_time(datetime.now(UTC))
        with self._path.open("ab") as stream:
            stream.write(record_block(now, device.encode(), number, values))


class Watcher(Program):
    """A process that runs rules."""

    exit_status = 0
    alarming = ()  # that a receiver fails is told with its traceback

    def __init__(self, layout: Layout, text: str, *pauses: str) -> None:
        """Describe it; entering its block, or `start`, runs it.

        Args:
            layout: the data folder.
            text: the rules.
            pauses: those that are shorter than usual; see `tests.support.hurried`.
        """
        self.layout = layout
        self.rules = layout.data / "rules.toml"
        self.rules.write_text(text)
        self._view = layout.data / "view.json"
        module = "tests.watch.rules.watcher"
        command = [sys.executable, "-m", module, str(layout.data), str(self.rules), *pauses]
        super().__init__(command, layout.data / "errors", cwd=ROOT)

    def launch(self) -> None:
        """Start the process; what an older one showed is gone."""
        self._view.unlink(missing_ok=True)
        super().launch()

    def _is_ready(self) -> bool:
        """Tell whether it follows the log."""
        assert self.process.poll() is None, self.output
        return self._view.exists()

    def shows(self, what: str) -> Any:
        """Return what it shows at the moment."""
        return json.loads(self._view.read_text())[what]

    def reload(self, text: str) -> None:
        """Give it other rules."""
        self.rules.write_text(text)
        self.process.send_signal(signal.SIGHUP)


@contextmanager
def program(*command: str, ready: Callable[[], bool] | None = None) -> Iterator[Any]:
    """Run a server; yields its standard output when it is ready."""
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            if ready is not None:
                wait_for(
                    lambda: process.poll() is not None or ready(), f"the start of {command[0]}"
                )
                assert process.poll() is None, command
            yield process.stdout
        finally:
            process.kill()
