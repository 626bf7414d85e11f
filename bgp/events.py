"""What ExaBGP 5 says in JSON, as typed values. Unknown messages are None, never an error."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from api.resources.net import IPAddress, IPNetwork, parse_address, parse_cidr

# capability codes: RFC 4760, RFC 8950, RFC 4724
MULTIPROTOCOL, EXTENDED_NEXT_HOP, GRACEFUL_RESTART = "1", "5", "64"
_VERSIONS = {"ipv4": 4, "ipv6": 6}


@dataclass(frozen=True, slots=True)
class State:
    """`state` is up, down or connected."""

    peer: IPAddress
    state: str
    reason: str = ""
    local: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """The OPEN the peer sent. `families` are the versions of IP that it carries (None: it has not
    said); `extended`: it takes IPv4 prefixes with an IPv6 next hop (RFC 8950).

    Of graceful restart (RFC 4724, section 3): `restart` is its restart time in seconds, None if it
    does not keep any family over a restart; `kept` are the versions it keeps, `forwarding` those
    whose forwarding state it has kept over the restart just past."""

    peer: IPAddress
    restart: int | None
    kept: frozenset[int] = frozenset()
    forwarding: frozenset[int] = frozenset()
    families: frozenset[int] | None = None
    extended: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """One UPDATE. `announced` has prefix and next hop pairs; `end_of_rib` is the version of IP
    whose End-of-RIB it is."""

    peer: IPAddress
    announced: tuple[tuple[IPNetwork, IPAddress], ...] = ()
    withdrawn: tuple[IPNetwork, ...] = ()
    as_path: tuple[int, ...] = ()
    communities: tuple[str, ...] = ()
    med: int | None = None
    end_of_rib: int | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a command; answers are not in the order of commands."""

    ok: bool


Said = State | Opened | Received | Answered


def parse(line: bytes) -> Said | None:
    """One line of ExaBGP's output."""
    text = line.strip()
    if text in (b"done", b'{ "answer": "done" }', b'{"answer": "done"}'):
        return Answered(ok=True)
    if text in (b"error", b'{ "answer": "error" }', b'{"answer": "error"}'):
        return Answered(ok=False)
    try:
        document = json.loads(text)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    if "answer" in document:
        return Answered(ok=document["answer"] == "done")
    neighbor = document.get("neighbor")
    if not isinstance(neighbor, dict):
        return None
    peer = parse_address(neighbor["address"]["peer"])
    kind = document.get("type")
    if kind == "state":
        return _state(peer, neighbor)
    if kind == "open":
        return _opened(peer, neighbor.get("open", {}).get("capabilities", {}))
    if kind == "update":
        return _update(peer, neighbor.get("message", {}))
    return None


def _state(peer: IPAddress, neighbor: dict[str, Any]) -> State:
    local = neighbor["address"].get("local")
    try:
        address = parse_address(local.partition("%")[0])  # a link-local one may name its link
    except (AttributeError, ValueError):
        address = None
    return State(peer, str(neighbor.get("state", "")), str(neighbor.get("reason", "")), address)


def _opened(peer: IPAddress, capabilities: dict[str, Any]) -> Opened:
    """A graceful restart capability without families is one of a mere helper: it keeps nothing
    itself."""
    said = capabilities.get(MULTIPROTOCOL)
    families = None if said is None else _versions(said.get("families", []))
    conversions = capabilities.get(EXTENDED_NEXT_HOP, {}).get("conversion", [])
    extended = "ipv4/unicast/ipv6" in conversions
    found = capabilities.get(GRACEFUL_RESTART, {})
    flags = found.get("address-family-flags", {})
    kept = _versions(flags)
    # ExaBGP calls the family's "forwarding state" bit "restart"
    forwarding = _versions(family for family, bits in flags.items() if "restart" in bits)
    restart = int(found.get("time", 0)) if kept else None
    return Opened(peer, restart, kept, forwarding, families, extended)


def _versions(families: Iterable[str]) -> frozenset[int]:
    """The versions of IP of families such as ipv4/unicast."""
    split = (family.split("/") for family in families)
    return frozenset(_VERSIONS[one[0]] for one in split if one[1:] == ["unicast"])


def _update(peer: IPAddress, message: dict[str, Any]) -> Received | None:
    if "eor" in message:
        version = _VERSIONS.get(message["eor"].get("afi", ""))
        return None if version is None else Received(peer, end_of_rib=version)
    update = message.get("update")
    if not isinstance(update, dict):
        return None
    attributes = update.get("attribute", {})
    announced: list[tuple[IPNetwork, IPAddress]] = []
    for hops in update.get("announce", {}).values():
        for hop, entries in hops.items():
            if hop == "null":
                continue
            announced.extend((_nlri(entry), parse_address(hop)) for entry in entries)
    withdrawn = [
        _nlri(entry) for entries in update.get("withdraw", {}).values() for entry in entries
    ]
    return Received(
        peer,
        tuple(announced),
        tuple(withdrawn),
        as_path=tuple(_as_numbers(attributes.get("as-path", []))),
        communities=tuple(":".join(map(str, c)) for c in attributes.get("community", [])),
        med=attributes.get("med"),
    )


def _nlri(entry: Any) -> IPNetwork:
    return parse_cidr(entry["nlri"] if isinstance(entry, dict) else entry)


def _as_numbers(path: Any) -> list[int]:
    """The ASNs of an AS path, in whatever shape this version of ExaBGP gives it."""
    if isinstance(path, dict):
        return [n for segment in path.values() for n in _as_numbers(segment.get("value", []))]
    found: list[int] = []
    for one in path:
        found.extend(_as_numbers(one) if isinstance(one, list | dict) else [int(one)])
    return found
