"""Reading the log on from a place, across rotation, compression, copytruncate and restarts.

A place outlives whatever happens to the file that it lies in, and the end of the process that
reads. A follower keeps the place that came with a block after it has acted on the block:

    with Log(folder) as log:
        place = Place.from_json(kept) if kept else START  # or log.end(): what comes from now on
        while True:
            try:
                place, block = log.read_from(place)
            except LinesMissingError as error:  # somebody removed them, or the disk lost them
                tell_the_operator(error)
                place, block = error.place, b""
            if block:
                act_on(block)  # whole lines, each a record: see `ingest.record`
                keep(place.to_json())
            else:
                time.sleep(0.2)  # there is nothing new

What is killed between `act_on` and `keep` gets that block again. Who must act once keeps the place
with what it does, in one transaction, or passes over the numbers (`seq`) that it knows already.

Who only wants lines, and keeps no place, uses `ingest.log.following.follow`.
"""

from datetime import datetime
from pathlib import Path
from typing import Self

from ingest.log.decompressing import DAMAGED
from ingest.log.files import ACTIVE, identity
from ingest.log.held import HeldFile
from ingest.log.jumps import read_jumps
from ingest.log.places import Files, Place
from ingest.log.reading import Filter
from ingest.record import numbers_in, record_time


class LinesMissingError(Exception):
    """Lines between a place and what is left of the log are gone, or can't be read.

    Attributes:
        place: where the log goes on.
    """

    def __init__(self, what: str, place: Place) -> None:
        super().__init__(what)
        self.place = place


class Log:
    """A log that is read on from places.

    The file of the last place is held open, so that reading on costs one system call and what a
    rotation or retention does to the file meanwhile loses nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: HeldFile | None = None
        self._nothing_new: tuple[Place, object] | None = None  # when a file was looked for in vain

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the held file."""
        self._hold(None)

    def read_from(self, place: Place) -> tuple[Place, bytes]:
        """Read whole lines from a place on.

        Returns:
            The place behind what was read, and the lines: about a mebibyte at most, or one line
            if that is longer; nothing at the end of what is there.

        Raises:
            LinesMissingError: what follows the place is gone or damaged. Reading goes on at the
                error's own place.
            OSError: the folder is missing, or a file can't be read. One of `DAMAGED` if the
                newest file, which another program has renamed, is damaged.
        """
        while True:
            found = self._find(place)
            if found is None:
                return place, b""
            place, held = found
            try:
                offset, block = held.read(place.offset)
            except DAMAGED as error:
                raise self._damaged(place, error) from error
            if not held.is_as_it_was():
                self._hold(None)  # it was emptied to be used again; what it held may be in a copy
                continue
            place = place._replace(offset=offset + len(block))
            if block or self._is_active(held):
                return place, block
            following = self._next(held, place)
            if following is None:
                return place, b""
            place, block = following
            if block:
                return place, block

    def end(self) -> Place:
        """Return the place behind the last whole line.

        Raises:
            OSError: the folder is missing, or a file can't be read.
        """
        with Files(self._folder) as files:
            return files.end()

    def place_at(self, moment: datetime) -> Place:
        """Return the place of the first record with this time (aware) or a later one.

        Where the clock went back, records behind that place may be older again. A damaged file
        may hold the record: then it is the start of that file.

        Raises:
            OSError: the folder is missing, or a file can't be read.
        """
        since, wanted = record_time(moment), Filter(since=moment)
        with Files(self._folder) as files:
            for index, file in enumerate(files.all):
                if wanted.is_past(file):
                    continue
                try:
                    with files.opened(index) as held:
                        offset = held.find_time(since)
                except FileNotFoundError:
                    continue  # removed since it was listed
                except DAMAGED:
                    offset = 0
                if offset is not None:
                    return files.start_of(index)._replace(offset=offset)
            return files.end()

    def _hold(self, held: HeldFile | None) -> None:
        if self._held is not None:
            self._held.close()
        self._held = held

    def _is_active(self, held: HeldFile) -> bool:
        return held.identity is not None and held.identity == identity(self._folder / ACTIVE)

    def _find(self, place: Place) -> tuple[Place, HeldFile] | None:
        """Hold the file of a place; None if it begins where no file does yet.

        Raises:
            LinesMissingError: the file is gone, and a newer one is there.
        """
        held = self._held
        if held is not None and held.head.hex() == place.head and held.reaches(place.offset):
            return place, held
        look = place, self._state()
        if look == self._nothing_new:
            return None
        with Files(self._folder) as files:
            index = files.index_of(place)
            if index is None:
                after = files.first_after(place)
                index = files.first_with_head(after)
                if index is None:
                    self._nothing_new = look
                    return None
                start = files.start_of(index)
                if place.head or not files.has_closed(place.closed):
                    what = "lines are gone: the file that was to be read on from is missing"
                    raise LinesMissingError(what, start)
                if path := files.damaged(after, index):
                    raise LinesMissingError(f"{path} is damaged", start)
                place = start
            held = self._take(files, index)
        return None if held is None else (place, held)

    def _next(self, held: HeldFile, place: Place) -> tuple[Place, bytes] | None:
        """Go on to the next file that has a line; None if there is none yet.

        Nothing is written to a file once a newer one has a line. What was written to the held one
        until then is returned.

        Raises:
            LinesMissingError: the next file does not follow the held one.
        """
        look = place, self._state()
        if look == self._nothing_new:
            return None
        with Files(self._folder) as files:
            index = files.index_of(place)
            after = files.first_after(place) if index is None else index + 1
            index = files.first_with_head(after)
            if index is None:
                self._nothing_new = look
                return None
            offset, rest = held.read(place.offset)
            if rest:
                return place._replace(offset=offset + len(rest)), rest
            start, path, end = files.start_of(index), files.damaged(after, index), held.end(offset)
            following = self._take(files, index)
        if following is None:
            return None
        if path is not None:
            raise LinesMissingError(f"{path} is damaged", start)
        if gap := self._gap(end, following.begin()):
            raise LinesMissingError(gap, start)
        return start, b""

    def _take(self, files: Files, index: int) -> HeldFile | None:
        """Hold a file; None if it was removed since it was listed: the next look tells more."""
        try:
            held = files.take(index)
        except FileNotFoundError:
            return None
        self._hold(held)
        return held

    def _state(self) -> object:
        """Return what changes when a file comes, goes or is begun.

        A reader that waits would otherwise open all the files of a quiet log at each look.
        """
        return self._folder.stat().st_mtime_ns, _size_of(self._folder / ACTIVE)

    def _gap(self, end: bytes, begin: bytes) -> str | None:
        """Tell which numbers are missing between the end of a file and the begin of the next."""
        newest = dict(numbers_in(end))
        for device, number in dict(reversed(numbers_in(begin))).items():
            last, first = int(newest.get(device, number)), int(number)
            if first <= last + 1:
                continue
            name = device.decode()
            if first not in read_jumps(self._folder).get(name, ()):
                return f"lines are gone: {name} has number {first} after {last}"
        return None

    def _damaged(self, place: Place, error: Exception) -> Exception:
        """Say what is wrong with the held file, and where reading may go on."""
        with Files(self._folder) as files:
            index = files.index_of(place)
            following = None if index is None else files.start_after(index)
            if index is None or following is None:
                return error
            what = f"{files.all[index].path} is damaged from byte {place.offset} on: {error}"
            return LinesMissingError(what, following)


def _size_of(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size
