"""kubeconfig files: how clients are told where the service is, whom to trust, who they are.

The same file serves `routectl`, the agent and stock kubectl. It holds a token: mode 0600.
"""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from api.resources.errors import Cause, ConfigError


def render(server: str, ca: bytes, user: str, token: str) -> str:
    """The file for one user."""
    cluster = {
        "server": server,
        "certificate-authority-data": base64.b64encode(ca).decode(),
    }
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "routed", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "routed", "context": {"cluster": "routed", "user": user}}],
            "current-context": "routed",
        },
        sort_keys=False,
    )


def parse(path: Path) -> tuple[str, bytes, str]:
    """(server URL, CA certificate in PEM, token) of the current context; ConfigError."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        context_name = document["current-context"]
        context = _named(document["contexts"], context_name)["context"]
        cluster = _named(document["clusters"], context["cluster"])["cluster"]
        user = _named(document["users"], context["user"])["user"]
        ca = base64.b64decode(cluster["certificate-authority-data"], validate=True)
        return str(cluster["server"]), ca, str(user["token"])
    except OSError as error:
        problem = f"cannot read it: {error.strerror}"
        raise ConfigError(f"kubeconfig {path}", [Cause("", problem)]) from error
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"kubeconfig {path}", [Cause("", f"is no kubeconfig: {error}")]
        ) from error
    except KeyError as error:
        problem = f"lacks {error.args[0]!r}"
        raise ConfigError(f"kubeconfig {path}", [Cause("", problem)]) from error


def _named(entries: list[dict[str, object]], name: str) -> dict[str, dict[str, str]]:
    for entry in entries:
        if entry["name"] == name:
            return entry  # type: ignore[return-value]
    raise KeyError(name)
