"""What PROTOCOLS.md says that fields are called, of records as protocols and formats make them."""

import re
from pathlib import Path

import orjson
import pytest

import ingest
from ingest.watch.fields import fields_in
from ingest.wire.formats import line_format
from ingest.wire.syslog.messages import values_of
from tests.log.logs import line
from tests.watch.rules.making import engine
from tests.wire.formats.test_formats import fields_of as written

TEXT = (Path(ingest.__file__).parent / "PROTOCOLS.md").read_text()
SECTION = TEXT.partition("\n## What fields are called\n")[2].partition("\n## ")[0]

VALUES = {
    "of syslog": values_of([b'<13>1 - web - - - [a@1 b="7"] x']),
    "`--format influx`": line_format("influx")(b"room,place=roof temp=20.5\n").values,
    "`--format csv`": line_format("csv")(b"20.5,shut\n").values,
}


@pytest.mark.parametrize("kind", VALUES)
def test_names_of_fields(kind: str) -> None:
    (row,) = re.findall(rf"^\| {re.escape(kind)} \| (.*) \|$", SECTION, re.MULTILINE)
    (field,) = written(VALUES[kind])
    record = orjson.loads(b"{%b}" % field)
    assert set(re.findall(r"`([^`]+)`", row)) <= fields_in("data", record["data"]).keys()


def test_conditions_of_rules(tmp_path: Path) -> None:
    """Each that the document writes about a line of Influx holds for the one above."""
    conditions = re.findall(r"`(\S+ [=>]+ \S+)`", SECTION)
    assert len(conditions) == 2
    (field,) = written(VALUES["`--format influx`"])
    for condition in conditions:
        rules = engine(tmp_path, f"[[rule]]\nname = 'it'\nwhen = '{condition}'\n")
        assert len(rules.feed(line(1, field.decode()) + b"\n")) == 1, condition
