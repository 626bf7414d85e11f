"""Files that options name: what cannot be read or written is an error that names the file."""

from __future__ import annotations

from pathlib import Path

from api.auth.ca import write_secret
from api.resources.errors import Cause, ConfigError


def data(path: Path) -> bytes:
    """ConfigError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(str(path), [Cause("", f"cannot read it: {error.strerror}")]) from error


def text(path: Path) -> str:
    """ConfigError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [Cause("", f"cannot be read: {error}")]) from error


def keep(path: Path, secret: bytes) -> None:
    """Write it, mode 0600; ConfigError."""
    try:
        write_secret(path, secret)
    except OSError as error:
        raise ConfigError(str(path), [Cause("", f"cannot write it: {error.strerror}")]) from error
