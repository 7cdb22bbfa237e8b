"""`python -m ingest`: the same as `ingest run`."""

import sys

from ingest.cli import main

main(["run", *sys.argv[1:]], prog_name="ingest")
