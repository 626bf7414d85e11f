"""kubeconfig files: how clients are told where the service is, whom to trust, who they are.

The same file serves `routectl`, the agent and stock kubectl. It holds a token, or a certificate
with its key: mode 0600.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import yaml

from api.resources.errors import Cause, ConfigError


@dataclass(frozen=True, slots=True)
class Access:
    """Where the service is, its CA, and what proves who `user` is: `token`, or `certificate` and
    `key`. All but server, user and token are PEM."""

    server: str
    ca: bytes
    user: str
    token: str = ""
    certificate: bytes = b""
    key: bytes = b""


def render(access: Access) -> str:
    """The file for one user."""
    cluster = {"server": access.server, "certificate-authority-data": _coded(access.ca)}
    proof = {"token": access.token}
    if access.certificate:
        proof = {"client-certificate-data": _coded(access.certificate)}
        proof["client-key-data"] = _coded(access.key)
    context = {"cluster": "routed", "user": access.user}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "routed", "cluster": cluster}],
            "users": [{"name": access.user, "user": proof}],
            "contexts": [{"name": "routed", "context": context}],
            "current-context": "routed",
        },
        sort_keys=False,
    )


def read(path: Path) -> Access:
    """What the current context of the file says; ConfigError."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        context_name = document["current-context"]
        context = _named(document["contexts"], context_name)["context"]
        cluster = _named(document["clusters"], context["cluster"])["cluster"]
        user = _named(document["users"], context["user"])["user"]
        ca = _decoded(cluster["certificate-authority-data"])
        server, name = str(cluster["server"]), str(context["user"])
        if "client-certificate-data" in user:
            certificate = _decoded(user["client-certificate-data"])
            return Access(server, ca, name, "", certificate, _decoded(user["client-key-data"]))
        return Access(server, ca, name, str(user["token"]))
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


def _coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
