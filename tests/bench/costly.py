"""How long an honest device waits beside fifty whose frames are built to cost much.

    python -m tests.bench.costly

It starts a listener of its own, and prints the times of the honest device's acknowledgements and of
a revocation.
"""

import tempfile
import time
from pathlib import Path

import click

from tests.endtoend.test_costly_frames import COSTLY, flood
from tests.support.devices import PackedDevice, TextDevice
from tests.support.listeners import Listener

ROUNDS = 100


def _measure(listener: Listener) -> tuple[list[float], float]:
    """Return the seconds of each acknowledgement, sorted, and those of a revocation."""
    names = [f"costly-{number}" for number in range(COSTLY)]
    listener.add(*names, "honest")
    costly = [PackedDevice(listener.addresses[0]) for _ in names]
    for device, name in zip(costly, names, strict=True):
        device.log_in(name, ack="none")
    waits = []
    with TextDevice(listener.addresses[0]) as honest, flood([each.socket for each in costly]):
        honest.log_in("honest")
        for seq in range(1, ROUNDS + 1):
            begun = time.monotonic()
            honest.push_all("reading", last=seq)
            waits.append(time.monotonic() - begun)
            time.sleep(0.02)
        listener.ingest("device", "disable", "honest")
        begun = time.monotonic()
        assert honest.last_words() == "revoked"
        revoked = time.monotonic() - begun
    for device in costly:
        device.socket.close()
    return sorted(waits), revoked


@click.command()
def main() -> None:
    """Measure the wait of an honest device beside fifty costly ones."""
    with (
        tempfile.TemporaryDirectory(prefix="ingest-costly-") as folder,
        Listener(Path(folder) / "data") as listener,
    ):
        waits, revoked = _measure(listener)
    click.echo(
        f"{COSTLY} costly devices: ACK after {waits[ROUNDS // 2] * 1000:.0f} ms (median), "
        f"{waits[ROUNDS * 95 // 100] * 1000:.0f} ms (p95), {waits[-1] * 1000:.0f} ms (most); "
        f"revoked after {revoked * 1000:.0f} ms"
    )


if __name__ == "__main__":
    main()
