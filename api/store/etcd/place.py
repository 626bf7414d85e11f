"""Where an etcd is, and how it is spoken to: all that comes from the settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PREFIX = "/routed"


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM. `ca` None: the authorities that the system trusts."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class EtcdPlace:
    """`endpoints` are HOST:PORT of the members; `tls` None: in the clear. `password_file` holds
    the password of `user` and nothing else."""

    endpoints: tuple[str, ...]
    prefix: str = PREFIX
    tls: Tls | None = None
    user: str = ""
    password_file: Path | None = None

    def __str__(self) -> str:
        return f"etcd at {', '.join(self.endpoints)}"
