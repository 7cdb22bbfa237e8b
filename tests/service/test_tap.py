"""The command line of `twistd ingest`."""

from pathlib import Path

import pytest

from ingest.service.settings import PARSED, Listen, Settings, SettingsError
from ingest.service.tap import Options


def parse(*arguments: str) -> Options:
    options = Options()
    options.parseOptions(list(arguments))
    return options


def test_without_options() -> None:
    assert parse().settings == Settings()


def test_options() -> None:
    settings = parse(
        "--listen", "tcp:1", "-l", "tcp:2", "--max-frame=1KiB", "--allow-plaintext-auth"
    ).settings  # fmt: skip
    assert settings == Settings(
        listen=(Listen("tcp:1"), Listen("tcp:2")), max_frame=1024, allow_plaintext_auth=True
    )


@pytest.mark.parametrize(
    "arguments", [("--max-frame", "huge"), ("--nonsense",), ("surplus",), ("--config", "missing")]
)
def test_what_makes_no_sense_is_one_line(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*arguments)
    text = str(caught.value)
    assert text.startswith("twistd ingest: ") and text.endswith("; see twistd ingest --help")
    assert "\n" not in text


def test_the_file_is_read_afresh(tmp_path: Path) -> None:
    config = tmp_path / "ingest.toml"
    config.write_text("keep-files = 1\nmax-frame = 100")
    options = parse("--config", str(config), "--max-frame", "200")
    assert (options.settings.keep_files, options.settings.max_frame) == (1, 200)
    config.write_text("keep-files = 2\nmax-frame = 100")
    assert (options.read().keep_files, options.read().max_frame) == (2, 200)
    config.write_text("keep-files = -1")
    with pytest.raises(SettingsError, match="keep-files"):
        options.read()


def test_every_option_is_explained_with_its_default() -> None:
    text = " ".join(parse().getUsage(width=10_000).split())
    for option in ("--listen", "--config", "--max-frame", "--allow-plaintext-auth", "--durability"):
        assert option in text
    assert text.count("[default: ") == len(PARSED) + 1


def test_options_of_a_listener(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("s3cr3t\n")
    options = Options()
    options.parseOptions(
        ["--listen", "tcp:1", "--listen", "forward=tcp:2", "--listen-option", "device=a=b",
         "--listen-option", f"shared-key-file={secret}"]
    )  # fmt: skip
    second = Listen("tcp:2", "forward", {"device": "a=b", "shared-key": "s3cr3t"})
    assert options.settings.listen == (Listen("tcp:1"), second)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--listen-option", "a=b"], "behind its --listen"),
        (["--listen", "tcp:1", "--listen-option", "a"], "NAME=VALUE"),
        (["-l", "tcp:1", *["--listen-option", "a=b"] * 2], "a: it is given twice"),
        (["-l", "tcp:1", "--listen-option", "a-file=/nowhere"], "a-file /nowhere: No such"),
    ],
)
def test_options_of_a_listener_that_make_no_sense(arguments: list[str], what: str) -> None:
    with pytest.raises(SystemExit, match=what):
        Options().parseOptions(arguments)
