"""What commands write: standard output that may fail, and text that a terminal must not act on."""

import os
import sys
from collections.abc import Iterable
from typing import NoReturn

import click

from ingest.log.files import LeftOut


class Output:
    """Standard output, as bytes.

    That it is full or closed ends the command with one line, and that nobody reads it any more
    without a word; neither looks like a failure of what the command reads.
    """

    def __init__(self) -> None:
        # Python has no stdout where the shell has closed it: `ingest tail >&-`.
        if sys.stdout is None:
            raise click.ClickException("can't write to standard output: it is closed")
        self._stream = sys.stdout.buffer
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
