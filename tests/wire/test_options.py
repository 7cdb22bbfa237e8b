"""The options of a listener, as a protocol reads them."""

from collections.abc import Callable
from ipaddress import ip_network

import pytest

from ingest.wire.options import OptionError, Options


def test_what_is_not_set() -> None:
    options = Options()
    assert options.text("a") is None
    assert options.choice("b", "refuse", "accept") == "refuse"
    assert options.flag("c") is False
    assert options.networks("d") == ()
    assert options.passwords("e") == {}
    options.finish()


def test_what_is_set() -> None:
    options = Options({"a": "x", "b": "accept", "c": True, "d": ["10.0.0.0/8", "::1"]})
    assert options.text("a") == "x"
    assert options.choice("b", "refuse", "accept") == "accept"
    assert options.flag("c") is True
    assert options.networks("d") == (ip_network("10.0.0.0/8"), ip_network("::1"))
    options.finish()


def test_what_the_command_line_sets() -> None:
    options = Options({"c": "true", "d": "10.0.0.0/8, 192.0.2.1"})
    assert options.flag("c") is True
    assert options.networks("d") == (ip_network("10.0.0.0/8"), ip_network("192.0.2.1"))


@pytest.mark.parametrize("users", [{"a": "x", "b": "y:z"}, "a:x\n\nb:y:z\n"])
def test_passwords(users: object) -> None:
    assert Options({"users": users}).passwords("users") == {"a": "x", "b": "y:z"}


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (Options.text, ""),
        (Options.text, 1),
        (Options.choice, "perhaps"),
        (Options.flag, "yes"),
        (Options.flag, 2),
        (Options.networks, "10.0.0.1/8"),
        (Options.networks, [1]),
        (Options.networks, []),
        (Options.networks, 10),
        (Options.passwords, "a"),
        (Options.passwords, {"a": ""}),
        (Options.passwords, {"a": 1}),
        (Options.passwords, {}),
        (Options.passwords, ""),
        (Options.passwords, ["a"]),
    ],
)
def test_what_makes_no_sense(read: Callable[..., object], value: object) -> None:
    with pytest.raises(OptionError, match=r"^name: "):
        read(Options({"name": value}), "name")


def test_an_unknown_option() -> None:
    options = Options({"network": "10.0.0.0/8"})
    options.networks("networks")
    with pytest.raises(OptionError, match="no option 'network'; did you mean networks"):
        options.finish()
    with pytest.raises(OptionError, match="no option 'x': this protocol has none"):
        Options({"x": 1}).finish()
