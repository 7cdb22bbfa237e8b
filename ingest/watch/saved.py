"""Queries that people keep under a name, for all who use the page: one small file of JSON."""

import os
import threading
from pathlib import Path
from typing import Final

import orjson

from ingest.layout import open_own
from ingest.log.files import sync_folder

_MOST: Final = 200
_NAME: Final = 100  # characters
_SQL: Final = 20_000  # characters


class SavedQueriesError(Exception):
    """It can't be kept; the text says why."""


class SavedQueries:
    """The file. Its methods block; they may be called from any thread."""

    def __init__(self, path: Path) -> None:
        """Nothing is read yet.

        Args:
            path: the file; it is made when the first query is kept.
        """
        self._path = path
        self._lock = threading.Lock()

    def all(self) -> dict[str, str]:
        """Return the SQL of each name, in the order of the names.

        Raises:
            SavedQueriesError: the file can't be read.
        """
        try:
            with os.fdopen(open_own(self._path, os.O_RDONLY), "rb") as file:
                kept = orjson.loads(file.read())
            return {str(name): str(sql) for name, sql in kept.items()}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise SavedQueriesError(f"can't read {self._path}: {error.strerror}") from error
        except (ValueError, AttributeError):
            raise SavedQueriesError(
                f"{self._path} is no object of names and queries; move it away"
            ) from None

    def keep(self, name: str, sql: str) -> None:
        """Keep a query; an empty one is forgotten.

        Raises:
            SavedQueriesError: it can't be kept.
        """
        if not 0 < len(name) <= _NAME or not name.isprintable():
            raise SavedQueriesError(f"a name has 1 to {_NAME} printable characters")
        if len(sql) > _SQL:
            raise SavedQueriesError(f"a query that is kept has at most {_SQL:,} characters")
        with self._lock:
            kept = {**self.all(), name: sql}
            kept = {each: kept[each] for each in sorted(kept) if kept[each]}
            if len(kept) > _MOST:
                raise SavedQueriesError(f"{_MOST} queries are kept already; remove one")
            try:
                self._write(orjson.dumps(kept, option=orjson.OPT_INDENT_2))
            except orjson.JSONEncodeError:
                raise SavedQueriesError("the query is not UTF-8") from None
            except OSError as error:
                raise SavedQueriesError(f"can't write {self._path}: {error.strerror}") from error

    def _write(self, content: bytes) -> None:
        """Write all of the file or nothing."""
        new = self._path.with_suffix(".new")
        with os.fdopen(open_own(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.rename(self._path)
        sync_folder(self._path.parent)
