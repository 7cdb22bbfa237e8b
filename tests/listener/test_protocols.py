"""The contract of a protocol's plugin, for all that Twisted's plugin system finds."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.plugin import IPlugin
from zope.interface.verify import verifyObject

import ingest
from ingest.listener.protocols import DEFAULT, IProtocolMaker, ProtocolMaker, find, protocols, split
from ingest.wire.options import OptionError, Options

NAMES = sorted(protocols())
TEXTS = [Path(ingest.__file__).with_name(name) for name in ("PROTOCOL.md", "PROTOCOLS.md")]


def maker(name: str) -> ProtocolMaker:
    found = find(name)
    assert isinstance(found, ProtocolMaker)
    return found


def test_the_default_is_installed() -> None:
    assert DEFAULT in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_plugin_with_a_name_that_a_port_can_have(name: str) -> None:
    found = find(name)
    assert verifyObject(IPlugin, found) and verifyObject(IProtocolMaker, found)
    assert found.name == name
    assert split(f"{name}=tcp:0") == (name, "tcp:0")


@pytest.mark.parametrize("name", NAMES)
def test_its_summary_is_one_line_and_says_where_it_is_described(name: str) -> None:
    found = re.fullmatch(r"\S[^\n]*: see (PROTOCOLS?\.md)", maker(name).summary)
    assert found, maker(name).summary
    assert name in Path(ingest.__file__).with_name(found[1]).read_text()


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_an_error_that_names_it(name: str) -> None:
    # `device` is enough for those that must know whose the frames are.
    with pytest.raises(OptionError, match="quux") as raised:
        maker(name).make_converse(Options({"quux": "x", "device": "d"}))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", NAMES)
def test_its_code_is_imported_when_it_is_used(name: str) -> None:
    """A listener of one protocol does not pay for the others."""
    module = maker(name).module
    script = (
        "import sys\nfrom ingest.listener.protocols import find\n"
        f"maker = find({name!r})\nassert {module!r} not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_another_name_is_an_error_that_says_which_there_are() -> None:
    with pytest.raises(KeyError, match="did you mean forward") as raised:
        find("froward")
    assert all(name in str(raised.value) for name in NAMES)
