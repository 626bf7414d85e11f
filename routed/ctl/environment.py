"""What `routectl` takes from its environment: the one place that reads it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def kubeconfigs() -> list[Path]:
    """The files of $KUBECONFIG, in its order."""
    return [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]


def home() -> Path | None:
    """Whose ~/.kube/config it is; None for somebody without a home."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def editor() -> list[str]:
    """The words that start the user's editor."""
    named = ("KUBE_EDITOR", "VISUAL", "EDITOR")
    found = next((os.environ[name] for name in named if os.environ.get(name)), "vi")
    return shlex.split(found)


def with_more(more: dict[str, str]) -> dict[str, str]:
    """The environment of a child."""
    return {**os.environ, **more}
