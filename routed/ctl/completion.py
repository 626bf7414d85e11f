"""What may come next on a command line, for shells that ask: bash, zsh, fish, and kubectl.

Asked is ``routectl __complete WORD... CURRENT``; the answer is a line for each candidate, with a
tab before what it means, and a last line ``:4``, or ``:0`` where names of files are wanted (the
protocol of cobra, so that `kubectl routed` is completed by it too). `wanted` decides purely what
is asked for; kinds come from the registry, contexts from the kubeconfig, names from the service,
which has a second to answer: whatever goes wrong is silence, for the user is in the middle of a
word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

from routed.ctl.argv import GLOBAL
from routed.ctl.connection import Connection

SECONDS = 1.0
LIMIT = 500  # names that are asked for
FILES, NOTHING = ":0", ":4"

# What the arguments of a command are, and the values of options; `names:` of the kind before it.
OBJECTS = ("kinds", "names")
ARGUMENTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("get", "describe", "delete", "edit", "patch", "label", "annotate", "wait"), OBJECTS
    ),
    **dict.fromkeys(("cordon", "uncordon", "drain"), ("names:nodes",)),
    "explain": ("kinds",),
    "detach": ("names:workloads",),
    "ipam release": ("names:ipblocks",),
    "auth can-i": ("verbs", "kinds"),
    "config use-context": ("contexts",),
    "config delete-context": ("contexts",),
    "logout": ("contexts",),
    "completion": ("shells",),
}
VALUES = {
    "context": "contexts",
    "node": "names:nodes",
    "pool": "names:ippools",
    "lease": "names:addressleases",
    "peer": "names:bgppeers",
    "role": "roles",
    "output": "outputs",
    "dry_run": "dry_runs",
    "kind_of_patch": "patches",
    "mode": "modes",
    "family": "families",
    "awaited": "conditions",
}
WORDS = {
    "verbs": ("get", "list", "watch", "create", "update", "patch", "delete"),
    "shells": ("bash", "zsh", "fish"),
    "outputs": ("wide", "yaml", "json", "name", "jsonpath=", "custom-columns="),
    "dry_runs": ("none", "client", "server"),
    "patches": ("merge", "json", "strategic"),
    "modes": ("veth", "ipvlan-l3", "ipvlan-l3s", "tap", "host", "none", "shared"),
    "families": ("IPv4", "IPv6"),
    "conditions": ("condition=Ready", "condition=", "delete", "create", "jsonpath="),
}
PATHS = ("filename", "to", "log", "netns", "agent", "kubeconfig", "config", "patch_file")


@dataclass(frozen=True, slots=True)
class Wanted:
    """`source` is where candidates come from ("": nothing fits), `kind` the one that names are of,
    `prefix` what stands before them in the same word."""

    source: str
    kind: str = ""
    prefix: str = ""
    command: Any = None


def wanted(root: Any, words: Sequence[str]) -> Wanted:
    """What the last of `words`, which is being written, may be. Pure."""
    command, option = root, None
    path: list[str] = []
    arguments: list[str] = []
    for word in words[:-1]:
        if option is not None:
            option = None
        elif word.startswith("-") and len(word) > 1:
            found = _option(command, root, word.partition("=")[0])
            takes = found is not None and not found.is_flag and "=" not in word
            option = found if takes else None
        elif not arguments and word in getattr(command, "commands", {}):
            command = command.commands[word]
            path.append(word)
        else:
            arguments.append(word)
    current = words[-1] if words else ""
    if option is not None:
        return _value(option, "")
    if current.startswith("-"):
        name, equals, _ = current.partition("=")
        found = _option(command, root, name) if equals else None
        return _value(found, f"{name}=") if found else Wanted("options", command=command)
    if hasattr(command, "commands"):
        return Wanted("" if arguments else "commands", command=command)
    sources = ARGUMENTS.get(" ".join(path), ())
    if sources == OBJECTS and "/" in current:
        kind = current.partition("/")[0]
        return Wanted("names", kind, f"{kind}/")
    if sources == OBJECTS and arguments and "/" in arguments[0]:
        return Wanted("kinds")
    source = sources[min(len(arguments), len(sources) - 1)] if sources else ""
    source, _, kind = source.partition(":")
    return Wanted(source, kind or (arguments[0] if source == "names" else ""))


def _option(command: Any, root: Any, name: str) -> Any:
    params = [*command.params, *root.params]
    return next((one for one in params if name in (*one.opts, *one.secondary_opts)), None)


def _value(option: Any, prefix: str) -> Wanted:
    if option.name in PATHS or option.name.endswith(("_file", "_authority")):
        return Wanted("files", prefix=prefix)
    source, _, kind = VALUES.get(option.name, "").partition(":")
    return Wanted(source, kind, prefix)


def complete(root: Any, words: Sequence[str]) -> str:
    """The answer, whole."""
    asked = wanted(root, words)
    if asked.source == "files":
        return FILES
    current = words[-1] if words else ""
    lines = [
        f"{asked.prefix}{name}\t{meaning}".rstrip()
        for name, meaning in candidates(asked, _connection(words))
        if f"{asked.prefix}{name}".startswith(current)
    ]
    return "\n".join([*lines, NOTHING])


def candidates(asked: Wanted, connection: Connection) -> list[tuple[str, str]]:
    """All that could stand there, each with what it means."""
    if asked.source == "commands":
        return [
            (name, one.get_short_help_str(60))
            for name, one in asked.command.commands.items()
            if not one.hidden
        ]
    if asked.source == "options":
        return [
            (max(one.opts, key=len), one.help or "")
            for one in asked.command.params
            if one.param_type_name == "option" and not one.hidden
        ] + [("--help", "Show this."), ("--context", "Of the kubeconfig.")]
    if asked.source in WORDS:
        return [(word, "") for word in WORDS[asked.source]]
    return _known(asked, connection)


def _known(asked: Wanted, connection: Connection) -> list[tuple[str, str]]:
    """What has to be looked up, which is nothing where it cannot be."""
    from api.resources.errors import RoutedError
    from api.resources.registry import KINDS
    from routed.ctl.targets import kind_of

    try:
        if asked.source == "kinds":
            names = [(kind.plural, kind.kind) for kind in KINDS.values()]
            return names + [(short, k.kind) for k in KINDS.values() for short in k.short]
        if asked.source == "contexts":
            return [(entry["name"], "") for entry in connection.files().whole["contexts"]]
        if asked.source == "roles":
            live = _names(connection, "roles")
            return [(name, "") for name in ("admin", "operator", "viewer", *live)]
        if asked.source == "names":
            kind = kind_of(asked.kind.partition(",")[0])
            return [(name, "") for name in _names(connection, kind.plural)]
    except (RoutedError, OSError, TimeoutError):
        return []
    return []


def _names(connection: Connection, plural: str) -> list[str]:
    from api.client import Client

    async def work(client: Client) -> list[str]:
        async with asyncio.timeout(SECONDS):
            listed = await client.raw("GET", f"/{plural}", params={"limit": str(LIMIT)})
        return [item["metadata"]["name"] for item in listed["items"]]

    return connection.run(work)


def _connection(words: Sequence[str]) -> Connection:
    """What the words before say of it."""
    found = Connection()
    for at, word in enumerate(words[:-1]):
        name, equals, value = word.partition("=")
        if name in GLOBAL:
            value = value if equals else words[at + 1]
            match name:
                case "--kubeconfig":
                    found = replace(found, kubeconfig=Path(value))
                case "--context":
                    found = replace(found, context=value)
                case "--server" | "-s":
                    found = replace(found, server=value)
                case "--token-file":
                    found = replace(found, token_file=Path(value))
                case "--certificate-authority":
                    found = replace(found, ca_file=Path(value))
    return found


def root() -> Any:
    """The whole tree of commands."""
    from routed.ctl.main import app

    return typer.main.get_command(app)
