"""A thousand devices at once."""

import resource

from tests.support.devices import Device, PackedDevice, TextDevice
from tests.support.listeners import Listener

COUNT = 1000
FRAMES = 10


def allow_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard > COUNT + 100, f"these tests open {COUNT} sockets; the limit of files is {hard}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, COUNT + 100), hard))


def test_a_fleet(listener: Listener) -> None:
    allow_files()
    names = [f"fleet-{number}" for number in range(COUNT)]
    listener.add(*names)
    # All connect and log in before the first is answered, as after a power cut.
    devices: dict[str, Device] = {}
    for number, name in enumerate(names):
        kind: type[Device] = PackedDevice if number % 3 == 0 else TextDevice
        devices[name] = device = kind(listener.addresses[0])
        device.send(device.plain(name))
    for name, device in devices.items():
        kind_of_reply, pairs = device.reply()
        assert (kind_of_reply, pairs["device"], pairs["next"]) == ("ok", name, 1)
    assert listener.status()["devices_connected"] == COUNT
    for number in range(FRAMES):
        for name, device in devices.items():
            device.push(f"{name} {number}")
    for device in devices.values():
        device.wait_for_ack(FRAMES)
    total = listener.status()["total"]
    assert total["received_frames"] == total["written_frames"] == COUNT * FRAMES
    assert total["acknowledged_frames"] == COUNT * FRAMES
    for device in devices.values():
        device.close_side()
    for device in devices.values():
        assert device.replies() == [("end", None)]
        device.socket.close()
    stored = listener.all_frames()
    assert stored == {name: [f"{name} {number}" for number in range(FRAMES)] for name in names}
