"""Where things are kept below the data folder. Nothing is written elsewhere."""

from dataclasses import dataclass
from pathlib import Path

DEFAULT_DATA = Path("ingest-data")


@dataclass(frozen=True)
class Layout:
    """The names on disk below one data folder."""

    data: Path

    @property
    def log_folder(self) -> Path:
        """The folder of the log: the active file and the rotated ones."""
        return self.data / "log"

    @property
    def state_folder(self) -> Path:
        """The folder of everything that is not the log."""
        return self.data / "state"

    @property
    def devices(self) -> Path:
        """The registry of devices (SQLite)."""
        return self.state_folder / "devices.db"

    @property
    def positions(self) -> Path:
        """The cache of each device's last number (SQLite)."""
        return self.state_folder / "positions.db"

    @property
    def control(self) -> Path:
        """The Unix socket by which the `ingest` command talks to a running listener."""
        return self.state_folder / "control.sock"

    @property
    def lock(self) -> Path:
        """The file that a running listener holds locked, so that no second one writes the log."""
        return self.state_folder / "lock"

    def create(self) -> None:
        """Make the folders that are missing.

        Raises:
            OSError: a folder can't be made or is not a folder.
        """
        self.log_folder.mkdir(parents=True, exist_ok=True)
        self.state_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
