"""The chunks that are remembered."""

from ingest.wire.chunks import RecentChunks


def test_what_the_log_says() -> None:
    chunks = RecentChunks()
    places = ["m/0", "m/1", "x/y/2", "odd", "n/z"]
    chunks.load([("b", "m/4"), *(("a", place) for place in places)])
    found = {name: chunks.of("a").find(name) for name in ("m", "x/y", "odd", "n")}
    assert {name: stored and stored.records for name, stored in found.items()} == {
        "m": 2, "x/y": 3, "odd": None, "n": None,
    }  # fmt: skip
    assert found["m"] is not None and found["m"].is_durable()


def test_what_is_forgotten() -> None:
    chunks = RecentChunks()
    chunks.load(("a", f"{number}/0") for number in range(257))
    assert chunks.of("a").find("0") is None
    assert chunks.of("a").find("1") is not None
    for number in range(1024):
        chunks.of(f"d{number}")
    assert chunks.of("a").find("1") is None
