"""The options of one `[[listen]]` table, as the protocol that is spoken there reads them.

options = Options({"shared-key": "s3cr3t", "port": 5})
options.secret("shared-key")  = "s3cr3t"
options.finish()              raises OptionError: there is no option 'port' here ...
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeAlias

from ingest.names import nearest
from ingest.units import parse_size

Network: TypeAlias = IPv4Network | IPv6Network


class OptionError(ValueError):
    """An option makes no sense; the text is one line that names it and says what would."""


class Options:
    """What the operator has set for one listener, each option read once by its name.

    A value is as TOML has it; on the command line all are strings. Whoever keeps the files reads
    those that options name: `shared-key-file` arrives here as `shared-key`.
    """

    def __init__(self, given: Mapping[str, object] | None = None) -> None:
        self._given = dict(given or {})
        self._known: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def text(self, name: str) -> str | None:
        """Return a string of at least one character; None where it is not set.

        Raises:
            OptionError: it is something else.
        """
        value = self._take(name)
        if value is None:
            return None
        if not isinstance(value, str) or not value:
            raise OptionError(f"{name}: a string is wanted")
        return value

    def choice(self, name: str, *words: str) -> str:
        """Return one of `words`; the first where it is not set.

        Raises:
            OptionError: it is something else.
        """
        value = self._take(name)
        if value is None:
            return words[0]
        if value not in words:
            raise OptionError(f"{name}: {value!r} is none of {', '.join(words)}")
        return str(value)

    def flag(self, name: str) -> bool:
        """Return true or false; false where it is not set.

        Raises:
            OptionError: it is something else.
        """
        value = self._take(name)
        if value is None:
            return False
        if value not in (True, False, "true", "false"):
            raise OptionError(f"{name}: true or false is wanted")
        return value in (True, "true")

    def size(self, name: str, default: str) -> int:
        """Return a size in bytes, such as `16MiB`, of at least one.

        Raises:
            OptionError: it is something else.
        """
        value = self._take(name)
        try:
            size = parse_size(str(default if value is None else value))
        except ValueError as error:
            raise OptionError(f"{name}: {error}") from None
        if not size:
            raise OptionError(f"{name}: a size of at least one byte is wanted")
        return size

    def networks(self, name: str) -> tuple[Network, ...]:
        """Return networks such as `10.0.0.0/8`; a list of them, or one string with commas.

        Raises:
            OptionError: one is no network.
        """
        value = self._take(name)
        words = value.split(",") if isinstance(value, str) else value
        if words is None:
            return ()
        if not isinstance(words, list) or not words:
            raise OptionError(f"{name}: a list of networks is wanted, such as 10.0.0.0/8")
        return tuple(_network(name, word) for word in words)

    def passwords(self, name: str) -> dict[str, str]:
        """Return passwords by user; a table, or a text with a line `user:password` for each.

        Raises:
            OptionError: it is neither.
        """
        value = self._take(name)
        if isinstance(value, str):
            lines = [line for line in value.splitlines() if line.strip()]
            value = dict(line.split(":", 1) for line in lines if ":" in line)
            if len(value) != len(lines):
                raise OptionError(f"{name}: a line user:password for each user is wanted")
        if value is None:
            return {}
        if not isinstance(value, dict) or not value:
            raise OptionError(f"{name}: a table of passwords by user is wanted")
        if not all(isinstance(word, str) and word for pair in value.items() for word in pair):
            raise OptionError(f"{name}: each user and each password is a string, and not empty")
        return value

    def finish(self) -> None:
        """Called when all options are read.

        Raises:
            OptionError: another one is set.
        """
        for name in self._given:
            if name not in self._known:
                raise OptionError(_unknown(name, self._known))

    def _take(self, name: str) -> object:
        self._known.add(name)
        return self._given.get(name)


def _network(name: str, word: object) -> Network:
    try:
        if isinstance(word, str):
            return ip_network(word.strip())
    except ValueError as error:
        raise OptionError(f"{name}: {error}") from None
    raise OptionError(f"{name}: {word!r} is not a network such as 10.0.0.0/8")


def _unknown(name: str, known: Iterable[str]) -> str:
    if close := nearest(name, known):
        return f"there is no option {name!r}; did you mean {close}?"
    listed = f"; there are {', '.join(sorted(known))}" if known else ": this protocol has none"
    return f"there is no option {name!r}{listed}"
