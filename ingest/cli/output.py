"""What the commands write: no failure of standard output goes unsaid, nothing steers a terminal."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

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
        except BrokenPipeError:
            raise  # the reader has gone: click ends quietly, as in `ingest device list | head`
        except OSError as error:
            # What is still buffered must not fail again when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
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


def printable(text: str) -> str:
    """Escape what could move the cursor of a terminal or turn the direction of its text.

    Those are the control characters (C0, DEL, C1), U+2028 and U+2029, and marks of direction.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
