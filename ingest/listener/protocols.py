"""The protocols that devices may speak, as plugins of Twisted: a package brings one by its name.

A plugin is a `ProtocolMaker` in a module of the package `twisted.plugins`, as in
`plugins/twisted/plugins/ingest_protocols.py`. It names a module, which is imported when the
protocol is used, and whose function `make_converse(options)` returns what makes conversations: see
`ingest.wire.conversation` and `ingest.wire.options`.
"""

import re
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

from twisted.plugin import IPlugin, getPlugins
from zope.interface import Attribute, Interface, implementer

if TYPE_CHECKING:  # twistd imports us whatever it runs, since its cache names `IProtocolMaker`
    from ingest.wire.conversation import Converse
    from ingest.wire.options import Options

DEFAULT = "ingest/1"
"""The protocol of a `--listen` that names none."""

_NAMED = re.compile(r"([a-z][a-z0-9/.-]*)=(.*)", re.DOTALL)


class IProtocolMaker(Interface):
    """A protocol that devices may speak."""

    name = Attribute("What `--listen NAME=ENDPOINT` calls it; lower case, no `=` and no `:`.")
    summary = Attribute("What it is, in one line for `--help`.")

    def make_converse(options: "Options") -> "Converse":  # noqa: N805 - an interface has no self
        """Make what makes the conversations of one port.

        Raises:
            OptionError: an option of the port makes no sense.
        """


@implementer(IPlugin, IProtocolMaker)
@dataclass(frozen=True)
class ProtocolMaker:
    """A protocol whose code is imported when it is used.

    Attributes:
        name: see `IProtocolMaker`.
        summary: see `IProtocolMaker`.
        module: has a function `make_converse(options)`.
    """

    name: str
    summary: str
    module: str

    def make_converse(self, options: "Options") -> "Converse":
        """See `IProtocolMaker.make_converse`."""
        return cast("Converse", import_module(self.module).make_converse(options))


def protocols() -> dict[str, IProtocolMaker]:
    """Return the protocols that are installed, by name."""
    return {maker.name: maker for maker in getPlugins(IProtocolMaker)}


def split(text: str) -> tuple[str, str]:
    """Split `[PROTOCOL=]ENDPOINT` into both; the protocol is `DEFAULT` where none is named."""
    named = _NAMED.fullmatch(text)
    return (named[1], named[2]) if named else (DEFAULT, text)


def find(name: str) -> IProtocolMaker:
    """Return the protocol of a name.

    Raises:
        KeyError: none of that name is installed; the text is one line that says which are.
    """
    known = protocols()
    if name in known:
        return known[name]
    from ingest.names import nearest  # noqa: PLC0415 - twistd imports us whatever it runs

    close = nearest(name, known)
    hint = f"; did you mean {close}?" if close else ""
    raise KeyError(f"no protocol {name!r} is installed, but {', '.join(sorted(known))}{hint}")
