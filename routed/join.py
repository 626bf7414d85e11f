"""`routed join`: this host becomes a node, with a bootstrap token.

The token comes from a file of mode 0600 or from stdin, never from the command line, which everybody
on the host can read. What it is exchanged for is written to the kubeconfig of the agent's settings,
which a running agent takes in by itself. Joining again is the same: the node keeps its Node object
and its blocks, and what proved it before is not good any more.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from api.auth import bootstrap, kubeconfig
from api.auth.bootstrap import Invitation
from api.client import join
from api.resources.errors import Cause, ConfigError
from routed import secret
from routed.agent.records import write_atomic
from routed.settings import AgentSettings


def run(settings: AgentSettings, token_file: Path | None) -> str:
    """Join; what to tell the user. Errors of ours, with nothing written."""
    invitation = read(token_file)
    _writable(settings.kubeconfig)
    access = asyncio.run(join(invitation, settings.node, settings.server))
    write(settings.kubeconfig, access)
    return f"node {settings.node} has joined {access.server}: {settings.kubeconfig}"


def read(path: Path | None) -> Invitation:
    """The token out of a file, or from stdin (None)."""
    return bootstrap.parse(secret.read(path, "Bootstrap token"))


def write(path: Path, access: kubeconfig.Access) -> None:
    """Replace the kubeconfig, mode 0600."""
    try:
        write_atomic(path, kubeconfig.render(access).encode(), durable=True)
    except OSError as error:
        raise ConfigError(str(path), [Cause("", f"cannot write it: {error}")]) from error


def _writable(path: Path) -> None:
    """Known before the token is used up."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".{path.name}.probe")
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError as error:
        raise ConfigError(str(path), [Cause("", f"cannot write it: {error}")]) from error
