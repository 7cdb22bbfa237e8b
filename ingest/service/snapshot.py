"""Puts together what an operator may know of a running listener."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ingest.journal.file import FileJournal
from ingest.listener.books import Account, total
from ingest.listener.dialer import DialCounts
from ingest.listener.fleet import Fleet
from ingest.listener.phases import Phase
from ingest.ops.status import Counts, DeviceCounts, Latencies, Rates, Status, Summary, full_in
from ingest.service.settings import Settings

SAMPLES = 5.0  # seconds between two samples of the rates
_NOTHING = Account()


class Snapshots:
    """Makes a `Summary` or a `Status` when it is asked for one."""

    def __init__(
        self,
        fleet: Fleet,
        journal: FileJournal,
        settings: Callable[[], Settings],
        listening: Sequence[str],
        rotations: Callable[[], int],
        dialled: Callable[[], DialCounts],
        latencies: Latencies,
    ) -> None:
        """Begin to keep the rates.

        Args:
            fleet: the connections.
            journal: where records go.
            settings: returns the settings in force.
            listening: where connections are accepted.
            rotations: returns how many log files were closed.
            dialled: counts the calls to devices that only answer.
            latencies: how long acknowledgements took.
        """
        self._fleet = fleet
        self._journal = journal
        self._settings = settings
        self._listening = list(listening)
        self._rotations = rotations
        self._latencies = latencies
        self._dialled = dialled
        self._started = fleet.now()
        self._version = version("ingest")
        self._rates = Rates()
        self.sample()

    def sample(self) -> None:
        """Note how much has come; called every `SAMPLES` seconds."""
        summed = total(self._fleet.totals().values())
        self._rates.sample(
            self._fleet.now(), summed.received_frames, summed.received_bytes, summed.written_bytes
        )

    def summary(self) -> Summary:
        """Make a snapshot as of now, without the books of each device."""
        fleet, totals = self._fleet, self._fleet.totals()
        health, reason = self.health()
        frames_per_s, bytes_per_s, written_per_s = self._rates.per_second()
        free = free_bytes(self._journal.log_folder)
        quietest = min(fleet.devices(), key=lambda member: member.intake.heard, default=None)
        return Summary(
            health=health,
            reason=reason,
            version=self._version,
            pid=os.getpid(),
            uptime_s=fleet.now() - self._started,
            connections=len(fleet),
            max_connections=fleet.admission.limits.max_connections,
            connections_accepted=fleet.books.connections,
            devices_connected=len({member.device for member in fleet.devices()}),
            oldest_silence_s=0.0 if quietest is None else fleet.now() - quietest.intake.heard,
            oldest_silence_device="" if quietest is None else quietest.device,
            frames_per_s=frames_per_s,
            bytes_per_s=bytes_per_s,
            ack_latency_s=self._latencies.quantiles(),
            waiting_bytes=self._journal.backlog,
            is_paused=fleet.paused,
            paused_s=fleet.paused_seconds,
            rotations=self._rotations(),
            holding_until_s=self._journal.hold_ends_in,
            disk_free_bytes=free,
            disk_full_in_s=full_in(free, written_per_s),
            errors=dict(fleet.incidents.counts),
            handshakes=dict(fleet.incidents.handshakes),
            listening=self._listening,
            dialled=asdict(self._dialled()),
            settings=self._settings().as_written(),
            total=_counts(total(totals.values())),
            protocols={name: _counts(account) for name, account in totals.items()},
        )

    def take(self) -> Status:
        """Make a snapshot as of now."""
        accounts, refusals = self._fleet.accounts(), self._fleet.refusals.counts()
        devices = {
            name: _device_counts(accounts.get(name, _NOTHING), refusals.get(name, {}))
            for name in accounts.keys() | refusals.keys()
        }
        return Status(**vars(self.summary()), devices=devices)

    def health(self) -> tuple[str, str]:
        """Return what is wrong, in a word and in words; `ok` and nothing if all is well."""
        trouble = self._journal.health
        if trouble is not None:
            return trouble.kind, trouble.reason
        if self._fleet.identities.health:
            return "registry-failing", self._fleet.identities.health
        return "ok", ""

    def connections(self) -> Iterator[dict[str, Any]]:
        """Go through the connections, as they are when they are reached."""
        now = self._fleet.now()
        for member in list(self._fleet.members()):
            delivery = member.delivery
            account = None if delivery is None else delivery.account()
            yield {
                "device": member.device or member.claimed,
                "is_proved": bool(member.device),
                "peer": str(member.peer),
                "protocol": member.protocol,
                "phase": member.phase.name.lower(),
                "is_reading": member.intake.is_reading,
                "is_paused": member.phase is Phase.OPEN and not member.intake.is_reading,
                "connected_s": now - member.made,
                "heard_s_ago": now - member.intake.heard,
                "waiting_frames": 0 if account is None else account.waiting_frames,
                "waiting_bytes": 0 if delivery is None else delivery.waiting_bytes,
                "acknowledged": 0 if delivery is None else delivery.acknowledged,
            }


def free_bytes(folder: Path) -> int:
    """Return the bytes that are free where a folder is; where it was, if it was moved away.

    It is 0 where the disk can't tell any more: then the rest of the snapshot matters most.
    """
    for each in (folder, *folder.parents):
        try:
            return shutil.disk_usage(each).free
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return 0
    return 0


def _device_counts(account: Account, refusals: Mapping[str, int]) -> DeviceCounts:
    return DeviceCounts(**vars(_counts(account)), refusals=dict(refusals))


def _counts(account: Account) -> Counts:
    return Counts(
        received_frames=account.received_frames,
        received_bytes=account.received_bytes,
        written_frames=account.written_frames,
        written_bytes=account.written_bytes,
        acknowledged_frames=account.acknowledged_frames,
        refused_frames=dict(account.refused_frames),
        unparsed_frames=account.unparsed_frames,
        waiting_frames=account.waiting_frames,
    )
