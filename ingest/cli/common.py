"""What several commands share: how options are read, and what an extra is needed for."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from importlib.util import find_spec
from typing import ParamSpec, TypeVar

import click

from ingest.units import parse_duration, parse_size
from ingest.watch.packages import PACKAGES as WATCH_PACKAGES

TIMES = "2026-11-22T11:39:00Z, 2026-11-22, a unix time, or 10m for ten minutes ago"
"""What `moment` reads, for the help of an option; UTC unless an offset is given."""

_UNIX_TIME = re.compile(r"[0-9]{10}(?:[0-9]{3}){0,3}(?:\.[0-9]{1,9})?")
"""Since 1970: ten digits of seconds, or as many more for milli-, micro- and nanoseconds."""

P = ParamSpec("P")
R = TypeVar("R")


def has_watch_packages() -> bool:
    """Tell whether the extra `watch` is installed."""
    return all(map(find_spec, WATCH_PACKAGES))


def moment(_ctx: click.Context, _param: click.Parameter, text: str | None) -> datetime | None:
    """Read an RFC 3339 time, a date, a unix time, or a duration before now.

    Without an offset it is UTC.
    """
    try:
        return None if text is None else _moment(text)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{text!r} is not a time; write {TIMES}") from error


def _moment(text: str) -> datetime:
    if _UNIX_TIME.fullmatch(text):
        whole = len(text.partition(".")[0])
        return datetime.fromtimestamp(float(text) / 10 ** (whole - 10), UTC)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)


def to_seconds(text: str) -> float:
    """Read a duration, in seconds; the type of an option."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def to_size(_ctx: click.Context, _param: click.Parameter, text: str) -> int:
    """Read a size."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def needs_watch(command: Callable[P, R]) -> Callable[P, R]:
    """Let a command say in one line what is to be installed, if the extra `watch` is not."""

    @wraps(command)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if not has_watch_packages():
            raise click.ClickException(
                "this command needs more packages: pip install 'ingest[watch]'"
            )
        return command(*args, **kwargs)

    return checked
