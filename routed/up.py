"""`routed up`: one host, everything on it.

Server, agent and speaker are the same programs as ever, as children: each is started again when
it ends, and all are stopped when we are. The node joins on the first start, and again after it was
off for longer than its certificate is good.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path

from api.auth import bootstrap, kubeconfig
from api.auth.certificates import life_of
from api.client import Client, Unreachable, join
from api.resources.errors import ConfigError
from routed.join import write
from routed.settings import AgentSettings, ServerSettings

log = logging.getLogger("routed.up")

READY_SECONDS = 30.0
RESTART_SECONDS = 1.0
STOP_SECONDS = 10.0


def run(server: ServerSettings, agent: AgentSettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    asyncio.run(_run(server, agent))


async def _run(server: ServerSettings, agent: AgentSettings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    credentials = agent.state_dir / "node.kubeconfig"
    agent.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    places = ["--run-dir", str(agent.run_dir), "--state-dir", str(agent.state_dir)]
    serving = [
        "server", "--data-dir", str(server.data_dir), "--listen", server.listen,
    ]  # fmt: skip
    working = ["agent", "--node", agent.node, "--kubeconfig", str(credentials), *places]
    programs = (serving, ["speaker", *places])
    children = [asyncio.create_task(_keep(words)) for words in programs]
    waiting = asyncio.create_task(stopping.wait())
    try:
        if _outlived(credentials):
            await _join(server.data_dir / "admin.kubeconfig", agent.node, credentials)
        children.append(asyncio.create_task(_keep(working)))
        await asyncio.wait([*children, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (*children, waiting):
            task.cancel()
        await asyncio.gather(*children, waiting, return_exceptions=True)


def _outlived(credentials: Path) -> bool:
    """Whether there are none, or no good ones: this host was off for long."""
    try:
        certificate = kubeconfig.read(credentials).certificate
        return bool(certificate) and life_of(certificate).expires <= time.time()
    except (ConfigError, ValueError):
        return True


async def _join(admin: Path, node: str, credentials: Path) -> None:
    """Join as any other node would, once the service answers."""
    async with asyncio.timeout(READY_SECONDS):
        while True:
            with contextlib.suppress(ConfigError, Unreachable):
                client = Client.from_kubeconfig(admin)
                try:
                    token = await client.bootstrap_token(node)
                finally:
                    await client.close()
                write(credentials, await join(bootstrap.parse(token), node))
                return
            await asyncio.sleep(0.2)


async def _keep(words: list[str]) -> None:
    """Run one program for ever; stop it when cancelled."""
    while True:
        child = await asyncio.create_subprocess_exec(sys.executable, "-m", "routed.main", *words)
        log.info("started program=%s pid=%d", words[0], child.pid)
        try:
            code = await child.wait()
        except asyncio.CancelledError:
            await _stop(child)
            raise
        log.error("ended program=%s status=%d restart_in=%gs", words[0], code, RESTART_SECONDS)
        await asyncio.sleep(RESTART_SECONDS)


async def _stop(child: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()
