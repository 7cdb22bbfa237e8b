"""A listener's metrics in the text format of Prometheus.

What the listener counts anyway is read when somebody asks. What has a distribution is observed once
for each commit or look, never for each frame. No label names a device: there may be 100,000.
"""

import math
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from ingest.ops.status import TROUBLES, Counts, Summary

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_DURATIONS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
)  # fmt: skip
"""Seconds: from a fast disk's sync to a device's patience."""
_SIZES = tuple(float(1 << bits) for bits in range(8, 24, 2))
"""Bytes: from a frame or two to more than a commit's most."""


class Metrics:
    """The metrics of a listener. The histograms may be fed from any thread."""

    def __init__(self, protocols: Iterable[str], reasons: Iterable[str]) -> None:
        """Begin to observe.

        Args:
            protocols: what is spoken here.
            reasons: for which connections end with an error. What has not happened yet is there
                all the same, as 0: else its first time would be no increase.
        """
        disable_created_metrics()  # a third more lines, which no dashboard reads
        self._protocols = dict.fromkeys(protocols, Counts())
        self._reasons = dict.fromkeys(reasons, 0)
        self._process = ProcessCollector(registry=None)
        self.commit_bytes = _histogram(
            "commit_size_bytes", "Bytes of the records of one commit.", _SIZES
        )
        self.commit_seconds = _histogram(
            "commit_duration_seconds", "From the begin of a commit until its records are on disk."
        )
        self.sync_seconds = _histogram("fsync_duration_seconds", "One fdatasync of the log.")
        self.ack_seconds = _histogram(
            "ack_latency_seconds",
            "From the arrival of frames until they are acknowledged; sampled, about once a commit.",
        )
        self.reactor_seconds = _histogram(
            "reactor_latency_seconds", "How late the event loop comes to what is due."
        )

    def render(self, summary: Summary, *, is_ready: bool) -> bytes:
        """Write all metrics; may be called in any thread.

        Args:
            summary: what the listener has counted.
            is_ready: whether it takes frames now.
        """
        families = [
            *_health(summary, is_ready),
            *_connections(summary),
            *_endings(summary.handshakes, self._reasons | summary.errors),
            *_frames(self._protocols | summary.protocols),
            *_disk(summary),
            *self.commit_bytes.collect(),
            *self.commit_seconds.collect(),
            *self.sync_seconds.collect(),
            *self.ack_seconds.collect(),
            *self.reactor_seconds.collect(),
            *self._process.collect(),
        ]
        return generate_latest(_Collected(families))


class _Collected(CollectorRegistry):
    """Metrics that were collected already."""

    def __init__(self, families: Sequence[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """See `CollectorRegistry.collect`."""
        return self._families


def _histogram(name: str, text: str, buckets: Sequence[float] = _DURATIONS) -> Histogram:
    return Histogram(f"ingest_{name}", text, buckets=buckets, registry=None)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"ingest_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"ingest_{name}", text, value=value)


def _health(summary: Summary, is_ready: bool) -> Iterator[Metric]:
    build = GaugeMetricFamily(
        "ingest_build_info", "What runs; always 1.", labels=["version", "python", "twisted"]
    )
    build.add_metric([summary.version, platform.python_version(), version("twisted")], 1)
    yield build
    yield _gauge("ready", "Whether frames are taken; 0 while the disk is full, say.", is_ready)
    trouble = GaugeMetricFamily("ingest_trouble", "What is wrong: 1 for its kind.", labels=["kind"])
    for kind in TROUBLES:
        trouble.add_metric([kind], kind == summary.health)
    yield trouble


def _connections(summary: Summary) -> Iterator[Metric]:
    yield _gauge("connections", "Connections that there are.", summary.connections)
    yield _gauge("connections_limit", "Connections that there may be.", summary.max_connections)
    yield _counter("connections_accepted", "Connections accepted.", summary.connections_accepted)
    yield _gauge("devices_connected", "Devices that are connected.", summary.devices_connected)
    yield _gauge(
        "oldest_silence_seconds",
        "For how long the quietest connected device has sent nothing.",
        summary.oldest_silence_s,
    )


def _endings(how: Mapping[str, int], why: Mapping[str, int]) -> Iterator[Metric]:
    handshakes = CounterMetricFamily(
        "ingest_handshakes",
        "Handshakes by mechanism and result: ok, or an error code.",
        labels=["mechanism", "result"],
    )
    for key, count in how.items():
        mechanism, _, result = key.partition("/")
        handshakes.add_metric([mechanism, result], count)
    yield handshakes
    errors = CounterMetricFamily(
        "ingest_connection_errors",
        "Connections that were refused or ended with an error, by reason.",
        labels=["reason"],
    )
    for reason, count in why.items():
        errors.add_metric([reason], count)
    yield errors


def _frames(protocols: Mapping[str, Counts]) -> Iterator[Metric]:
    for name, text, attribute in (
        ("received_frames", "Frames that came, good or not.", "received_frames"),
        ("received_bytes", "Bytes that came, handshakes included.", "received_bytes"),
        ("written_frames", "Frames whose records are on disk.", "written_frames"),
        ("written_bytes", "Bytes of records that are on disk.", "written_bytes"),
        ("acknowledged_frames", "Frames that devices were told of.", "acknowledged_frames"),
    ):
        family = CounterMetricFamily(f"ingest_{name}", text, labels=["protocol"])
        for protocol, counts in protocols.items():
            family.add_metric([protocol], getattr(counts, attribute))
        yield family
    refused = CounterMetricFamily(
        "ingest_refused_frames", "Frames that were no frames.", labels=["protocol", "reason"]
    )
    waiting = GaugeMetricFamily(
        "ingest_waiting_frames", "Frames that wait for the disk.", labels=["protocol"]
    )
    for protocol, counts in protocols.items():
        waiting.add_metric([protocol], counts.waiting_frames)
        for reason, count in counts.refused_frames.items():
            refused.add_metric([protocol, reason], count)
    yield refused
    yield waiting


def _disk(summary: Summary) -> Iterator[Metric]:
    yield _gauge("waiting_bytes", "Bytes of records that wait for the disk.", summary.waiting_bytes)
    yield _counter(
        "paused_seconds", "Time in which nothing was read: the disk was behind.", summary.paused_s
    )
    yield _counter("rotations", "Log files closed.", summary.rotations)
    yield _gauge("disk_free_bytes", "What is free where the log is.", summary.disk_free_bytes)
    full = summary.disk_full_in_s
    yield _gauge(
        "disk_full_seconds",
        "Time until the disk is full at the rate of the last minute; +Inf for never.",
        math.inf if full is None else full,
    )
