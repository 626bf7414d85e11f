"""The client's certificate of a connection, once TLS has verified it.

The subject says who it is: CN is the user, O its group, UID the identity that it was made for.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SCOPE = "routed.peer"  # where a request's scope has it


NAME_MOST = 64  # characters of a common name (RFC 5280, A.1)


def common_name(user: str) -> str:
    """A user as a subject can name it; one whose name is longer is known by the uid alone."""
    return user[:NAME_MOST]


@dataclass(frozen=True, slots=True)
class Peer:
    """`expires` is in seconds since the epoch."""

    name: str
    group: str
    uid: str
    expires: float


def peer_of(certificate: Mapping[str, Any] | None) -> Peer | None:
    """Out of what `ssl.SSLObject.getpeercert` gives; None without a certificate, or with one that
    is nobody's."""
    if not certificate:
        return None
    found: dict[str, str] = {}
    for relative in certificate.get("subject", ()):
        found |= dict(relative)
    try:
        expires = ssl.cert_time_to_seconds(certificate["notAfter"])
        return Peer(found["commonName"], found["organizationName"], found["userId"], float(expires))
    except (KeyError, ValueError):
        return None
