"""The listener that tests with other Pythons use together."""

from tests.endtoend.conftest import listener

__all__ = ["listener"]
