"""Certificates for tests of TLS: what `ingest.bench.certificate` makes, with a name and an end."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = timedelta(days=1)


def make_certificate(path: Path, left: timedelta = _DAY, address: str = "127.0.0.1") -> Path:
    """Make a PEM file with a key and a self-signed certificate of `localhost` and an address.

    Args:
        path: of the file.
        left: how long it is valid; negative if it has expired.
        address: which it is for.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address(address))]
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + left)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(built.public_bytes(encoding) + private)  # devices read the first block
    return path


def make_chain(folder: Path) -> tuple[Path, Path]:
    """Make a certificate of `localhost` as a public authority would, by one between.

    Returns:
        What devices trust, and the file that certbot would write, with the key behind it: the
        certificate, and that of the one between.
    """
    now = datetime.now(UTC)
    issuer, issuer_key = None, None
    made = []
    for name in ("root", "between", "localhost"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        is_authority = name != "localhost"
        issuer, issuer_key = issuer or subject, issuer_key or key
        built = (
            x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(issuer_key, hashes.SHA256())
        )
        made.append(built.public_bytes(serialization.Encoding.PEM))
        issuer, issuer_key = subject, key
    root, own = folder / "root.pem", folder / "fullchain.pem"
    root.write_bytes(made[0])
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    own.write_bytes(made[2] + made[1] + private)
    return root, own


def tls_server(certificate: Path) -> ssl.SSLContext:
    """Make a server's context of such a file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context
