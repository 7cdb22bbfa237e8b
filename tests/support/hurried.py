"""`twistd` with shorter pauses between what it does again and again.

    python -m tests.support.hurried MODULE.NAME=SECONDS ... -- ARGUMENTS

It is the program that `twistd ARGUMENTS` runs, but for these pauses. A test that waits for the next
look at a folder, say, so finds the same without waiting for it.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from twisted.scripts.twistd import run


def hurry(pauses: Sequence[str]) -> None:
    """Shorten pauses, each given as `module.NAME=seconds`.

    Raises:
        AssertionError: there is no such pause, or it is shorter already.
    """
    for pause in pauses:
        place, _, seconds = pause.partition("=")
        module_name, _, name = place.rpartition(".")
        module = import_module(module_name)
        usual = getattr(module, name, None)
        assert isinstance(usual, float) and float(seconds) < usual, f"{place} is {usual}"
        setattr(module, name, float(seconds))


if __name__ == "__main__":
    end = sys.argv.index("--")
    hurry(sys.argv[1:end])
    sys.argv = ["twistd", *sys.argv[end + 1 :]]
    run()
