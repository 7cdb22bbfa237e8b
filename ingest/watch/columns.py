"""Closed files of the log as Parquet, below `columns/`: one file for each, in a folder by day.

What a file holds never changes, so its Parquet is made once; it goes when the file goes, and is
made again when it is missing. It appears whole (a temporary file is renamed), and it may always
be removed.

    converter = Converter(layout)
    while converter.convert_next():
        print(converter.progress)

Each file is converted by a process of its own, at a low priority and within bounded memory: it
takes nothing from the process that asked for it. `python -m ingest.watch.columns DATA` converts
all that there is.
"""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from ingest.layout import Layout, open_own
from ingest.log.files import LogFile, find_damage, sync_folder
from ingest.log.listing import log_files
from ingest.watch.schema import (
    MAX_NESTED,
    RECORD,
    Catalogue,
    Contents,
    Field,
    count_documents,
    count_pairs,
    literal,
)
from ingest.watch.selecting import documents_sql, lines_sql, pairs_sql, parquet_sql, unspelled_sql
from ingest.watch.snapshot import columns_path, is_whole_parquet, open_lines

if TYPE_CHECKING:
    import duckdb

METADATA = "ingest"  # the key of what `Catalogue.dump` writes
MEMORY = 512 << 20
"""Bytes for one conversion. What it sorts beyond that goes to a temporary folder on disk."""
_THREADS = 2
_NICE = 10
_SAMPLE = 50_000  # records by which the fields are guessed
_ROUNDS = 4
_GROUP_SIZE = 16 << 20  # bytes of a row group, before it is compressed
_GROUP_ROWS = 122_880  # DuckDB's own bound
_VECTOR = 2048  # rows; groups are multiples of it
_TEMPORARY = ".tmp"
_TRY_AGAIN = 2  # how a conversion ends that the disk does not let be done now
_MODULE = "ingest.watch.columns"


class BusyError(Exception):
    """Another process converts already."""


class UnreadableError(Exception):
    """A file can't be converted. It stays as it is; queries read its lines."""


@dataclass(frozen=True)
class Progress:
    """How far the conversion is.

    Attributes:
        converted: closed files that are Parquet by now.
        pending: closed files that are not yet.
        records: records converted by this converter.
        failed: what was wrong with files that can't be converted, by name.
    """

    converted: int = 0
    pending: int = 0
    records: int = 0
    failed: tuple[tuple[str, str], ...] = ()


