"""`routed healthcheck`: whether the programs of ours that run in this container answer.

One image runs server, agent or speaker, so its health check cannot name what to ask. It looks for
it: the processes whose words are ``routed ROLE ...`` and whose files are ours (with the host's pids
in sight there are others), and reads the words of each as that program did itself. So what is
asked is always where it was told to serve.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import typer
from click import ClickException

from api.resources.errors import RoutedError
from routed.settings import AgentSettings, ServerSettings, load

PATIENCE = 2.0
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - asked, not bound
Parse = Callable[[str, list[str]], dict[str, Any]]


def run(parse: Parse) -> int:
    """Print a line for each program; 0 if there is one and all answer. `parse` gives the options
    of a role's words."""
    found = list(programs())
    failed = not found
    if not found:
        typer.echo("no server, agent or speaker runs here")
    for role, words in found:
        problem = ""
        try:
            _ask(role, parse(role, words))
        except (httpx.HTTPError, RoutedError, OSError, ClickException) as error:
            problem = str(error) or type(error).__name__
        failed |= bool(problem)
        typer.echo(f"{role}: {problem or 'ok'}")
    return int(failed)


def programs(proc: Path = Path("/proc")) -> Iterator[tuple[str, list[str]]]:
    """Role and options of every program of ours that has our files."""
    ours = _files(proc / "self")
    for process in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is somebody else's
            if _files(process) == ours:
                words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                known = role_of(words[:-1])
                if known is not None:
                    yield known


def _files(process: Path) -> tuple[str, int, int]:
    """What tells whose files a process has: its mount namespace, and the root of it."""
    root = (process / "root/.").stat()
    return str((process / "ns/mnt").readlink()), root.st_dev, root.st_ino


def role_of(words: Sequence[str]) -> tuple[str, list[str]] | None:
    """Role and options, if these are the words of a server, agent or speaker."""
    at = 0
    if words and Path(words[0]).name.startswith("python"):
        at = next((at for at, word in enumerate(words) if at and word[:1] != "-"), 0)
    role = words[at + 1] if len(words) > at + 1 else ""
    if role in QUESTIONS and (words[at] == "routed.main" or Path(words[at]).name == "routed"):
        return role, list(words[at + 2 :])
    return None


def _ask(role: str, options: dict[str, Any]) -> None:
    config = options.pop("config")
    QUESTIONS[role](config, options)


def _server(config: Path | None, options: dict[str, Any]) -> None:
    """Its store answers, over TLS; the address may be one that its certificate does not name."""
    settings = load(ServerSettings, config, options)
    host, _, port = settings.listen.rpartition(":")
    context = ssl.create_default_context(cafile=str(settings.data_dir / "ca.crt"))
    context.check_hostname = False
    with httpx.Client(verify=context, timeout=PATIENCE, trust_env=False) as client:
        client.get(f"https://{EVERYWHERE.get(host, host)}:{port}/readyz").raise_for_status()


def _agent(config: Path | None, options: dict[str, Any]) -> None:
    """It lives. Whether attaching works is /readyz, which no restart helps."""
    settings = load(AgentSettings, config, options)
    _get(settings.agent_socket, "/healthz")


def _speaker(config: Path | None, options: dict[str, Any]) -> None:
    """Its loop turns; sessions that are down are no reason to restart it."""
    places = {f"speaker_{name}": path for name, path in options.items()}
    _get(load(AgentSettings, config, places).speaker_metrics_socket, "/metrics")


def _get(socket: Path, path: str) -> None:
    transport = httpx.HTTPTransport(uds=str(socket), trust_env=False)
    with httpx.Client(transport=transport, timeout=PATIENCE, trust_env=False) as client:
        client.get(f"http://localhost{path}").raise_for_status()


QUESTIONS: dict[str, Callable[[Path | None, dict[str, Any]], None]] = {
    "server": _server,
    "agent": _agent,
    "speaker": _speaker,
}
