"""The control socket, over a real Unix socket."""

import json
import shutil
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from ingest.ops.control import (
    CONNECTIONS,
    Command,
    ControlError,
    ControlSocket,
    ask,
    ask_patiently,
)
from tests.support.waiting import PATIENCE

reactor: Any = global_reactor


def refuse() -> object:
    raise ValueError("not today")


COMMANDS = {
    "add": lambda: 1 + 1,
    "wait": lambda: Deferred.fromCoroutine(_later()),
    "never": Deferred,
    "refuse": refuse,
    "unspeakable": object,
}


async def _later() -> str:
    waiting: Deferred[str] = Deferred()
    reactor.callLater(0, waiting.callback, "later")
    return await waiting


class ControlTests(TestCase):
    """Every answer comes, whatever the question."""

    def setUp(self) -> None:
        # Deeper than the 108 bytes of a socket's name (unix(7)).
        top = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, top)
        folder = top / ("x" * 100) / ("y" * 100)
        folder.mkdir(parents=True)
        self.path = folder / "control.sock"
        self.control = ControlSocket(reactor, self.path, COMMANDS)
        self.addCleanup(self.control.stop)

    def ask(self, command: str) -> Deferred[Any]:
        return deferToThread(ask, self.path, command)

    def test_an_answer(self) -> Deferred[Any]:
        return self.ask("add").addCallback(self.assertEqual, 2)

    def test_an_answer_that_comes_later(self) -> Deferred[Any]:
        return self.ask("wait").addCallback(self.assertEqual, "later")

    def test_a_command_that_fails(self) -> Deferred[Any]:
        return self.assertFailure(self.ask("refuse"), ControlError).addCallback(
            lambda error: self.assertEqual(str(error), "not today")
        )

    def test_an_answer_that_json_can_not_hold(self) -> Deferred[Any]:
        return self.assertFailure(self.ask("unspeakable"), ControlError).addCallback(
            lambda error: self.assertIn("not JSON serializable", str(error))
        )

    def test_an_unknown_command(self) -> Deferred[Any]:
        return self.assertFailure(self.ask("dance"), ControlError).addCallback(
            lambda error: self.assertEqual(str(error), "unknown command")
        )

    def test_a_command_that_waits_for_the_disk(self) -> Deferred[Any]:
        """The listener is well: nobody is told to restart it."""

        def patiently() -> object:
            return ask_patiently(
                self.path,
                "never",
                lambda: said.append("waiting"),
                soon=0.1,
                timeout=0.1,
                then="comes",
            )

        said: list[str] = []
        return self.assertFailure(deferToThread(patiently), ControlError).addCallback(
            lambda error: self.assertEqual(
                (said, str(error)),
                (
                    ["waiting"],
                    "the listener's disk still takes nothing after 0.1 s: `ingest status` says why;"
                    " never comes",
                ),
            )
        )

    def test_questions_that_are_none(self) -> Deferred[Any]:
        def talk() -> list[Any]:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(f"/proc/self/fd/{self.control._folder}/control.sock")
                connection.sendall(b'hello\n[]\n{}\n{"command":[]}\n{"command":"add"}\n')
                with connection.makefile("rb") as lines:
                    return [json.loads(lines.readline()) for _ in range(5)]

        unknown = {"error": "unknown command"}
        return deferToThread(talk).addCallback(self.assertEqual, [unknown] * 4 + [{"ok": 2}])

    def test_those_that_say_nothing_keep_nobody_out(self) -> Deferred[Any]:
        def crowd() -> object:
            with ExitStack() as stack:
                for _ in range(3 * CONNECTIONS):
                    silent = stack.enter_context(socket.socket(socket.AF_UNIX))
                    silent.connect(f"/proc/self/fd/{self.control._folder}/control.sock")
                    held.append(silent)
                assert ask(self.path, "add") == 2
                held[0].settimeout(PATIENCE)
                return held[0].recv(1)  # until it is cut

        held: list[socket.socket] = []
        return deferToThread(crowd).addCallback(self.assertEqual, b"")

    def test_only_the_owner_may_ask(self) -> None:
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_a_socket_that_a_crash_left(self) -> Deferred[Any]:
        async def start_over() -> None:
            left = self.path.with_name("left.sock")
            left.touch()
            control = ControlSocket(reactor, left, COMMANDS)
            self.assertEqual(await deferToThread(ask, left, "add"), 2)
            await control.stop()
            self.assertFalse(left.exists())

        return ensureDeferred(start_over())

    def test_what_nobody_waits_for_is_given_up(self) -> Deferred[Any]:
        given_up: Deferred[None] = Deferred()

        async def ask_and_go() -> None:
            path = self.path.with_name("left.sock")
            commands: dict[str, Command] = {
                "hold": lambda: Deferred(lambda _: given_up.callback(None))
            }
            control = ControlSocket(reactor, path, commands)
            with pytest.raises(ControlError, match="does not answer"):
                await deferToThread(ask, path, "hold", 0.01)
            await given_up
            await control.stop()

        return ensureDeferred(ask_and_go())

    def test_a_socket_that_somebody_removed(self) -> Deferred[Any]:
        async def stop() -> None:
            removed = self.path.with_name("removed.sock")
            control = ControlSocket(reactor, removed, COMMANDS)
            removed.unlink()
            await control.stop()

        return ensureDeferred(stop())


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match=r"no listener answers at .*control\.sock: none runs"):
        ask(tmp_path / "control.sock", "status")
    with pytest.raises(ControlError, match="no listener answers"):
        ask(tmp_path / "missing" / "control.sock", "status")