class Converter:
    """Turns closed files into Parquet, the youngest first. One at a time may work on a folder.

    Its methods may be called from any thread, `stop` also while `convert_next` runs.
    """

    def __init__(self, layout: Layout, *, threads: int = _THREADS, memory: int = MEMORY) -> None:
        """Take the folder.

        Args:
            layout: the data folder.
            threads: of a conversion.
            memory: bytes of a conversion.

        Raises:
            BusyError: another converter works on it.
            OSError: the folder can't be made.
        """
        self._layout = layout
        self._options = {"threads": threads, "memory": memory}
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._failed: dict[str, str] = {}
        self.progress = Progress()
        layout.columns_folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.fdopen(open_own(layout.columns_folder / "lock", os.O_RDWR | os.O_CREAT))
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise BusyError(f"another process converts into {layout.columns_folder}") from error
        self._remove_what_is_cut_off()

    def convert_next(self) -> bool:
        """Convert one file; False if none is left. Removes Parquet whose file is gone.

        Raises:
            OSError: the log or the folder can't be read or written; call it again later.
        """
        closed = {columns_path(self._layout, file): file for file in self._closed()}
        made = self._tidy(set(closed))
        pending = [path for path in closed if path not in made]
        self.progress = replace(self.progress, converted=len(made), pending=len(pending))
        for path in reversed(pending):
            if self._stopped:
                return False
            if path.stem not in self._failed and self._convert(closed[path], path):
                return True
        return False

    def stop(self) -> None:
        """End for good. A conversion that runs is killed; the next converter removes its rest."""
        self._stopped = True
        if (process := self._process) is not None:
            process.kill()
        self._lock.close()

    def _closed(self) -> list[LogFile]:
        return [file for file in log_files(self._layout.log_folder) if file.closed]

    def _tidy(self, wanted: set[Path]) -> set[Path]:
        """Remove what no closed file stands behind; return what is there."""
        for path in self._layout.columns_folder.glob("*/*"):
            if path not in wanted and path.is_file():
                path.unlink()
                with suppress(OSError):  # not empty yet
                    path.parent.rmdir()
        return {path for path in wanted if path.exists()}

    def _remove_what_is_cut_off(self) -> None:
        """Remove Parquet that a failing disk has left in part; it is made again."""
        for path in self._layout.columns_folder.glob("*/*.parquet"):
            with suppress(OSError), path.open("rb") as stream:
                if not is_whole_parquet(stream.fileno()):
                    path.unlink()

    def _convert(self, file: LogFile, target: Path) -> bool:
        """Convert one file in a process of its own; False if it can't be."""
        target.parent.mkdir(exist_ok=True)
        task = {
            "source": str(file.path),
            "compressed": file.compressed,
            "target": str(target),
            "spill": str(self._layout.columns_folder / "spill"),
            **self._options,
        }
        with subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE, "--one"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as self._process:
            if self._stopped:
                self._process.kill()
            answer, errors = self._process.communicate(orjson.dumps(task))
        if self._process.returncode == 0:
            records = self.progress.records + orjson.loads(answer)["records"]
            self.progress = replace(
                self.progress,
                converted=self.progress.converted + 1,
                pending=self.progress.pending - 1,
                records=records,
            )
            return True
        if self._stopped:
            return False
        lines = errors.decode(errors="replace").strip().splitlines()
        what = lines[-1] if lines else f"its process ended with {self._process.returncode}"
        if self._process.returncode == _TRY_AGAIN:
            raise OSError(0, what, str(target))
        self._failed[target.stem] = what
        self.progress = replace(self.progress, failed=tuple(self._failed.items()))
        return False


def convert(file: LogFile, target: Path, spill: Path, *, threads: int, memory: int) -> int:
    """Write the Parquet of one closed file.

    Args:
        file: a rotated file.
        target: the Parquet; it appears whole or not at all.
        spill: a folder for what does not fit into memory; it is made.
        threads: that sort and write.
        memory: bytes.

    Returns:
        How many records it holds.

    Raises:
        UnreadableError: the file is gone, damaged, or was changed meanwhile.
        OSError: the disk is full or failing.
        duckdb.Error: the same, seen by DuckDB.
    """
    import duckdb  # noqa: PLC0415 - the parent of this process needs none

    temporary = target.with_name(target.name + _TEMPORARY)
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": threads,
        "memory_limit": f"{memory}B",
        "temp_directory": str(spill),
        "autoinstall_known_extensions": False,
    }
    with ExitStack() as opened:
        piece = open_lines(file, opened)
        if piece is None:
            raise UnreadableError(f"{file.path} is gone")
        _prove_whole(file)
        connection = opened.enter_context(duckdb.connect(config=config))
        connection.execute("SET enable_progress_bar = false")  # the answer goes to the same place
        opened.callback(temporary.unlink, missing_ok=True)
        source = lines_sql([piece.path], piece.compressed)
        try:
            records = _write(connection, source, temporary, in_order=True)
        except duckdb.OutOfMemoryException:  # frames of tens of kilobytes can't be sorted
            connection.execute("SET threads = 1")
            connection.execute("SET preserve_insertion_order = false")
            records = _write(connection, source, temporary, in_order=False)
        if os.fstat(piece.fd).st_size != piece.size:
            raise UnreadableError(f"{file.path} was changed meanwhile")
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.rename(target)
        sync_folder(target.parent)
        return records


def _prove_whole(file: LogFile) -> None:
    """Read a compressed file to its end: DuckDB takes one that was cut short for a whole one."""
    if why := find_damage(file):
        raise UnreadableError(f"{file.path} is damaged: {why}")


