"""Line formats: what the specification says of them, and what no line may do to its neighbours."""

import json
import math
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import ingest.wire
from ingest.names import FORMATS
from ingest.record import Values, parse, record_block
from ingest.wire.formats import line_format
from ingest.wire.ingest1.text_dialect import TextDialect
from ingest.wire.mapping import MAX_DEPTH
from tests.wire.streams import bytewise, check, cut, cuts, read

SPECIFICATION = (Path(ingest.wire.__file__).parents[1] / "PROTOCOL.md").read_text()
SECTION = SPECIFICATION.partition("\n## Line formats\n")[2]
EXAMPLES = re.findall(
    r'^\| `([a-z]+)` \| `(.*)` \| `("(?:text|data).*)` \|$', SECTION, re.MULTILINE
)


def fields_of(values: Values) -> list[bytes]:
    """Write what records have behind their numbers."""
    if not values.items:
        return []
    block = record_block(b"t", b"d", 1, values)
    prefix = b'{"time":"t","device":"d","seq":%d,'
    return [
        line.removeprefix(prefix % number).removesuffix(b"}")
        for number, line in enumerate(block[:-1].split(b"\n"), 1)
    ]


def parsed(name: str, *lines: bytes) -> tuple[list[bytes], int]:
    """Parse lines as one block: their fields, and how many are not in the format."""
    frames = line_format(name)(b"".join(line + b"\n" for line in lines))
    assert frames.error is None
    return fields_of(frames.values), frames.unparsed


def data_of(name: str, line: bytes) -> Any:
    """Return the data of a line that is in its format."""
    [field], unparsed = parsed(name, line)
    assert unparsed == 0
    return orjson.loads(b"{%b}" % field)["data"]


def dialect(name: str) -> TextDialect:
    made = TextDialect(65536)
    made.parse_by(line_format(name))
    return made


@pytest.mark.parametrize(("name", "line", "field"), EXAMPLES)
def test_examples_of_the_specification(name: str, line: str, field: str) -> None:
    stays = name != "opaque" and field.startswith('"text"')
    assert parsed(name, line.encode()) == ([field.encode()], int(stays))


def test_each_format_has_a_row_and_examples_of_both_kinds() -> None:
    assert tuple(re.findall(r"^\| `([a-z]+)` \| [^`]", SECTION, re.MULTILINE)) == FORMATS
    for name in FORMATS[1:]:
        kinds = {field[1:5] for format_, _, field in EXAMPLES if format_ == name}
        assert kinds == {"text", "data"}


@pytest.mark.parametrize("name", FORMATS)
def test_whole_and_byte_by_byte(name: str) -> None:
    examples = [each for each in EXAMPLES if each[0] == name]
    stream = b"".join(line.encode() + b"\r\n\n" for _, line, _ in examples)
    fields = [field.encode() for *_, field in examples]
    last = parsed(name, b"123")[0][0]
    check(lambda: dialect(name), stream, fields, trailing=(b"12", b"3\n", last))


words = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=12)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words | st.just("$n"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
lines = st.one_of(
    jsons.map(lambda value: json.dumps(value).encode()),
    jsons.map(lambda value: json.dumps(value, ensure_ascii=False, indent=None).encode()),
    st.binary(max_size=12).map(lambda data: data.replace(b"\n", b"").replace(b"\r", b"")),
    st.sampled_from([line.encode() for _, line, _ in EXAMPLES]),
    st.sampled_from([b"[1", b"2]", b'{"a":1', b'"b":2}', b"1,2", b'"a', b'b"', b"{", b"}", b"]"]),
)


@given(name=st.sampled_from(FORMATS), block=st.lists(lines, max_size=12))
@example(name="json", block=[b"[1", b"2]"])
@example(name="json", block=[b"1,2", b"[3", b"4]"])
@example(name="json", block=[b'"a', b'b"'])
@example(name="json", block=[b'{"a":1', b'"b":2}'])
@example(name="json", block=[b'{"a":1', b"2}"])
@example(name="json", block=[b'{"a":["}]"', b'"[{",1]}'])
def test_a_line_is_what_it_is_alone(name: str, block: list[bytes]) -> None:
    """Whatever stands beside it: no line is lost, joined to another, or read otherwise."""
    alone = [parsed(name, line) for line in block if line]
    fields, unparsed = parsed(name, *block)
    assert fields == [field for fields, _ in alone for field in fields]
    assert unparsed == sum(number for _, number in alone)


long_lines = lines | lines.map(lambda line: json.dumps("é" * 700 + repr(line)).encode())


@given(runs=st.lists(st.tuples(long_lines, st.integers(1, 300)), max_size=8))
@example(runs=[(b'{"a":1}', 300), (b"booting", 1)] * 4)
@example(runs=[(b'{"a":1}', 300), (b'{"a":1', 1), (b'"b":2}', 1), (b"", 3), (b"1", 9)])
@example(runs=[(b"1", 300), (b'"\xff"', 1), (b"2", 300), (b'{"$a":1}', 1), (b"[NaN]", 1)])
@example(runs=[(b'{"a":1}', 1025), (b"[" + b"1," * 700, 1), (b"1", 30), (b"x" * 9000, 2)])
def test_many_lines_of_json_are_what_they_are_alone(runs: list[tuple[bytes, int]]) -> None:
    """Whichever way leads through a read: all lines at once, in parts, or one by one."""
    alone = [(*parsed("json", line), times) for line, times in runs if line]
    fields, unparsed = parsed("json", *(line for line, times in runs for _ in range(times)))
    assert fields == [field for fields, _, times in alone for field in fields * times]
    assert unparsed == sum(number * times for _, number, times in alone)


@given(name=st.sampled_from(FORMATS), line=lines)
def test_each_line_becomes_one_record_that_readers_take(name: str, line: bytes) -> None:
    fields, unparsed = parsed(name, line)
    if not line:
        assert (fields, unparsed) == ([], 0)
        return
    [field] = fields
    record = parse(b'{"time":"t","device":"d","seq":1,' + field + b"}")
    assert json.loads(record.line)  # another reader than orjson
    assert field.isascii() or "\x9b" not in field.decode()
    assert b"\x7f" not in field
    if record.kind != "data":
        assert unparsed == (name != "opaque")
        assert fields == parsed("opaque", line)[0]  # kept as it came


@given(name=st.sampled_from(FORMATS), block=st.lists(lines, max_size=8), places=cuts)
def test_any_split(name: str, block: list[bytes], places: list[int]) -> None:
    stream = b"".join(line + b"\n" for line in block)
    whole = read(dialect(name), [stream] if stream else [])
    assert read(dialect(name), cut(stream, places)) == whole
    assert read(dialect(name), bytewise(stream)) == whole


@given(jsons)
def test_json_is_read_as_python_reads_it(value: Any) -> None:
    line = json.dumps(value).encode()
    fields, unparsed = parsed("json", line)
    finite = value if "NaN" not in (text := line.decode()) and "Infinity" not in text else None
    if unparsed:  # half of a surrogate pair, or an integer beyond a double, which no reader takes
        assert b"\\ud" in line or len(line) > 300
    elif finite is not None and b"$" not in line:
        assert json.loads(b"{%b}" % fields[0])["data"] == value


@pytest.mark.parametrize("deep", [1, MAX_DEPTH, MAX_DEPTH + 1, 2000, 40_000])
@pytest.mark.parametrize(("begin", "end"), [(b"[", b"]"), (b'{"a":', b"}"), (b'["]",', b"]")])
def test_how_deep_json_may_nest(deep: int, begin: bytes, end: bytes) -> None:
    line = begin * deep + b"1" + end * deep
    for block in ([line], [b"1", line, b"2"]):
        fields, unparsed = parsed("json", *block)
        assert unparsed == (deep > MAX_DEPTH)
        assert len(fields) == len(block)


def test_many_brackets_are_not_deep() -> None:
    assert data_of("json", b"[" + b'{"a":[]},' * 500 + b"1]")[-1] == 1
    assert data_of("json", b'"' + b"[" * 500 + b'"') == "[" * 500


@pytest.mark.parametrize(
    "digits",
    ["9223372036854775807", "-9223372036854775809", "18446744073709551615", "1" + "0" * 40, "-0"],
)
def test_integers_keep_their_digits(digits: str) -> None:
    field = b'"data":{"n":%b}' % digits.encode().replace(b"-0", b"0")
    assert parsed("json", b'{"n":%b}' % digits.encode()) == ([field], 0)
    if digits != "-0":
        assert parsed("logfmt", b"n=" + digits.encode()) == ([field], 0)
        assert parsed("csv", digits.encode()) == ([b'"data":[%b]' % digits.encode()], 0)


@pytest.mark.parametrize("line", [b"1e400", b"-1e999", b"[" + b"9" * 400 + b"]", b'"\\ud800"'])
def test_what_no_reader_takes_stays_text(line: bytes) -> None:
    assert parsed("json", line)[1] == 1
    assert parsed("json", b"[NaN]", line, b"1")[1] == 1


@pytest.mark.parametrize("word", ["1e400", "0x1f", "1_000", "1.2.3", "--1", "+", ".", "e5", "１"])
def test_what_is_no_number(word: str) -> None:
    assert data_of("logfmt", f"a={word}".encode()) == {"a": word}
    assert data_of("csv", word.encode()) == [word]
    assert parsed("graphite", f"a {word}".encode())[1] == 1
    assert parsed("influx", f"m a={word}".encode())[1] == 1


@pytest.mark.parametrize(
    ("word", "value"), [("+5", 5), (".5", 0.5), ("5.", 5.0), ("-.5", -0.5), ("1E3", 1000.0)]
)
def test_numbers_of_devices(word: str, value: float) -> None:
    assert data_of("logfmt", f"a={word}".encode()) == {"a": value}
    assert data_of("graphite", f"a {word} 1".encode())["value"] == value


@pytest.mark.parametrize(("word", "name"), [("nan", "NaN"), ("-Inf", "-Infinity")])
def test_numbers_that_are_not_finite(word: str, name: str) -> None:
    assert data_of("csv", word.encode()) == [{"$number": name}]
    assert data_of("influx", f"m a={word}".encode())["fields"] == {"a": {"$number": name}}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_doubles_come_back(value: float) -> None:
    text = repr(value).encode()
    for found in (
        data_of("json", text),
        data_of("csv", text)[0],
        data_of("logfmt", b"a=" + text)["a"],
    ):
        assert float(found) == value
        assert math.copysign(1, found) == math.copysign(1, value)


@pytest.mark.parametrize(
    ("line", "data"),
    [
        (
            r"my\ place,t\,ag=a\=b f\ 1=1u",
            {"measurement": "my place", "tags": {"t,ag": "a=b"}, "fields": {"f 1": 1}},
        ),
        (
            r'm a="x \"y\" \\ , =",b=F',
            {"measurement": "m", "fields": {"a": 'x "y" \\ , =', "b": False}},
        ),
        ("m a=1,a=2 -5", {"measurement": "m", "fields": {"a": 2}, "timestamp": -5}),
        ("m $a=1", {"measurement": "m", "fields": {"$map": [["$a", 1]]}}),
        ("m,$t=x a=1", {"measurement": "m", "tags": {"$map": [["$t", "x"]]}, "fields": {"a": 1}}),
    ],
)  # fmt: skip
def test_influx(line: str, data: Any) -> None:
    assert data_of("influx", line.encode()) == data


@pytest.mark.parametrize(
    "line",
    [
        *("m", "m ", "m a", "m a=", "m a=x", "m,t a=1", "m,t= a=1", "m a=1 x", "m a=1 1 1"),
        *("m a=9223372036854775808i", "m a=-1u", "m a=18446744073709551616u", 'm a="x', "m a=1,"),
        *("# a b=1", ",t=1 a=1", "m a=1 9223372036854775808", " m a=1"),
        *("m a=007", "m a=007i", "m a=007u", "m a=-00i", "m a=1 007"),
    ],
)  # fmt: skip
def test_what_is_not_influx(line: str) -> None:
    assert parsed("influx", line.encode())[1] == 1


@pytest.mark.parametrize(
    "line", ["a", "a=1 =2", 'a="b', 'a="b"c', "word a=1", 'a="\\x"', "=", 'a="\\ud800"', 'a=b"c"']
)
def test_what_is_not_logfmt(line: str) -> None:
    assert parsed("logfmt", line.encode())[1] == 1


def test_logfmt_words() -> None:
    assert data_of("logfmt", b'a= b="" c=true d=null e=x=y\tf') == {
        "a": "", "b": "", "c": True, "d": None, "e": "x=y", "f": True,
    }  # fmt: skip


@pytest.mark.parametrize("line", ["a 1 2 3", "a;b 1", "a;=b 1", "a;b= 1", ";a=b 1", "a 1 x", "a"])
def test_what_is_not_graphite(line: str) -> None:
    assert parsed("graphite", line.encode())[1] == 1


@pytest.mark.parametrize("line", [b"a 1", b"a 1 -1"])
def test_graphite_without_a_time(line: bytes) -> None:
    assert data_of("graphite", line) == {"path": "a", "value": 1}


RMC = b"$GPRMC,123519,A,4807.038,S,01131.000,W,022.4,084.4,230394,003.1,W"


def with_checksum(sentence: bytes) -> bytes:
    checksum = 0
    for byte in sentence[1:]:
        checksum ^= byte
    return b"%b*%02X" % (sentence, checksum)


def test_nmea() -> None:
    for line in (RMC, with_checksum(RMC)):
        data = data_of("nmea", line)
        assert (data["lat"], data["lon"]) == (-48.1173, -11.5166667)
        assert (data["speed_kn"], data["course"]) == (22.4, 84.4)
    gga = data_of("nmea", b"$GNGGA,123519,,,,,0,00,,-00.5,M,,M,,")
    assert gga.keys() & {"lat", "lon", "hdop"} == set()
    assert (gga["satellites"], gga["altitude_m"]) == (0, -0.5)
    assert data_of("nmea", b"$PMTK001,604,3*32")["talker"] == "P"
    assert data_of("nmea", b"!AIVDM,1,1,,A,14eG;o@034o8sd<L9i:a;WF>062D,0*7D")["sentence"] == "VDM"


@pytest.mark.parametrize(
    "angles",
    [
        *("99994916.45,N,99912311.12,W", "4807.038,E,01131.000,N", "9000.001,N,18000.001,W"),
        *("4860.000,N,01160.000,E", "4807.038,,01131.000,", "4807.038", ""),
    ],
)  # fmt: skip
def test_what_is_no_place_on_earth(angles: str) -> None:
    assert not data_of("nmea", b"$GPGLL," + angles.encode()).keys() & {"lat", "lon"}


@pytest.mark.parametrize(
    "line", [RMC + b"*00", RMC + b"*", b"GPRMC,1", b"$", b"$GP", b"$gprmc,1", RMC + b"*1"]
)
def test_what_is_not_nmea(line: bytes) -> None:
    assert parsed("nmea", line)[1] == 1


@pytest.mark.parametrize("line", ['a"b', '"a"b', '"a', 'a,"b"c,d'])
def test_what_is_not_csv(line: str) -> None:
    assert parsed("csv", line.encode())[1] == 1


def test_csv_cells() -> None:
    assert data_of("csv", b'"20.5", 1 ,x , y,"",') == ["20.5", 1, "x ", " y", "", None]


def test_a_format_of_a_newer_ingest_is_opaque() -> None:
    assert line_format("yaml")(b"a: 1\n") == line_format("opaque")(b"a: 1\n")
