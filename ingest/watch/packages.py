"""What the extra `watch` brings; this module needs none of it."""

from typing import Final

PACKAGES: Final = ("cel_expr_python", "duckdb", "matplotlib", "numpy", "pyarrow", "re2")
"""By the names that they are imported by."""
