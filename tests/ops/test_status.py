"""What an operator may know of a running listener."""

from ingest.ops.status import Latencies, full_in


def test_latencies_are_those_of_late() -> None:
    latencies = Latencies()
    assert latencies.quantiles() is None
    latencies.observe(5.0)
    assert latencies.quantiles() == {"p50": 5.0, "p90": 5.0, "p99": 5.0}
    for number in range(1000):
        latencies.observe(number / 1000)
    assert latencies.quantiles() == {"p50": 0.499, "p90": 0.899, "p99": 0.989}


def test_a_full_disk_is_full_though_nothing_fills_it_any_more() -> None:
    assert full_in(0, 0.0) == full_in(0, 5.0) == 0.0
    assert full_in(100, 5.0) == 20.0
    assert full_in(100, 0.0) is None
