"""Puts uPlot, which draws the curves of the page, into the package when it is built.

The files come from the wheel `uplot-python`, which is needed only then. They go into a folder of
the package that git ignores, so an editable install finds them as well.
"""

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "ingest/watch/page/vendor"
FILES = {
    "uPlot.iife.js": "655bc8aa33781e8721c5af6b59f1699c03c9bda951aa74a6ab518ac20cc4326d",
    "uPlot.min.css": "3f121cd4a997b634e07a887658850018e475c26f0bddd874109a8d382c19de87",
}
"""What is taken, and the SHA-256 of each: another file is refused."""

LICENCE = """\
uPlot (https://github.com/leeoniya/uPlot) is under the MIT licence.

Copyright (c) 2021, Leon Sorokin

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT
OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


class PageHook(BuildHookInterface):
    """Called by hatchling before it makes a wheel, an editable one too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Write the files."""
        folder = Path(self.root) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for name, wanted in FILES.items():
            content = (files("uplot") / "static" / name).read_bytes()
            found = hashlib.sha256(content).hexdigest()
            if found != wanted:
                raise ValueError(f"{name} of uplot-python has SHA-256 {found}, not {wanted}")
            (folder / name).write_bytes(content)
        (folder / "LICENSE.txt").write_text(LICENCE)
        build_data["artifacts"].append(f"/{FOLDER}/")
