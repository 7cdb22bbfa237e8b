"""`ingest backup` and `ingest restore`: all that a listener can't make again, in one file.

The file is a tar archive, so that it can be looked into without this program: `manifest.json`,
`devices.db`, `positions.db` and `settings.toml`, of which the last two may be missing. The log is
not in it: its closed files never change, and are copied like any others.
"""

import hashlib
import io
import json
import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from ingest.devices.registry import Registry, RegistryError
from ingest.journal.positions import Positions, remove_beside
from ingest.layout import Layout
from ingest.service.process import FolderLock, StartError
from ingest.units import format_count

_FORMAT = 1
_MANIFEST, _DEVICES, _POSITIONS, _SETTINGS = (
    "manifest.json", "devices.db", "positions.db", "settings.toml",
)  # fmt: skip
_PAGES = 1000  # of SQLite, copied at once: a writer waits for no more


@contextmanager
def _in_words(file: Path) -> Iterator[None]:
    """Turn what a person can correct into one line; `file` is what it is about if none is named."""
    try:
        yield
    except RegistryError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or file}: {error.strerror}") from error


@click.command(short_help="Write devices, positions and settings to FILE.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep this file of settings too.",
)
@click.pass_obj
def backup(layout: Layout, file: Path, config: Path | None) -> None:
    """Write devices, positions and settings to FILE, while the listener runs or not.

    FILE is new, and only its owner may read it. What was written is read again and checked. The
    log is not in it: copy its closed files as they are.

    \b
    Example:
      ingest --data /var/lib/ingest backup ingest.tar --config /etc/ingest.toml
    """
    if not layout.devices.exists():
        raise click.ClickException(
            f"no devices: {layout.devices.absolute()} does not exist; is --data right?"
        )
    if file.exists():
        raise click.ClickException(f"{file} exists already: name another file, or move it away")
    with _in_words(file), tempfile.TemporaryDirectory(dir=file.absolute().parent) as folder:
        parts = _collect(layout, config, Path(folder))
        count = _devices_in(Path(folder) / _DEVICES)
        _pack(parts, Path(folder) / "archive")
        with open_backup(Path(folder) / "archive"):
            pass
        (Path(folder) / "archive").rename(file)
        _sync_folder(file.absolute().parent)
    kept = ", ".join([format_count(count, "device"), *(part.name for part in parts[1:])])
    click.echo(f"{file}: {kept}; checked")


def _collect(layout: Layout, config: Path | None, folder: Path) -> list[Path]:
    parts = [folder / _DEVICES]
    _copy_database(layout.devices, parts[0])
    if layout.positions.exists():
        try:
            _copy_database(layout.positions, folder / _POSITIONS)
            parts.append(folder / _POSITIONS)
        except click.ClickException as error:
            click.echo(f"{error}: left out; a listener makes it anew from the log", err=True)
    elif layout.log_folder.exists():
        click.echo(
            f"{layout.positions} does not exist: left out; a listener makes it anew from the log,"
            " or within seconds if it runs",
            err=True,
        )
    if config is not None:
        parts.append(folder / _SETTINGS)
        parts[-1].write_bytes(config.read_bytes())
    return parts


def _copy_database(source: Path, target: Path) -> None:
    """Copy a database that others may be writing to, as it is at one moment.

    Raises:
        ClickException: it can't be read, or is damaged.
    """
    try:
        _copy_pages(source, target)
        _check_database(target)
    except sqlite3.Error as error:
        is_full = error.sqlite_errorcode == sqlite3.SQLITE_FULL
        hint = "; make room for FILE, or name one on another disk" if is_full else ""
        raise click.ClickException(f"{source} can't be copied ({error}){hint}") from error


def _copy_pages(source: Path, target: Path) -> None:
    target.touch(mode=0o600)
    console = Console(stderr=True)
    with (
        closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as old,
        closing(sqlite3.connect(target)) as new,
        Progress(console=console, disable=not console.is_terminal, transient=True) as progress,
    ):
        task = progress.add_task(source.name, total=None)
        # The copy is of one moment, since all of it is read in one transaction.
        old.execute("BEGIN")
        old.execute("SELECT 1 FROM sqlite_master").fetchall()
        old.backup(
            new,
            pages=_PAGES,
            progress=lambda _, left, total: progress.update(
                task, total=total, completed=total - left
            ),
        )
        # One file, with no others beside it.
        new.execute("PRAGMA journal_mode = DELETE")


def _check_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(found)


def _devices_in(path: Path) -> int:
    with Registry(path, make=False) as registry:
        return registry.count()


