"""The settings: defaults, a file, the command line, and what makes no sense."""

from pathlib import Path
from typing import Any

import pytest

from ingest.journal.archive import ArchivePolicy
from ingest.journal.file import JournalPolicy
from ingest.journal.rotation import RetentionPolicy, RotationPolicy
from ingest.service.reading import read_settings
from ingest.service.settings import PARSED, Listen, Settings, SettingsError


def read(given: dict[str, Any], config: str | None, tmp_path: Path) -> Settings:
    if config is None:
        return read_settings(given, None)
    path = tmp_path / "ingest.toml"
    path.write_text(config)
    return read_settings(given, path)


def test_the_defaults() -> None:
    settings = read_settings({}, None)
    assert settings == Settings()
    assert settings.listen == (Listen("tcp:7650"),)
    assert settings.data == Path("ingest-data")
    assert (settings.rotate_size, settings.rotate_every) == (256 << 20, 86400)
    assert (settings.keep_files, settings.keep_days, settings.keep_bytes) == (0, 0, 0)
    assert (settings.compress, settings.durability) == ("none", "fsync")
    assert (settings.max_frame, settings.handshake_timeout, settings.idle_timeout) == (
        65536,
        10,
        3600,
    )
    assert settings.max_connections > 100
    assert not settings.allow_plaintext_auth


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("data", "/var/lib/ingest", Path("/var/lib/ingest")),
        ("rotate_size", "64MiB", 64 << 20),
        ("rotate_size", "0", 0),
        ("rotate_every", "1h", 3600),
        ("rotate_every", "0", 0),
        ("keep_files", "10", 10),
        ("keep_days", "0", 0),
        ("keep_bytes", "10GB", 10 * 1000**3),
        ("compress", "zstd", "zstd"),
        ("durability", "os", "os"),
        ("max_connections", "1", 1),
        ("max_frame", "1GiB", 1 << 30),
        ("handshake_timeout", "250ms", 0.25),
        ("idle_timeout", "1d", 86400),
        ("idle_timeout", "0", 0),
    ],
)
def test_a_value(name: str, text: str, value: object) -> None:
    assert getattr(read_settings({name: text}, None), name) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rotate_size", "much"),
        ("rotate_size", "-1"),
        ("rotate_every", "5 fortnights"),
        ("rotate_every", "999ms"),
        ("data", ""),
        ("keep_files", "1.5"),
        ("keep_files", "-1"),
        ("keep_days", "1d"),
        ("compress", "ZSTD"),
        ("durability", "none"),
        ("max_connections", "0"),
        ("max_connections", "²"),
        ("max_frame", "0"),
        ("max_frame", "2GiB"),
        ("handshake_timeout", "0"),
        ("idle_timeout", ""),
        ("listen", []),
    ],
)
def test_a_value_that_makes_no_sense(name: str, text: str | list[str]) -> None:
    with pytest.raises(SettingsError, match=f"^--{name.replace('_', '-')}: "):
        read_settings({name: text}, None)


def test_a_file(tmp_path: Path) -> None:
    config = """
    listen = ["tcp:7650", "unix:/run/ingest"]
    allow-plaintext-auth = true
    max-frame = 1024
    idle-timeout = 0.5
    compress = "gzip"
    """
    settings = read({}, config, tmp_path)
    assert settings.listen == (Listen("tcp:7650"), Listen("unix:/run/ingest"))
    assert settings.allow_plaintext_auth
    assert (settings.max_frame, settings.idle_timeout, settings.compress) == (1024, 0.5, "gzip")


def test_one_endpoint_needs_no_list(tmp_path: Path) -> None:
    assert read({}, 'listen = "tcp:1"', tmp_path).listen == (Listen("tcp:1"),)


