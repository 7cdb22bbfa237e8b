"""The listener that most tests use together, each with devices of its own."""

from collections.abc import Iterator

import pytest

from tests.support.devices import Device, PackedDevice, TextDevice
from tests.support.listeners import Listener


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    """A listener with the default settings."""
    with Listener(tmp_path_factory.mktemp("listener") / "data") as listener:
        yield listener


@pytest.fixture
def name(listener: Listener, request: pytest.FixtureRequest) -> str:
    """The name of a registered device that no other test uses."""
    return listener.add_for(request.node.name)


@pytest.fixture(params=[TextDevice, PackedDevice], ids=["text", "msgpack"])
def dialect(request: pytest.FixtureRequest) -> type[Device]:
    """Each of the two dialects in turn."""
    kind: type[Device] = request.param
    return kind


@pytest.fixture
def bystander(listener: Listener, request: pytest.FixtureRequest) -> Iterator[None]:
    """A device that pushes before and after a test, and notices nothing of it."""
    name = f"bystander-{abs(hash(request.node.name))}"
    listener.add(name)
    with TextDevice(listener.addresses[0]) as device:
        assert device.log_in(name) == 1
        device.push_all("before", last=1)
        yield
        device.push_all("after", last=2)
        device.close_side()
        assert device.replies() == [("end", None)]
    assert listener.frames(name) == ["before", "after"]
