"""The control plane's own CA and server certificate, made on first start.

Keys are P-256 in 0600 files under the data directory. The server's certificate names everything
that it is reached by; it is made anew when a name is missing or it is about to end.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS, SERVER_DAYS, RENEW_DAYS = 3650, 397, 30


@dataclass(frozen=True, slots=True)
class Certificates:
    ca: Path
    ca_key: Path
    certificate: Path
    key: Path


def ensure(directory: Path, names: Sequence[str]) -> Certificates:
    """The certificates in `directory`, made where they are missing."""
    names_of_files = ("ca.crt", "ca.key", "server.crt", "server.key")
    paths = Certificates(*(directory / name for name in names_of_files))
    if not (paths.ca.exists() and paths.ca_key.exists()):
        key = ec.generate_private_key(ec.SECP256R1())
        write_secret(paths.ca_key, key_bytes(key))
        write_secret(paths.ca, _ca(key).public_bytes(serialization.Encoding.PEM))
    if not _good(paths, names):
        ca, signer = authority(paths)
        key = ec.generate_private_key(ec.SECP256R1())
        write_secret(paths.key, key_bytes(key))
        made = _server(key, ca, signer, names)
        write_secret(paths.certificate, made.public_bytes(serialization.Encoding.PEM))
    return paths


def authority(paths: Certificates) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """The CA's certificate and key."""
    signer = serialization.load_pem_private_key(paths.ca_key.read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    return x509.load_pem_x509_certificate(paths.ca.read_bytes()), signer


def write_secret(path: Path, data: bytes) -> None:
    """Replace `path`, mode 0600 from its first byte on."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def builder(
    subject: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks differ
        .not_valid_after(now + timedelta(days=days))
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _ca(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        builder("routed CA", _name("routed CA"), key, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )


def _server(
    key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    signer: ec.EllipticCurvePrivateKey,
    names: Sequence[str],
) -> x509.Certificate:
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return (
        builder("routed server", ca.subject, key, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_alternatives(names)), critical=False)
        .add_extension(authority, critical=False)
        .sign(signer, hashes.SHA256())
    )


def _alternatives(names: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def _good(paths: Certificates, names: Sequence[str]) -> bool:
    if not (paths.certificate.exists() and paths.key.exists()):
        return False
    held = x509.load_pem_x509_certificate(paths.certificate.read_bytes())
    if held.not_valid_after_utc < datetime.now(UTC) + timedelta(days=RENEW_DAYS):
        return False
    present = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(_alternatives(names)) <= set(present)