def test_the_command_line_wins(tmp_path: Path) -> None:
    config = 'listen = ["tcp:1"]\nmax-frame = "1KiB"\nkeep-files = 3'
    settings = read({"listen": ["tcp:2"], "max_frame": "2KiB"}, config, tmp_path)
    assert settings.listen == (Listen("tcp:2"),)
    assert (settings.max_frame, settings.keep_files) == (2048, 3)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("max_frame = 1", "there is no setting 'max_frame'"),
        ("frames = 1", "there is no setting 'frames'"),
        ("[listener]\nmax-frame = 1", "there is no setting 'listener'"),
        ("[ingest]\nmax-frame = 1", "no setting 'ingest'; settings stand above all tables"),
        ("max-frame = true", "max-frame: one value is wanted"),
        ("max-frame = [1]", "max-frame: one value is wanted"),
        ("max-frame = 2026-11-22", "max-frame: one value is wanted"),
        ("listen = 7650", 'listen: an endpoint such as "tcp:7650"'),
        ("listen = [7650]", 'listen: an endpoint such as "tcp:7650"'),
        ("\n\nkeep-files = -1", "line 3: keep-files: '-1' is not a whole number of at least 0"),
        (
            '"keep\\u002dfils" = 1',
            "toml: there is no setting 'keep-fils'; did you mean keep-files?",
        ),
        ("data = 5", 'line 1: data: a string is wanted, such as "ingest-data"'),
        ("http = 7680", "line 1: http: a string is wanted"),
        ('http = ""', "http: an endpoint is wanted, and it is empty"),
        ('http-token-file = ""', "a file is wanted, and it is empty"),
        (
            "[[dial]]\ndevice = 'a'\nconnect = 'x'\nclose = true\nevery = '1s'\n\n"
            "[[dial]]\nconnct = 'x'",
            "line 7: dial: table 2, without a device: there is no 'connct'; did you mean connect?",
        ),
        ("[[listen]]\nendpoint = 'tcp:1'\n[[listen]]\nprotocol = 'syslog'", "line 3: listen: "),
        ('allow-plaintext-auth = "yes"', "allow-plaintext-auth: true or false is wanted"),
        ('rotate-every = "soon"', "rotate-every: 'soon' is not a duration"),
        ("max-frame 1", "not TOML: "),
        ("\udcff", "not TOML: "),
    ],
)
def test_a_file_that_makes_no_sense(tmp_path: Path, config: str, words: str) -> None:
    path = tmp_path / "ingest.toml"
    path.write_bytes(config.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingsError) as caught:
        read_settings({}, path)
    text = str(caught.value)
    assert text.startswith((f"{path}: ", f"{path}, line "))
    assert words in text
    assert "\n" not in text


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.toml: No such file"):
        read_settings({}, tmp_path / "missing.toml")


def test_how_the_journal_is_to_keep_records() -> None:
    given = {
        "rotate_size": "1MiB", "rotate_every": "1h", "compress": "gzip", "keep_files": "3",
        "keep_days": "2", "keep_bytes": "1GiB", "durability": "os",
    }  # fmt: skip
    assert read_settings(given, None).journal_policy() == JournalPolicy(
        RotationPolicy(1 << 20, 3600),
        ArchivePolicy("gzip", RetentionPolicy(3, 2 * 86400, 1 << 30)),
        sync=False,
    )
    assert Settings().journal_policy().sync


@pytest.mark.parametrize("setting", PARSED, ids=lambda setting: setting.name)
def test_every_default_is_what_its_text_says(setting: Any) -> None:
    metadata = setting.metadata
    assert metadata["parse"](metadata["default"]) == getattr(Settings(), setting.name)
    assert metadata["help"] and metadata["metavar"].isupper()


def test_tables_of_listeners(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("s3cr3t\n")
    config = f"""
        [[listen]]
        endpoint = "tcp:1"
        [[listen]]
        endpoint = "tcp:2"
        protocol = "forward"
        shared-key-file = "{secret}"
        networks = ["10.0.0.0/8"]
    """
    settings = read({}, config, tmp_path)
    options = {"shared-key": "s3cr3t", "networks": ["10.0.0.0/8"]}
    assert settings.listen == (Listen("tcp:1"), Listen("tcp:2", "forward", options))
    assert settings.as_written()["listen"] == "tcp:1 forward=tcp:2"
    assert "s3cr3t" not in repr(settings)


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ('protocol = "syslog"', "a table has endpoint"),
        ('endpoint = "tcp:1"\nprotocol = 1', "a table has endpoint"),
        ('endpoint = "tcp:1"\nkey-file = "/nowhere/at/all"', "key-file /nowhere/at/all: No such"),
        ('endpoint = "tcp:1"\nkey-file = 1', "key-file 1: no file of text"),
        ('endpoint = "tcp:1"\nkey-file = "k"\nkey = "k"', "both key and key-file"),
    ],
)
def test_tables_that_make_no_sense(lines: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=what):
        read({}, f"[[listen]]\n{lines}", tmp_path)
