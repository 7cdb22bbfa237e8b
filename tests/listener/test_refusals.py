"""How often devices are refused, by the names that they claim."""

from collections.abc import Collection

from ingest.devices.registry import RegistryError
from ingest.listener.refusals import Refusals


class Registry:
    """Knows some names; counts how often it was asked."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)
        self.asked = 0
        self.is_broken = False

    def registered(self, names: Collection[str]) -> set[str]:
        self.asked += 1
        if self.is_broken:
            raise RegistryError("damaged")
        return self.names & set(names)


def test_devices_are_counted_by_reason_and_strangers_are_not() -> None:
    registry = Registry("a", "b")
    refusals = Refusals(registry.registered)
    for device, reason in [
        ("a", "auth-failed"), ("a", "auth-failed"), ("a", "busy"), ("stranger", "auth-failed"),
    ]:  # fmt: skip
        refusals.note(device, reason)
    assert registry.asked == 0
    assert refusals.counts() == {"a": {"auth-failed": 2, "busy": 1}}
    refusals.note("a", "busy")
    assert refusals.counts() == {"a": {"auth-failed": 2, "busy": 2}}


def test_strangers_fill_no_memory_and_hide_no_device() -> None:
    registry = Registry("a")
    refusals = Refusals(registry.registered)
    refusals.note("a", "auth-failed")
    for number in range(5000):
        refusals.note(f"guess-{number}", "auth-failed")
    refusals.note("x" * 4000, "auth-failed")
    refusals.note("\udcff", "auth-failed")
    assert registry.asked == 5
    assert len(refusals._waiting) < 1000
    assert refusals.counts() == {"a": {"auth-failed": 1}}


def test_a_registry_that_fails_is_asked_again() -> None:
    registry = Registry("a")
    refusals = Refusals(registry.registered)
    registry.is_broken = True
    refusals.note("a", "busy")
    assert refusals.counts() == {}
    registry.is_broken = False
    assert refusals.counts() == {"a": {"busy": 1}}


def test_a_registry_that_goes_on_failing_fills_no_memory() -> None:
    registry = Registry("a")
    registry.is_broken = True
    refusals = Refusals(registry.registered)
    for number in range(5000):
        refusals.note(f"guess-{number}", "auth-failed")
    assert len(refusals._waiting) <= 1000