def _pack(parts: list[Path], archive: Path) -> None:
    manifest = {
        "format": _FORMAT,
        "ingest": version("ingest"),
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "sha256": {part.name: hashlib.sha256(part.read_bytes()).hexdigest() for part in parts},
    }
    data = json.dumps(manifest, indent=2).encode()
    fd = os.open(archive, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(fd, "wb") as stream:
        with tarfile.open(fileobj=stream, mode="w") as tar:
            head = tarfile.TarInfo(_MANIFEST)
            head.size, head.mode = len(data), 0o600
            tar.addfile(head, io.BytesIO(data))
            for part in parts:
                tar.add(part, part.name)
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def open_backup(file: Path) -> Iterator[dict[str, Path]]:
    """Unpack a backup into a temporary folder, and check all that is in it.

    Returns:
        Where each part is, by its name in the archive, while the block lasts.

    Raises:
        ClickException: it is no backup, or damaged.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(file, "r:") as tar:
                manifest = json.loads(_read(tar, _MANIFEST))
                parts = {name: _unpack(tar, name, digest, Path(folder))
                         for name, digest in _digests(manifest).items()}  # fmt: skip
            for part in parts.values():
                if part.suffix == ".db":
                    _check_database(part)
        except (tarfile.TarError, sqlite3.Error, EOFError, ValueError, KeyError) as error:
            raise click.ClickException(
                f"{file} is no backup of ingest, or damaged: {error}"
            ) from error
        yield parts


def _digests(manifest: Any) -> dict[str, str]:
    if manifest["format"] != _FORMAT:
        raise ValueError(f"it has format {manifest['format']}, this ingest reads {_FORMAT}")
    digests: dict[str, str] = manifest["sha256"]
    if not {_DEVICES} <= digests.keys() <= {_DEVICES, _POSITIONS, _SETTINGS}:
        raise ValueError(f"it holds {', '.join(digests)}")
    return digests


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    stream = tar.extractfile(name)
    if stream is None:
        raise ValueError(f"{name} is no file")
    return stream.read()


def _unpack(tar: tarfile.TarFile, name: str, digest: str, folder: Path) -> Path:
    data = _read(tar, name)
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{name} is not what was written")
    path = folder / name
    path.write_bytes(data)
    return path


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the settings that FILE holds to this file, which is new.",
)
@click.pass_obj
def restore(layout: Layout, file: Path, config: Path | None) -> None:
    """Bring back what `ingest backup` wrote to FILE.

    The devices become those of the backup, also while the listener runs: it cuts, within a second,
    each device that is gone, disabled or has another token there. Positions are brought back only
    where there are none, since the ones that are there are newer.
    """
    with _in_words(file), open_backup(file) as parts:
        if config is not None and _SETTINGS not in parts:
            raise click.ClickException(f"{file} holds no settings: leave out --config")
        if config is not None and config.exists():
            raise click.ClickException(f"{config} exists already: nothing was restored")
        layout.create()
        click.echo(_restore_devices(layout, parts[_DEVICES]))
        if _POSITIONS in parts:
            click.echo(_restore_positions(layout, parts[_POSITIONS]))
        if config is not None:
            config.write_bytes(parts[_SETTINGS].read_bytes())
            click.echo(f"settings: written to {config}")
        elif _SETTINGS in parts:
            click.echo("settings: in the backup; write them to a file with --config FILE")


def _restore_devices(layout: Layout, source: Path) -> str:
    count = format_count(_devices_in(source), "device")
    if _is_empty(layout.devices):
        # No listener that had it open before it was emptied lets others write to it.
        return (
            f"devices: {count}; the file that was empty is now {_replace(layout.devices, source)}"
        )
    try:
        with Registry(layout.devices) as registry:
            registry.check()
            registry.become(source)
    except RegistryError as error:
        if not _is_damaged(error):
            raise
        set_aside = _replace(layout.devices, source)
        return f"devices: {count}; the file that was damaged is now {set_aside}"
    return f"devices: {count}"


def _is_empty(path: Path) -> bool:
    return path.is_file() and not path.stat().st_size


def _is_damaged(error: RegistryError) -> bool:
    code = getattr(error.__cause__, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _replace(path: Path, source: Path) -> Path:
    """Put a copy of `source` in the place of a damaged file, which is kept beside it."""
    set_aside = path.with_name(path.name + ".damaged")
    fresh = path.with_name(path.name + ".restoring")
    fresh.unlink(missing_ok=True)
    _write_new(fresh, source.read_bytes())
    path.replace(set_aside)
    remove_beside(path)
    fresh.replace(path)
    _sync_folder(path.parent)
    return set_aside


def _restore_positions(layout: Layout, source: Path) -> str:
    if layout.positions.exists():
        return f"positions: those in {layout.positions} stay, since they are newer"
    with _locked(layout):
        _write_new(layout.positions, source.read_bytes())
        with closing(Positions(layout.positions)) as positions:
            checkpoint = positions.checkpoint()
            if checkpoint is not None:
                # More may have been sent since; where the log does not tell, numbers are left out.
                positions.save({}, checkpoint._replace(clean=False))
    return f"positions: written to {layout.positions}"


@contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    """Keep listeners out while the block lasts.

    Raises:
        ClickException: one is running.
    """
    try:
        lock = FolderLock(layout)
    except StartError as error:
        raise click.ClickException(f"{error}: stop it to restore the positions") from error
    try:
        yield
    finally:
        lock.release()


def _write_new(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    with suppress(OSError):  # some file systems can't
        os.fsync(fd)
    os.close(fd)
