"""What the extra `watch` brings; this module needs none of it."""

from typing import Final

PACKAGES: Final = ("duckdb", "matplotlib", "numpy", "pyarrow")
