"""Client certificates: a key and a request on the host, or with a person; a certificate from the
control plane's CA.

The key never leaves where it was made. Of the request only the public key and its proof count:
whose certificate it becomes is said by whoever asks (`api.auth.identity`), never by what is asked.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from api.auth import ca
from api.auth.identity import NODE, Identity
from api.auth.peer import common_name
from api.resources.errors import BadRequest, Cause

BACKDATED = timedelta(minutes=5)  # clocks differ


def key_and_request() -> tuple[bytes, str]:
    """A new P-256 key and a request for its certificate, both in PEM."""
    key = ca.key_bytes(ec.generate_private_key(ec.SECP256R1()))
    return key, request_of(key)


def request_of(key: bytes) -> str:
    """A request for a certificate of a P-256 key in PEM; ValueError if it is none."""
    held = serialization.load_pem_private_key(key, None)
    if not isinstance(held, ec.EllipticCurvePrivateKey) or held.curve.name != "secp256r1":
        raise ValueError("its key must be of the curve P-256")
    asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    made = asked.sign(held, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def key_of_request(text: object) -> ec.EllipticCurvePublicKey:
    """The public key of a request in PEM, whose key has signed it; BadRequest."""
    try:
        if not isinstance(text, str):
            raise ValueError("it must be a text in PEM")
        asked = x509.load_pem_x509_csr(text.encode())
        key = asked.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
            raise ValueError("its key must be of the curve P-256")
        if not asked.is_signature_valid:
            raise ValueError("it is not signed by its own key")
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        said = f"is no certificate request: {error}"
        raise BadRequest(f"cannot sign: request {said}", causes=[Cause("request", said)]) from error
    return key


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA, and for how long its client certificates are good: `seconds` those of nodes, which
    renew them by themselves, `user_seconds` those of people."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    seconds: int
    user_seconds: int = 90 * 86_400

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def sign(self, key: ec.EllipticCurvePublicKey, identity: Identity) -> str:
        """A certificate of `identity` for whoever has the key, in PEM."""
        now = datetime.now(UTC)
        seconds = self.seconds if identity.role == NODE else self.user_seconds
        subject = [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, identity.group),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name(identity.user)),
            x509.NameAttribute(NameOID.USER_ID, identity.uid),
        ]
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + timedelta(seconds=seconds))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(ca.usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(authority, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM).decode()


def belong(certificate: bytes, key: bytes) -> bool:
    """Whether a certificate is for this key; ValueError if one of them is none."""
    public = x509.load_pem_x509_certificate(certificate).public_key()
    return public == serialization.load_pem_private_key(key, None).public_key()


def first_of(pem: bytes) -> bytes:
    """The first certificate in `pem` and nothing else: what is pinned is all that is trusted.
    ValueError if there is none."""
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.PEM)


def pin(pem: bytes) -> str:
    """The SHA-256 of a certificate's public key (SubjectPublicKeyInfo); ValueError."""
    key = x509.load_pem_x509_certificate(pem).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def name_of(pem: bytes) -> str:
    """Who a client certificate of ours says that it is of: the common name, which is cut where the
    user's name is longer. ValueError if it is no certificate."""
    subject = x509.load_pem_x509_certificate(pem).subject
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


@dataclass(frozen=True, slots=True)
class Life:
    """From when to when a certificate is used, in seconds since the epoch."""

    issued: float
    expires: float

    def renewal(self, draw: float) -> float:
        """When to ask for the next one: at two thirds, or by `draw` (0 to 1) up to a tenth of the
        life before, so that those issued together are not renewed together."""
        return self.issued + (self.expires - self.issued) * (2 / 3 - draw / 10)


def life_of(pem: bytes) -> Life:
    """ValueError if it is no certificate."""
    found = x509.load_pem_x509_certificate(pem)
    issued = found.not_valid_before_utc + BACKDATED
    return Life(issued.timestamp(), found.not_valid_after_utc.timestamp())
