"""The one rule for device names."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.names import is_device_name

ALLOWED = string.ascii_letters + string.digits + "._:-"


@given(st.text(ALLOWED, min_size=1, max_size=128))
def test_what_a_name_may_be(name: str) -> None:
    assert is_device_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "a" * 129, "a b", "a/b", "a\n", "\na", "a\0", "ä", "é", "a,b", 'a"', "a\\b", "٣", "a=b"],
)
def test_what_it_may_not(name: str) -> None:
    assert not is_device_name(name)


@given(st.characters(exclude_characters=ALLOWED))
def test_every_other_character(character: str) -> None:
    assert not is_device_name(f"a{character}b")
