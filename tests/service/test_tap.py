"""The command line of `twistd ingest`."""

from pathlib import Path

import pytest

from ingest.service.settings import PARSED, Settings, SettingsError
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
        listen=("tcp:1", "tcp:2"), max_frame=1024, allow_plaintext_auth=True
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
