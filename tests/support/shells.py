"""The client's two shells with the same methods, for one set of tests."""

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from ingest.client import AsyncClient
from tests.support.waiting import PATIENCE


class BlockingAsync:
    """An `AsyncClient` with the methods of `Client`; its loop runs in a thread."""

    def __init__(
        self,
        *arguments: Any,
        make_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
        **options: Any,
    ) -> None:
        self._client = AsyncClient(*arguments, **options)
        self._loop = make_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        self._call("__aenter__")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._loop.is_closed():
            return
        try:
            self._call("__aexit__", kind, error, traceback)
        finally:
            self._end()

    def __getattr__(self, name: str) -> Any:
        if name in ("send", "send_many", "wait", "connect", "reconnect", "ping"):
            return lambda *arguments, **options: self._call(name, *arguments, **options)
        return getattr(self._client, name)

    def close(self, timeout: float | None = None) -> None:
        try:
            self._call("close", timeout)
        finally:
            self._end()

    def abort(self) -> None:
        self._call("abort")
        self._end()

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        async def run() -> Any:
            result = getattr(self._client, name)(*arguments, **options)
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(PATIENCE)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()
