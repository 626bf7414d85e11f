"""The options that several commands have, called as kubectl calls them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="KIND [NAME...] | KIND/NAME...", help="Kinds: `api-resources`."),
]
Output = Annotated[
    str,
    typer.Option(
        "-o", "--output", metavar="FORM",
        help="wide, yaml, json, name, jsonpath=..., custom-columns=...",
    ),
]  # fmt: skip
Selector = Annotated[
    str, typer.Option("-l", "--selector", metavar="LABELS", help="a=b,c!=d,e in (f,g),!h")
]
Fields = Annotated[
    str, typer.Option("--field-selector", metavar="FIELDS", help="Such as spec.node=host1.")
]
Files = Annotated[
    list[Path] | None,
    typer.Option("-f", "--filename", metavar="F", help="File, directory, or - for stdin."),
]
Recursive = Annotated[
    bool, typer.Option("-R", "--recursive", help="Directories in directories, too.")
]
Everywhere = Annotated[
    bool, typer.Option("-A", "--all-namespaces", hidden=True, help="Nothing is in a namespace.")
]
DryRun = Annotated[
    str, typer.Option(metavar="none|client|server", help="Only say what would be done.")
]
Every = Annotated[bool, typer.Option("--all", help="All objects of the kind.")]
Timeout = Annotated[str, typer.Option(metavar="T", help="Such as 30s, 5m; 0: as long as it takes.")]
Manager = Annotated[
    str, typer.Option("--field-manager", metavar="NAME", help="Whose the fields are.")
]
Header = Annotated[bool, typer.Option("--no-headers", help="No line with the columns' names.")]
Validate = Annotated[
    str, typer.Option(metavar="strict|warn|ignore", help="What becomes of unknown fields.")
]
Absent = Annotated[bool, typer.Option("--ignore-not-found", help="Not there is no error.")]
Forced = Annotated[bool, typer.Option("--force", help="The node is off for good.")]
Statement = Annotated[str, typer.Option(metavar="TEXT", help="With --force: how you know.")]
Socket = Annotated[  # whether we may use it the kernel says when we do
    Path | None,
    typer.Option("--agent", metavar="SOCK", readable=False, help="The agent's socket."),
]

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def seconds(text: str, option: str = "--timeout") -> float:
    """90s, 15m, 1h30m, or a number of seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if "".join(number + unit for number, unit in parts) == text.removeprefix("-") and parts:
        total = sum(float(number) * UNITS[unit] for number, unit in parts)
        return -total if text.startswith("-") else total
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text):
        return float(text)
    raise typer.BadParameter(f"{option} {text!r} is not like 90s or 15m")


def bits(text: str, option: str) -> int:
    """8000, 500k, 100M, 2.5G: bits a second."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)", text)
    if found is None:
        raise typer.BadParameter(
            f"{option} {text!r} is not like 500k, 100M or 2.5G (bits a second)"
        )
    return int(float(found[1]) * {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}[found[2]])


def published(text: str) -> dict[str, Any]:
    """8080:80, 192.0.2.1:8080:80/udp, [2001:db8::1]:8080:80: a port as a Workload has it. What is
    wrong with the numbers, who is asked says."""
    found = re.fullmatch(r"(?:(\[[^]]+\]|[^:]+):)?(\d+):(\d+)(?:/(\w+))?", text)
    if found is None:
        raise typer.BadParameter(f"--publish {text!r} is not like 8080:80 or IP:53:53/udp")
    address, host_port, port, protocol = found.groups()
    return {
        "port": int(port),
        "protocol": (protocol or "tcp").upper(),
        "hostPort": int(host_port),
        **({"hostIP": address.strip("[]")} if address else {}),
    }


def labels(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"--label {text!r} is not KEY=VALUE")
        found[key] = value
    return found
