"""kubeconfig files: how clients are told where the service is, whom to trust, who they are.

The same file serves `routectl`, the agent and stock kubectl. It holds a token, or a certificate
with its key: mode 0600. What it says that we cannot do is an error, never passed over: a client
that talks to another proxy, or trusts more than it was told to, is worse than none.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from api.resources.errors import Cause, ConfigError

Document = dict[str, Any]
# What is inside an entry of each list, and which of it names files, relative to the kubeconfig.
ENTRIES = {
    "clusters": ("cluster", ("certificate-authority",)),
    "users": ("user", ("client-certificate", "client-key", "tokenFile")),
    "contexts": ("context", ()),
}
NOT_DONE = {
    "clusters": ("insecure-skip-tls-verify", "tls-server-name", "proxy-url"),
    "users": ("username", "password", "auth-provider", "as"),
}


@dataclass(frozen=True, slots=True)
class Access:
    """Where the service is, its CA, and what proves who `user` is: `token`, or `certificate` and
    `key`. All but server, user and token are PEM; a `ca` of "" is those that the system trusts."""

    server: str
    ca: bytes
    user: str
    token: str = ""
    certificate: bytes = b""
    key: bytes = b""


def render(access: Access) -> str:
    """The file for one user."""
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "routed", "cluster": cluster_of(access)}],
            "users": [{"name": access.user, "user": proof_of(access)}],
            "contexts": [{"name": "routed", "context": {"cluster": "routed", "user": access.user}}],
            "current-context": "routed",
        },
        sort_keys=False,
    )


def cluster_of(access: Access) -> Document:
    """The entry that says where the service is, and its CA."""
    trusted = {"certificate-authority-data": _coded(access.ca)} if access.ca else {}
    return {"server": access.server, **trusted}


def proof_of(access: Access) -> Document:
    """The entry that says who the user is."""
    if not access.certificate:
        return {"token": access.token}
    return {
        "client-certificate-data": _coded(access.certificate),
        "client-key-data": _coded(access.key),
    }


def read(path: Path) -> Access:
    """What the current context of the file says; ConfigError."""
    return access_of(load(path), "", f"kubeconfig {path}")


def load(path: Path) -> Document:
    """The file as a document, in which the paths of files are absolute; ConfigError."""
    source = f"kubeconfig {path}"
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        if document is None:
            return {}
        for plural, (inside, files) in ENTRIES.items():
            for entry in document.get(plural) or ():
                for key in files:
                    if held := entry[inside].get(key):
                        entry[inside][key] = str(path.parent.absolute() / held)
                program = entry[inside].get("exec") or {}
                if "/" in program.get("command", ""):
                    program["command"] = str(path.parent.absolute() / program["command"])
        return dict(document)
    except OSError as error:
        problem = f"cannot read it: {error.strerror}"
        raise ConfigError(source, [Cause("", problem)]) from error
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(source, [Cause("", f"is no kubeconfig: {error}")]) from error


def access_of(document: Document, context: str, source: str, *, public: bool = False) -> Access:
    """What a context says ("": the current one); ConfigError names `source`. With `public`, a
    cluster without a CA of its own is one that the system's CAs vouch for."""
    try:
        held = entry_of(document, "contexts", context or document["current-context"])
        cluster = entry_of(document, "clusters", held["cluster"])
        user = entry_of(document, "users", held["user"])
        for plural, entry in (("clusters", cluster), ("users", user)):
            if undone := next((key for key in NOT_DONE[plural] if entry.get(key)), None):
                raise ValueError(f"{undone!r} in one of its {plural} is not supported")
        server, name = str(cluster["server"]), str(held["user"])
        ca = b"" if public and not _has(cluster, _CA) else _data(cluster, _CA)
        if _has(user, "client-certificate"):
            certificate, key = _data(user, "client-certificate"), _data(user, "client-key")
            return Access(server, ca, name, "", certificate, key)
        if "token" not in user and "tokenFile" in user:
            token = Path(user["tokenFile"]).read_text(encoding="utf-8").strip()
            return Access(server, ca, name, token)
        return Access(server, ca, name, str(user["token"]))
    except KeyError as error:
        raise ConfigError(source, [Cause("", f"lacks {error.args[0]!r}")]) from error
    except OSError as error:
        problem = f"cannot read {error.filename}: {error.strerror}"
        raise ConfigError(source, [Cause("", problem)]) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(source, [Cause("", f"is no kubeconfig: {error}")]) from error


def entry_of(document: Mapping[str, Any], plural: str, name: str) -> Document:
    """What is inside the entry called `name` of a list; KeyError has the name."""
    for entry in document.get(plural) or ():
        if entry["name"] == name:
            return dict(entry[ENTRIES[plural][0]])
    raise KeyError(name)


_CA = "certificate-authority"


def _has(entry: Document, key: str) -> bool:
    return key in entry or f"{key}-data" in entry


def _data(entry: Document, key: str) -> bytes:
    """What is in the entry itself, else in the file that it names."""
    if f"{key}-data" not in entry and key in entry:
        return Path(entry[key]).read_bytes()
    return base64.b64decode(entry[f"{key}-data"], validate=True)


def _coded(data: bytes) -> str:
    return base64.b64encode(data).decode()