def _write(
    connection: "duckdb.DuckDBPyConnection", source: str, target: Path, *, in_order: bool
) -> int:
    """Write the Parquet of `source`, again if it turns out to have more fields than were guessed.

    The frames that the columns do not spell tell which are missing: mostly there are none.
    """
    catalogue = count_fields(connection, f"SELECT text, data FROM ({source}) LIMIT {_SAMPLE}")
    order, groups = "", f"ROW_GROUP_SIZE_BYTES {_GROUP_SIZE}"
    if in_order:
        order, groups = "ORDER BY device, time, seq", _group_rows(connection, source)
    inner = catalogue.nested((), MAX_NESTED)
    for attempt in range(_ROUNDS):
        # Only a file whose keys never end needs all rounds: what has no column is in its `data`.
        catalogue.complete &= attempt < _ROUNDS - 1
        found = catalogue.contents()
        contents = replace(found, nested=_beside(found, inner))
        ((records,),) = connection.execute(f"""
            COPY ({parquet_sql(source, contents)} {order}) TO {literal(str(target))}
                (FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2, USE_TMP_FILE false, {groups},
                KV_METADATA {{{METADATA}: {literal(catalogue.dump(contents))}}})""").fetchall()
        rest = count_fields(connection, unspelled_sql(str(target), contents))
        catalogue.extend(rest)
        if catalogue.contents() == found:
            break
    return int(records)


def _beside(contents: Contents, inner: Iterable[Field]) -> tuple[Field, ...]:
    """Choose the fields within objects that get a column: typed, of a name that is not taken."""
    taken = {name.lower() for name in [*RECORD, *(field.column for field in contents.fields)]}
    return tuple(
        field for field in inner if field.type != "JSON" and field.column.lower() not in taken
    )


def _group_rows(connection: "duckdb.DuckDBPyConnection", source: str) -> str:
    """Choose how many rows are written at once: fewer where they are long."""
    ((width,),) = connection.execute(f"""
        SELECT avg(strlen(concat(text, data, raw))) FROM (SELECT * FROM ({source}) LIMIT {_SAMPLE})
        """).fetchall()
    rows = int(_GROUP_SIZE / ((width or 0) + 64)) // _VECTOR * _VECTOR
    return f"ROW_GROUP_SIZE {min(max(rows, _VECTOR), _GROUP_ROWS)}"


def count_fields(connection: "duckdb.DuckDBPyConnection", source: str) -> Catalogue:
    """Count which fields occur in `source`, a SELECT of `text` and `data`."""
    catalogue = Catalogue()
    count_documents(catalogue, connection.execute(documents_sql(source)).fetchall())
    count_pairs(catalogue, connection.execute(pairs_sql(source)).fetchall())
    return catalogue


def _convert_one() -> None:
    """Convert the file that standard input names."""
    import duckdb  # noqa: PLC0415

    task = orjson.loads(sys.stdin.buffer.read())
    os.nice(_NICE)
    file = LogFile(Path(task["source"]), task["compressed"])
    try:
        records = convert(
            file,
            Path(task["target"]),
            Path(task["spill"]),
            threads=task["threads"],
            memory=task["memory"],
        )
    except Exception as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(_TRY_AGAIN if isinstance(error, OSError | duckdb.IOException) else 1)
    print(orjson.dumps({"records": records}).decode())


def main() -> None:
    """Convert all closed files of the data folder that the command line names."""
    if sys.argv[1:] == ["--one"]:
        _convert_one()
        return
    if len(sys.argv) != 2:
        sys.exit(f"usage: python -m {_MODULE} DATA")
    layout = Layout(Path(sys.argv[1]))
    if not layout.log_folder.is_dir():
        sys.exit(f"there is no log in {layout.log_folder}")
    try:
        converter = Converter(layout)
    except BusyError as error:
        sys.exit(f"{error}: perhaps ingest-watch, which does it by itself")
    while converter.convert_next():
        progress = converter.progress
        print(f"{progress.records:,} records converted, {progress.pending} files to go", flush=True)
    for name, what in converter.progress.failed:
        print(f"{name}: {what}", file=sys.stderr)


if __name__ == "__main__":
    main()
