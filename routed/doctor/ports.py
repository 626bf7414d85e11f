"""Ports of this host that somebody else listens at, and what that means.

The agent listens at no port and the speaker dials out, so no port of another program keeps them
from working by itself. A BGP daemon beside the speaker does: both speak with the switch from one
address, and it keeps one session of the two (RFC 4271, section 6.8).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from api.auth import kubeconfig
from api.resources.errors import ConfigError
from routed.doctor import sockets
from routed.doctor.findings import Finding, ok, warn
from routed.kernel import inspect
from routed.settings import AgentSettings, ServerSettings

BGP = 179
OWN = ("127.0.0.1", "localhost", "::1")


def taken(settings: AgentSettings) -> Iterator[Finding]:
    """Port 179, and the control plane's where it could run here."""
    held = listeners()
    if BGP in held:
        said = f"port {BGP}: {held[BGP]} listens: a switch keeps one session with this address"
        remedy = "stop it, or give it another address to speak from (sourceAddress of BGPPeer)"
        yield warn("ports: BGP", said, remedy)
    else:
        yield ok("ports: BGP", f"no other BGP daemon listens at {BGP}")
    server = _control_plane(settings)
    port = server[1] if server else int(ServerSettings().listen.rpartition(":")[2])
    here = server is not None and server[0] in _own_addresses()
    if port not in held:
        yield ok("ports: control plane", f"{port} is free, if one is to run here")
    elif here:
        yield ok("ports: control plane", f"{held[port]} listens at {port}, as this node expects")
    else:
        said = f"{held[port]} listens at {port}, and this node's control plane is elsewhere"
        remedy = "nothing, unless one is to run here: then routed server --listen HOST:PORT"
        yield warn("ports: control plane", said, remedy)


def listeners() -> dict[int, str]:
    """TCP ports that somebody listens at in this network namespace, to the program's name."""
    inodes = {one.inode: one.port for one in sockets.tcp() if one.state == sockets.State.LISTEN}
    found = dict.fromkeys(inodes.values(), "a program of another user")
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        for inode in _sockets(process) & inodes.keys():
            name = (sockets.lines_of(process / "comm") or ["a program that ended"])[0]
            found[inodes[inode]] = f"{name} (pid {process.name})"
    return found


def _sockets(process: Path) -> set[str]:
    """The inodes of its sockets; none of a process that ended, or is another user's."""
    found = set()
    with contextlib.suppress(OSError):
        for descriptor in os.scandir(process / "fd"):
            with contextlib.suppress(OSError):
                found.add(str(Path(descriptor).readlink())[len("socket:[") : -1])
    return found


def _control_plane(settings: AgentSettings) -> tuple[str, int] | None:
    """Host and port of this node's, if it is known."""
    url = settings.server
    try:
        url = url or kubeconfig.read(settings.kubeconfig).server
    except (ConfigError, OSError):
        return None
    host, _, port = url.removeprefix("https://").rstrip("/").rpartition(":")
    return (host.strip("[]"), int(port)) if port.isdigit() else None


def _own_addresses() -> set[str]:
    held = {one.partition("/")[0] for link in inspect.uplinks() for one in link.addresses}
    return held | set(OWN)
