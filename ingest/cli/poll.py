"""`ingest poll`: ask a device that only answers, once."""

import re
import socket
import sys
import time
from base64 import b64decode
from binascii import Error as Base64Error

import click

from ingest.cli.common import to_seconds
from ingest.cli.output import Output, printable
from ingest.wire.errors import PeerError
from ingest.wire.poll import Ending, Replies

_ADDRESS = re.compile(r"(?:\[([^\]]+)\]|([^:\[\]]+)):([0-9]{1,5})")
_ESCAPE = re.compile(rb"\\(x[0-9A-Fa-f]{2}|.?)", re.DOTALL)
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}
_BY_DEFAULT = Ending(silence=0.5)
_LIMIT = 1 << 20  # bytes of an answer
_SHOWN = 60  # bytes of one that is not whole: they tell how it should have ended


def _address(text: str) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match[3]) < 65536:
        raise click.BadParameter(f"{text!r} is not HOST:PORT, such as 192.168.1.100:12345")
    return match[1] or match[2], int(match[3])


def unescape(text: str) -> bytes:
    r"""Read what a shell leaves in quotes: `\n`, `\r`, `\t`, `\0`, `\\` and `\x1f`.

    Raises:
        click.BadParameter: a backslash has anything else behind it.
    """

    def read(match: "re.Match[bytes]") -> bytes:
        word = match[1]
        if word.startswith(b"x") and len(word) == 3:
            return bytes.fromhex(word[1:].decode())
        if word not in _ESCAPES:
            raise click.BadParameter(rf"{text!r}: \n, \r, \t, \0, \\ and \x1f are understood")
        return _ESCAPES[word]

    return _ESCAPE.sub(read, text.encode("utf-8", "surrogateescape"))


def _base64(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except Base64Error:
        raise click.BadParameter(f"{text!r} is not base64") from None


def _duration(text: str) -> float:
    seconds = to_seconds(text)
    if not seconds:
        raise click.BadParameter("it has to be longer than nothing")
    return seconds


@click.command()
@click.argument("address", metavar="HOST:PORT", type=_address)
@click.option(
    "--send",
    type=unescape,
    metavar="TEXT",
    help=r"What to ask; \n, \r, \t, \0, \\ and \x1f are understood.",
)
@click.option("--send-base64", type=_base64, metavar="BASE64", help="The same in base64.")
@click.option("--until", type=unescape, metavar="TEXT", help=r"The answer ends before this: '\n'.")
@click.option(
    "--length",
    type=click.IntRange(min=1),
    metavar="BYTES",
    help="The answer has so many bytes.",
)
@click.option(
    "--silence",
    type=_duration,
    metavar="DURATION",
    help="It ends when nothing came for so long: 200ms, 1s.",
)
@click.option("--close", is_flag=True, help="It ends when the device closes the connection.")
@click.option(
    "--timeout",
    type=_duration,
    default="5s",
    metavar="DURATION",
    show_default=True,
    help="How long the connection may take, and then the answer.",
)
def poll(
    address: tuple[str, int],
    send: bytes | None,
    send_base64: bytes | None,
    until: bytes | None,
    length: int | None,
    silence: float | None,
    close: bool,
    timeout: float,
) -> None:
    """Ask a device that only answers, once, and print its answer.

    It needs no listener: it is to find out what a table [[dial]] of its settings should say. Where
    nothing says how the answer ends, it ends with the connection or after 0.5 s of silence.

    \b
    Example:
      ingest poll 192.168.1.100:12345 --send 'Hello, IoT!' --until '\\n'
    """
    if send is not None and send_base64 is not None:
        raise click.UsageError("--send and --send-base64 are two ways to say the same")
    ending = _ending(until, length, silence, close)
    answer = _ask(address, send or send_base64 or b"", ending, timeout)
    out = Output()
    if sys.stdout.isatty():
        answer = printable(answer.decode(errors="backslashreplace")).encode()
    # An answer of a certain length is printed to the byte.
    is_whole = ending.length or answer.endswith(b"\n")
    out.write(answer if is_whole else answer + b"\n")
    out.flush()


def _ending(until: bytes | None, length: int | None, silence: float | None, close: bool) -> Ending:
    given = (until is not None) + (length is not None) + (silence is not None) + close
    if given > 1:
        raise click.UsageError("one of --until, --length, --silence and --close says how it ends")
    if until == b"":
        raise click.UsageError("--until wants some text")
    if not given:
        return _BY_DEFAULT
    return Ending(until or b"", length or 0, silence or 0.0)


def _ask(address: tuple[str, int], send: bytes, ending: Ending, timeout: float) -> bytes:
    host, port = address
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        with socket.create_connection(address, timeout) as device:
            device.sendall(send)
            return _answer(device, ending, timeout, where)
    except TimeoutError:
        raise click.ClickException(f"no connection to {where} within {timeout:g} s") from None
    except PeerError as error:
        raise click.ClickException(f"{where} answers with {error.text}") from None
    except OSError as error:
        raise click.ClickException(f"{where}: {error.strerror or error}") from None


def _answer(device: socket.socket, ending: Ending, timeout: float, where: str) -> bytes:
    replies = Replies(ending, _LIMIT)
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        is_silent = ending.silence and len(replies)
        device.settimeout(ending.silence if is_silent else left)
        try:
            data = device.recv(1 << 16)
        except TimeoutError:
            if is_silent:
                return replies.end()[0]
            break
        found = replies.take(data) if data else replies.end()
        if found:
            return found[0]
        if not data:
            raise click.ClickException(
                f"{where} closed the connection without a whole answer; {_what_came(replies)}"
            )
    raise click.ClickException(
        f"{where} is connected, but sent no whole answer within {timeout:g} s;"
        f" {_what_came(replies)}"
    )


def _what_came(replies: Replies) -> str:
    end = f", at the end {replies.rest[-_SHOWN:]!r}" if len(replies) else ""
    return f"{len(replies):,} bytes came{end}"
