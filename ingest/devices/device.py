"""A device as an operator sees it, and what its name and note may be."""

from dataclasses import dataclass

from ingest.names import FORMATS, RULE, is_device_name


class InvalidName(ValueError):  # noqa: N818
    """The name breaks the rule for device names."""


class InvalidFormat(ValueError):  # noqa: N818
    """There is no line format of that name."""


class InvalidNote(ValueError):  # noqa: N818
    """The note has control characters or is not text."""


@dataclass(frozen=True, slots=True)
class Device:
    """What an operator may know of a device.

    Attributes:
        name: see `ingest.names`.
        enabled: whether it may connect.
        created: when it was registered, RFC 3339 in UTC, to the second.
        note: the operator's, one line or empty.
        last_seen: when it last connected or sent, RFC 3339; None if never.
        last_peer: from where, `host:port`; None if never.
        line_format: what its lines of text are, one of `ingest.names.FORMATS`; None where that is
            left to its listener.
    """

    name: str
    enabled: bool
    created: str
    note: str
    last_seen: str | None
    last_peer: str | None
    line_format: str | None = None


def check_name(name: str) -> None:
    """Refuse what may not name a device.

    Raises:
        InvalidName: with the rule.
    """
    if not is_device_name(name):
        raise InvalidName(f"{name!r} is not a device name: {RULE}")


def check_new_name(name: str) -> None:
    """Refuse what may name a device but would be a nuisance for people.

    Devices that have such a name already keep it.

    Raises:
        InvalidName: with the reason.
    """
    check_name(name)
    if name.startswith("-"):
        raise InvalidName(f"{name!r} begins with -, so commands would take it for an option")
    if name in (".", ".."):
        raise InvalidName(f"{name!r} means a folder, so no file could be named after the device")


def check_note(note: str) -> None:
    """Refuse a note that would garble a terminal or a table: it is one line of text.

    Raises:
        InvalidNote: with the character.
    """
    for character in note:
        if character < " " or "\x7f" <= character <= "\x9f" or "\ud800" <= character <= "\udfff":
            raise InvalidNote(f"a note is one line of text without {character!r}")


def check_format(line_format: str) -> None:
    """Refuse what is no line format.

    Raises:
        InvalidFormat: with those that there are.
    """
    if line_format not in FORMATS:
        raise InvalidFormat(
            f"{line_format!r} is no format of lines; there are {', '.join(FORMATS)}"
        )
