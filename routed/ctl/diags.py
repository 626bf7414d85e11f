"""One archive with everything that somebody who helps would ask for, and no secret in it.

Secrets are kept out three times: files that hold them (kubeconfigs, ExaBGP's configuration with
MD5 passwords, keys) are never read into it; whatever is read is searched for the secrets of this
host that we know of, and for PEM keys and bearer tokens by their look; the archive is 0600.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import httpx

from api.auth import kubeconfig
from api.client import Client
from api.resources.errors import Forbidden, RoutedError
from api.resources.registry import KINDS, Kind
from routed.ctl.connection import Connection
from routed.ctl.contexts import NoContext
from routed.ctl.progress import progress
from routed.settings import AgentSettings

COMMANDS = {
    "ip-link": "ip -details -statistics link show",
    "ip-addr": "ip address show",
    "ip-route": "ip -details route show table all",
    "ip-route-6": "ip -6 route show table all",
    "ip-rule": "ip rule show",
    "ip-neigh": "ip neighbour show",
    "ip-nexthop": "ip nexthop show",
    "ip-netns": "ip netns list-id",
    "nft": "nft list ruleset",
    "sysctl": "sysctl -a --pattern net[.]ipv[46]",
    "sockets": "ss -tunap",
    "uname": "uname -a",
    "uptime": "uptime",
    "journal": "journalctl --no-pager -n 5000 -u routed-agent -u routed-speaker -u routed-server",
}
PEM = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.S)
BEARER = re.compile(rb"(?i)(bearer|token|password|secret)([\"']?\s*[:=]\s*[\"']?|\s+)[^\s\"',}]+")
OURS = re.compile(rb"\brtb?-[\w-]{43}(\.[\w.-]+)?", re.A)  # tokens, of bootstrap too
REMOVED = b"[removed]"
MOST = 16 << 20  # bytes of one part


@dataclass(frozen=True, slots=True)
class Part:
    """A member of the archive."""

    name: str
    data: bytes


def collect(
    settings: AgentSettings, config: Path | None, connection: Connection, logs: Iterable[Path] = ()
) -> list[Part]:
    """Everything, already without secrets. What cannot be had is a part that says why."""
    secrets = known_secrets(settings, connection)
    sources = (_commands(), _agent(settings), _files(settings, config, logs))
    parts = []
    with progress("collecting", None) as done:
        for part in chain(*sources, _objects(settings, connection)):
            parts.append(Part(part.name, without_secrets(part.data[:MOST], secrets)))
            done(part.name)
    return parts


def write(path: Path, parts: Iterable[Part]) -> None:
    """The archive, all or nothing, readable by its owner alone."""
    temporary = path.with_name(f".{path.name}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
            for part in parts:
                member = tarfile.TarInfo(f"routed-diags/{part.name}")
                member.size, member.mtime, member.mode = len(part.data), int(time.time()), 0o600
                tar.addfile(member, io.BytesIO(part.data))
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def without_secrets(data: bytes, secrets: Iterable[bytes]) -> bytes:
    """`data` with everything that is or looks like a secret taken out."""
    for secret in secrets:
        data = data.replace(secret, REMOVED)
    return BEARER.sub(rb"\1\2" + REMOVED, PEM.sub(REMOVED, OURS.sub(REMOVED, data)))


def known_secrets(settings: AgentSettings, connection: Connection) -> list[bytes]:
    """Tokens and keys of the kubeconfigs here, passwords of BGP peers."""
    found = []
    for user in _users(settings, connection):
        found.append(str(user.get("token", "")).encode())
        try:
            key = user.get("client-key-data", "")
            found += [str(key).encode(), base64.b64decode(key)]
        except (TypeError, ValueError):
            continue
    for path in _password_files(settings):
        try:
            found.append(path.read_bytes().strip())
        except OSError:
            continue
    return [secret for secret in found if secret]


def _users(settings: AgentSettings, connection: Connection) -> Iterator[dict[str, Any]]:
    """Those of every kubeconfig, with what proves who they are."""
    with contextlib.suppress(RoutedError):
        yield from (entry["user"] for entry in kubeconfig.load(settings.kubeconfig)["users"])
    with contextlib.suppress(RoutedError):
        yield from (entry["user"] for entry in connection.files().whole["users"])


def _password_files(settings: AgentSettings) -> Iterator[Path]:
    try:
        peers = json.loads((settings.speaker_state / "peers.json").read_bytes())
    except (OSError, ValueError):
        return
    for peer in peers:
        if peer.get("password_file"):
            yield Path(peer["password_file"])


def _commands() -> Iterator[Part]:
    for name, line in COMMANDS.items():
        try:
            done = subprocess.run(line.split(), capture_output=True, timeout=20, check=False)
            yield Part(f"host/{name}.txt", done.stdout + done.stderr)
        except (OSError, subprocess.TimeoutExpired) as error:
            yield Part(f"host/{name}.txt", f"cannot run {line}: {error}\n".encode())


def _agent(settings: AgentSettings) -> Iterator[Part]:
    transport = httpx.HTTPTransport(uds=str(settings.agent_socket))
    with httpx.Client(transport=transport, base_url="http://agent", timeout=10) as client:
        for name, path in (
            ("status.json", "/v1/status"),
            ("attachments.json", "/v1/attachments"),
            ("metrics.txt", "/metrics"),
            ("readyz.txt", "/readyz"),
        ):
            try:
                yield Part(f"agent/{name}", client.get(path).content)
            except httpx.HTTPError as error:
                yield Part(f"agent/{name}", f"cannot ask the agent: {error}\n".encode())


def _files(settings: AgentSettings, config: Path | None, logs: Iterable[Path]) -> Iterator[Part]:
    paths = [settings.state_dir / name for name in ("intent.json", "members.json", "cooling.log")]
    paths += [settings.speaker_state / "peers.json"]
    paths += sorted((settings.run_dir / "attachments").glob("*.json"))
    paths += [*([config] if config else []), *logs]
    for path in paths:
        try:
            yield Part(f"files/{path.name}", path.read_bytes())
        except OSError as error:
            yield Part(f"files/{path.name}", f"cannot read it: {error}\n".encode())


def _objects(settings: AgentSettings, connection: Connection) -> Iterator[Part]:
    """What the credentials let us see: a node's, if there are no others, are for little but its
    own."""

    async def listed(client: Client) -> list[Part]:
        return [await _kind(client, kind) for kind in KINDS.values()]

    try:
        try:
            parts = connection.run(listed)
        except NoContext:
            parts = Connection(settings.kubeconfig).run(listed)
        yield from parts
    except (RoutedError, OSError) as error:
        yield Part("objects/none.txt", f"cannot ask the control plane: {error}\n".encode())


async def _kind(client: Client, kind: Kind) -> Part:
    try:
        items = await client.list(kind.model)
    except Forbidden as error:
        return Part(f"objects/{kind.plural}.txt", f"{error}\n".encode())
    data = json.dumps([item.wire() for item in items], indent=1).encode()
    return Part(f"objects/{kind.plural}.json", data)
