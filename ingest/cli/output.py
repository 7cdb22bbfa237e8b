"""What the commands write: no failure of standard output goes unsaid, nothing steers a terminal."""

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, NoReturn

import click

from ingest.log.listing import LeftOut
from ingest.ops.standard import keep_standard_streams

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STDOUT = 1


class OutputError(click.ClickException):
    """Standard output can't be written to. No OSError, so nobody takes it for one of the log."""


class _Stdout(io.FileIO):
    """The file under standard output, which fails once, by an OutputError, and is then silent."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            # What is still buffered must not fail again when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
            if isinstance(error, BrokenPipeError):
                raise  # the reader has gone: click ends quietly, as in `ingest device list | head`
            raise OutputError(f"can't write to standard output: {error.strerror}") from error


@contextmanager
def guarded_output() -> Iterator[None]:
    """Turn failures of standard output into one line on standard error and exit code 1.

    Raises:
        SystemExit: standard output is closed, or the last of what was written can't be.
    """
    before = sys.stdout
    if before is None:
        # The next file that is opened would become standard output.
        raise SystemExit("Error: standard output is closed; send it to /dev/null instead")
    keep_standard_streams()
    if sys.stdin is None:
        sys.stdin = open(0)  # noqa: SIM115 - for as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(2, "w")  # noqa: SIM115
    is_ours = before is sys.__stdout__
    if not is_ours:  # but that of a test
        yield
        return
    file = io.BufferedWriter(_Stdout(_STDOUT, "w", closefd=False))
    sys.stdout = io.TextIOWrapper(
        file,
        encoding=before.encoding,
        errors=before.errors,
        line_buffering=bool(before.line_buffering),
    )
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except OutputError as error:
            error.show()
            raise SystemExit(error.exit_code) from None
        except BrokenPipeError:
            raise SystemExit(1) from None


class Output:
    """Standard output, as bytes.

    That it is full or closed ends the command with one line, and that nobody reads it any more
    without a word; neither looks like a failure of what the command reads.
    """

    def __init__(self) -> None:
        # Python has no stdout where the shell has closed it: `ingest tail >&-`.
        if sys.stdout is None:
            raise click.ClickException("can't write to standard output: it is closed")
        self._stream: BinaryIO = sys.stdout.buffer
        if isinstance(getattr(self._stream, "raw", None), _Stdout):
            # A signal that comes within `_Stdout.write` would make it write the same bytes again.
            self._stream = io.BufferedWriter(io.FileIO(_STDOUT, "w", closefd=False))
        self.is_terminal = sys.stdout.isatty()

    def write(self, data: bytes) -> None:
        """Write `data`, perhaps a little later."""
        try:
            self._stream.write(data)
        except OSError as error:
            self._give_up(error)

    def flush(self) -> None:
        """Write what was not written yet."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> NoReturn:
        # What is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        if isinstance(error, BrokenPipeError):
            raise click.exceptions.Exit(0) from error
        raise click.ClickException(f"can't write to standard output: {error.strerror}") from error


def printable(text: str) -> str:
    r"""Escape what could move the cursor or turn text around on a terminal: `\x1b`, `\u202e`."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def printable_json(line: bytes) -> bytes:
    r"""Escape the same in a line of JSON, as JSON does: `\u001b`, `\u202e`.

    What is no UTF-8 is no JSON; it is shown as `\xff`.
    """
    text = line.decode(errors="backslashreplace")
    if text.isprintable():
        return text.encode()
    return "".join(char if char.isprintable() else _json_escape(char) for char in text).encode()


def warn_of_left_out(left_out: Iterable[LeftOut]) -> None:
    """Say on standard error which files of the log's folder are not read."""
    for path, why in left_out:
        click.echo(f"Warning: {printable(str(path))} is left out: {why}", err=True)


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
