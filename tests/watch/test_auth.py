"""Passwords, and from where the page may be reached."""

import base64
from pathlib import Path

import pytest
from click.testing import CliRunner
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from ingest.cli import main
from ingest.watch.access import AccessError, names_at
from ingest.watch.auth import PasswordFileError, Passwords, password_line, read_passwords

ANNA = password_line("anna", "operate", "pässword:1")


def basic(name: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{name}:{password}".encode())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "passwords"
    path.write_text(f"# who may look\n{ANNA}\n{password_line('bo', 'view', 'x')}\n")
    path.chmod(0o600)
    return path


def test_a_password_proves_a_role(file: Path) -> None:
    passwords = Passwords(file)
    header = basic("anna", "pässword:1")
    assert passwords.remembered(header) is None
    assert passwords.check(header) == "operate"
    assert passwords.remembered(header) == "operate"
    assert passwords.check(basic("bo", "x")) == "view"
    for wrong in (
        *(basic("anna", "x"), basic("", ""), basic("eve", "x"), b"", b"Basic", b"Basic !!"),
        *(b"Bearer x", b"Basic " + base64.b64encode(b"\xff:\xff"), basic("anna", "")),
    ):
        assert passwords.check(wrong) is None, wrong
        assert passwords.remembered(wrong) is None


def test_a_change_of_the_file_counts_at_once(file: Path) -> None:
    passwords = Passwords(file)
    header = basic("anna", "pässword:1")
    assert passwords.check(header) == "operate"
    file.write_text(password_line("bo", "view", "y") + "\n")
    assert passwords.remembered(header) is None
    assert passwords.check(header) is None
    assert passwords.check(basic("bo", "y")) == "view"
    file.unlink()
    assert passwords.remembered(basic("bo", "y")) is None


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        ("", 0o600, "has no user"),
        ("anna:admin:x", 0o600, "line 1 is not NAME:view:HASH"),
        ("anna:view:x", 0o600, "line 1 is not NAME:view:HASH"),
        pytest.param(ANNA, 0o644, "chmod 600", id="open to others"),  # its salt is random
        (b"\xff", 0o600, "can't read"),
    ],
)
def test_a_file_that_makes_no_sense(
    tmp_path: Path, content: str | bytes, mode: int, says: str
) -> None:
    path = tmp_path / "passwords"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    with pytest.raises(PasswordFileError, match=says):
        read_passwords(path)


def test_the_command_writes_a_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, ["page-password", "cy", "--role", "operate"], input="s3\ns3\n"
    )
    assert result.exit_code == 0, result.output
    path = tmp_path / "passwords"
    path.write_text(result.stdout)
    path.chmod(0o600)
    assert Passwords(path).check(basic("cy", "s3")) == "operate"
    bad = CliRunner().invoke(main, ["page-password", "a:b"], input="x\nx\n")
    assert bad.exit_code == 2
    assert "no colon" in bad.output


LOCAL = IPv4Address("TCP", "127.0.0.1", 1)
WIDE = IPv4Address("TCP", "0.0.0.0", 1)


def test_where_it_may_be_reached() -> None:
    names = names_at("tcp:1", LOCAL, ["page.example"], has_passwords=False)
    assert names == frozenset({"127.0.0.1", "localhost", "::1", "page.example"})
    assert names_at("tcp:1", LOCAL, [], has_passwords=True) is None
    assert names_at("unix:x", UNIXAddress("x"), [], has_passwords=False) is None
    assert names_at("ssl:1", WIDE, [], has_passwords=True) is None
    for endpoint, address, has_passwords in (
        ("tcp:1", WIDE, False),
        ("tcp:1", WIDE, True),
        ("ssl:1", WIDE, False),
        ("tcp6:1", IPv6Address("TCP", "::", 1), True),
    ):
        with pytest.raises(AccessError, match="may be reached from other hosts"):
            names_at(endpoint, address, [], has_passwords=has_passwords)
