"""ExaBGP as a child: configured, started, reloaded, restarted when it dies or hangs.

A configuration is validated before ExaBGP sees it: one bad reload would poison every later one.
The bridge is ExaBGP's child; its end of the pipe is a socket of ours that is always drained.
Commands are few at a time (`WINDOW`), so that neither side ever waits for the other to read.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import pwd
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from api.resources.errors import SpeakerError
from bgp import bridge
from bgp.commands import RELOAD, VERSION
from bgp.events import Answered, Said, parse

log = logging.getLogger("routed.exabgp")

WINDOW = 4
LINE_LIMIT = 16 << 20
PR_SET_PDEATHSIG = 1
BUSY_SECONDS = 15.0  # without an answer although it uses the CPU: it is taken to hang
STOPPED_SHARE = 0.4  # of the hold time, without an answer and without using the CPU: the same
QUIET_SECONDS = 0.5  # without anything to say to it, ExaBGP is asked whether it is there
START_SECONDS = 30.0  # for a new one to start its bridge
BACKOFF = (0.1, 5.0)
SETTINGS = {
    "exabgp.daemon.user": pwd.getpwuid(os.geteuid()).pw_name,
    "exabgp.daemon.daemonize": "false",
    "exabgp.daemon.drop": "false",
    "exabgp.api.cli": "false",
    "exabgp.api.ack": "true",
    "exabgp.log.level": "WARNING",
    "exabgp.log.destination": "stderr",
    "exabgp.reactor.speed": "15",
}


class ExaBGP:
    """`heard` gets what it says, `started` is called when a new one is ready for commands, `ended`
    when it is no more, after which nothing of it is heard."""

    def __init__(
        self,
        run_dir: Path,
        heard: Callable[[Said], None],
        started: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        self.directory = run_dir / "exabgp"
        self.configuration = self.directory / "exabgp.conf"
        self.outstanding = 0
        self.starts = 0
        self.pid: int | None = None
        self.hold_time = 9.0  # seconds, the shortest of the peers'
        self._socket = self.directory / "bridge.sock"
        self._heard = heard
        self._started = started
        self._ended = ended
        self._writer: asyncio.StreamWriter | None = None
        self._asked = 0.0
        self._version = 0  # of the configuration
        self._started_with = 0  # what the running ExaBGP may have read
        self._stopping = False

    @property
    def ready(self) -> bool:
        """A bridge is connected."""
        return self._writer is not None

    @property
    def bridge_command(self) -> str:
        return f"{sys.executable} -I -S {Path(bridge.__file__)} {self._socket}"

    async def configure(self, text: str) -> None:
        """Put a new configuration in force; SpeakerError, with the old one in force, if bad."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        candidate = self.directory / "candidate.conf"
        candidate.touch(mode=0o600)
        candidate.write_text(text, encoding="ascii")
        await _validate(candidate)
        candidate.rename(self.configuration)
        self._version += 1
        if self.ready:
            self._started_with = self._version
            self.send(RELOAD)

    def send(self, command: str) -> None:
        """One command; its answer is counted, not waited for."""
        if self._writer is None:
            return
        if not self.outstanding:
            self._asked = asyncio.get_running_loop().time()
        self.outstanding += 1
        self._writer.write(command.encode("ascii") + b"\n")

    async def serve(self) -> None:
        """Run ExaBGP for ever: a dead one is replaced, the switches keep our routes meanwhile."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._socket.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._bridged, self._socket, limit=LINE_LIMIT)
        self._socket.chmod(0o600)
        wait = BACKOFF[0]
        async with server:
            while True:
                began = asyncio.get_running_loop().time()
                await self._run_once()
                if self._stopping:
                    return
                lived = asyncio.get_running_loop().time() - began
                wait = BACKOFF[0] if lived > 10 else min(wait * 2, BACKOFF[1])
                log.warning("exabgp ended after=%.1fs restart_in=%.1fs", lived, wait)
                await asyncio.sleep(wait)

    async def _run_once(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("exabgp")}
        program = [sys.executable, "-m", "bgp.launcher", "server", str(self.configuration)]
        self._started_with = self._version
        child = await asyncio.create_subprocess_exec(
            *program,
            env={**environment, **SETTINGS},
            stdin=asyncio.subprocess.DEVNULL,
            preexec_fn=_die_with_parent,
        )
        self.pid = child.pid
        self.starts += 1
        watch = asyncio.create_task(self._watch(child))
        try:
            await child.wait()
        finally:
            watch.cancel()
            if child.returncode is None:
                child.kill()
                await child.wait()
            self.pid = None
            self._drop()
            self._ended()

    async def _watch(self, child: asyncio.subprocess.Process) -> None:
        """Kill an ExaBGP that has stopped to answer, or never began to.

        One that is killed before the hold time is over leaves its routes to graceful restart;
        if the peer's hold timer ends the session, they are gone (RFC 4724, section 4.2).
        """
        clock = asyncio.get_running_loop().time
        began, used = clock(), 0
        while True:
            await asyncio.sleep(QUIET_SECONDS)
            if self.ready and not self.outstanding and clock() - self._asked > QUIET_SECONDS:
                self.send(VERSION)
                used = _cpu_ticks(child.pid)
            if self.ready and not self.outstanding:
                continue
            silent = clock() - (self._asked if self.ready else began)
            busy = not self.ready or _cpu_ticks(child.pid) > used
            patience = START_SECONDS if not self.ready else BUSY_SECONDS
            if silent > (patience if busy else min(patience, STOPPED_SHARE * self.hold_time)):
                log.error("exabgp hangs silent=%.1fs pid=%s", silent, child.pid)
                child.kill()
                return
            used = _cpu_ticks(child.pid)

    def stop(self) -> None:
        """End it without a word: with graceful restart it would not say NOTIFICATION anyway."""
        self._stopping = True
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def _bridged(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.outstanding = 0
        log.info("exabgp ready pid=%s", self.pid)
        if self._started_with != self._version:  # configured anew while it was starting
            self._started_with = self._version
            self.send(RELOAD)
        self._started()
        try:
            while (line := await reader.readline()) and self._writer is writer:
                said = parse(line)
                if isinstance(said, Answered):
                    self.outstanding = max(self.outstanding - 1, 0)
                    self._asked = asyncio.get_running_loop().time()
                    if not said.ok:
                        log.error("exabgp refused a command")
                if said is not None:
                    self._heard(said)
        except asyncio.CancelledError:
            return  # the loop ends; its callback would take the cancellation for a failure
        except (OSError, ValueError) as error:
            log.warning("bridge lost: %s", error)
        finally:
            if self._writer is writer:
                self._drop()
            writer.close()

    def _drop(self) -> None:
        self._writer = None
        self.outstanding = 0


async def _validate(path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bgp.launcher",
        "validate",
        str(path),
        env={**{k: v for k, v in os.environ.items() if not k.startswith("exabgp")}, **SETTINGS},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        preexec_fn=_die_with_parent,
    )
    said, _ = await child.communicate()
    if child.returncode != 0:
        last = said.decode(errors="replace").strip().splitlines()[-3:]
        raise SpeakerError(f"cannot configure ExaBGP: {' / '.join(last)}")


def _cpu_ticks(pid: int) -> int:
    """What a process has used of the CPU, in clock ticks (proc(5)); 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _die_with_parent() -> None:
    """In the child, before exec: it ends when we do, however we end (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
