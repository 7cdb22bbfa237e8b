"""What the words of a line stand for: numbers, and objects that can't be taken for our wrappers."""

import math
import re
from typing import Any, Final

import orjson

_INTEGER = r"(?:0|[1-9][0-9]*)"  # what has zeros in front is a name, such as 007
_EXPONENT = r"(?:[eE][+-]?[0-9]+)?"
_AS_IN_JSON = re.compile(rf"-?{_INTEGER}(?:\.[0-9]+)?{_EXPONENT}")
_OTHERWISE = re.compile(rf"-?(?:{_INTEGER}\.|\.[0-9]+){_EXPONENT}")
_NOT_FINITE: Final = {
    **dict.fromkeys(("NaN", "nan", "-nan"), "NaN"),
    **dict.fromkeys(("Infinity", "Inf", "inf", "+Inf", "+inf"), "Infinity"),
    **dict.fromkeys(("-Infinity", "-Inf", "-inf"), "-Infinity"),
}


def number(word: str) -> Any:
    """Read a number: what `orjson` writes for it; None if the word is none.

    A number that JSON can hold is written digit by digit as it came, so nothing is rounded.

    | word | JSON |
    |---|---|
    | `20.50`, `18446744073709551616` | the same |
    | `+5`, `.5`, `5.` | `5`, `0.5`, `5.0` |
    | `nan`, `-Inf` | `{"$number":"NaN"}`, `{"$number":"-Infinity"}` |
    | `007`, `0x1f`, `1e999`, `1_000` | no numbers |
    """
    name = _NOT_FINITE.get(word)
    if name is not None:
        return {"$number": name}
    plain = word.removeprefix("+")
    if _AS_IN_JSON.fullmatch(plain):
        return orjson.Fragment(plain) if _is_finite(plain) else None
    if _OTHERWISE.fullmatch(plain) and _is_finite(plain):
        return float(plain)
    return None


def _is_finite(digits: str) -> bool:
    return math.isfinite(float(digits))


def as_object(items: dict[str, Any]) -> dict[str, Any]:
    """Wrap an object that looks like one of our wrappers; see PROTOCOL.md, "What is stored"."""
    if len(items) == 1:
        ((key, value),) = items.items()
        if key.startswith("$"):
            return {"$map": [[key, value]]}
    return items
