"""The agent's composition root: settings in, one loop, until SIGTERM.

A SIGTERM stops the agent and nothing else: workloads, routes and announcements stay, and the next
agent takes them over. Two agents of one host are kept apart by a lock on the run directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import grp
import logging
import os
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import uvicorn
import uvloop

from api import memory
from api.client import Client
from api.resources.errors import Cause, ConfigError
from policies.nft import Nft
from routed.agent import skew
from routed.agent.agent import Agent
from routed.agent.api import application, refused
from routed.agent.callers import Connection, guarded
from routed.agent.control import Control
from routed.agent.speech import Speech
from routed.kernel.linux import LinuxKernel
from routed.settings import AgentSettings

log = logging.getLogger("routed.agent")

THRESHOLDS = (20_000, 50, 100)  # of the garbage collector
DEFAULT_GROUP = "routed"  # may use the agent's socket, where there is one


def run(settings: AgentSettings) -> None:
    """Serve until SIGTERM or SIGINT. ConfigError if it cannot start."""
    settings.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _lock(settings.run_dir / "agent.lock")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings))
    finally:
        os.close(lock)


async def _serve(settings: AgentSettings) -> None:
    client = _client(settings)
    agent = Agent(
        settings,
        LinuxKernel(),
        Nft(),
        Control(settings, client),
        Speech(settings.speaker_socket),
    )
    agent.start()
    memory.collect_seldom(THRESHOLDS)  # it would hold up attaches
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    serving = asyncio.create_task(agent.serve())
    local = asyncio.create_task(_serve_local(agent, settings))
    waiting = asyncio.create_task(stopping.wait())
    try:
        done, _ = await asyncio.wait((serving, local, waiting), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (serving, local, waiting):
            task.cancel()
        await asyncio.gather(serving, local, waiting, return_exceptions=True)
        await client.close()
        await agent.kernel.close()


def _client(settings: AgentSettings) -> Client:
    try:
        return Client.from_kubeconfig(
            settings.kubeconfig,
            settings.server,
            settings.servers,
            program="routed-agent",
            judge=skew.of_service,
        )
    except ConfigError as error:
        hint = f"to make this host a node: routed join --node {settings.node}"
        raise ConfigError(error.source, [*error.problems, Cause("", hint)]) from error


async def _serve_local(agent: Agent, settings: AgentSettings) -> None:
    """The local API on its socket; 0660 for the socket's group, or 0600 where there is none."""
    path, group = settings.agent_socket, _group(settings)
    path.unlink(missing_ok=True)
    config = uvicorn.Config(
        guarded(application(agent), refused, lambda caller: caller.may(group)),
        uds=str(path),
        http=Connection,
        loop="asyncio",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config, lambda: _protect(path, group))
    before = os.umask(0o177)
    try:
        await server.serve()
    finally:
        os.umask(before)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which would be those of the whole process."""

    def __init__(self, config: uvicorn.Config, opened: Callable[[], None]) -> None:
        super().__init__(config)
        self._opened = opened

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._opened()

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()


def _group(settings: AgentSettings) -> int | None:
    """The number of the group that may use the socket; ConfigError if one is set that is none."""
    name = settings.socket_group or DEFAULT_GROUP
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        if settings.socket_group is None:
            return None
        problem = f"there is no group {name!r} on this host"
        raise ConfigError("routed agent", [Cause("socketGroup", problem)]) from error


def _protect(path: Path, group: int | None) -> None:
    """uvicorn opens the socket to everybody; it is root's, and `group`'s if there is one, which
    must get through its directory: a speaker that was first has made that for itself."""
    if group is not None:
        path.parent.chmod(stat.S_IMODE(path.parent.stat().st_mode) | 0o011)
        os.chown(path, 0, group)
        path.chmod(0o660)
    else:
        path.chmod(0o600)


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        problem = "another agent of this host is running"
        raise ConfigError("routed agent", [Cause("runDir", f"{path}: {problem}")]) from error
    return descriptor
