"""A path (`routed.ctl.paths`), for people: a line for each thing that happens to a packet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

Document = dict[str, Any]
ESTABLISHED = "Established"


def lines(path: Document) -> Iterator[str]:
    source, destination = path["source"], path["destination"]
    hosts = path["hosts"]
    if source["workload"]:
        yield _leaving(source)
    if source["node"]:
        yield from _sender(source["node"], hosts[source["node"]], destination["address"])
    if path["natOutgoing"]:
        yield f"{source['node']} puts its own address as the source (natOutgoing)"
    if path["sameNode"]:
        yield from _arriving(destination)
        return
    yield from (f"not known here: {one}" for one in path["notKnown"])
    if destination["node"]:
        yield from _receiver(path, hosts[destination["node"]])
        yield from _arriving(destination)
    elif path["block"] is not None:
        block = path["block"]
        yield f"nobody has it: it is in block {block['cidr']} of {block['node']}, which drops it"
    elif path["pool"]:
        yield f"nobody has it: it is in pool {path['pool']}, and in no block of a node"


def _leaving(end: Document) -> str:
    by = f" by {end['interface']}" if end["interface"] else ""
    gateway = f", gateway {end['gateway']}" if end["gateway"] else ""
    return f"{end['workload']} is on {end['node']}{by}{gateway}"


def _arriving(end: Document) -> Iterator[str]:
    if end["workload"]:
        yield _leaving(end)


def _sender(name: str, host: Document, to: str) -> Iterator[str]:
    if not host["answered"]:
        yield from _silent(name, host, f"its route to {to} is not known")
        return
    yield _route(name, host, to)
    for one in host["learned"]:
        path = " ".join(map(str, one["asPath"])) or "empty"
        used = "used" if one["used"] else "not used"
        stale = ", stale" if one["stale"] else ""
        yield f"{name} was told {one['prefix']} by {one['peer']}: AS path {path} ({used}{stale})"
    if down := [one for one in host["sessions"] if one["state"] != ESTABLISHED]:
        yield f"{name} has no session with {', '.join(map(_peer, down))}"


def _receiver(path: Document, host: Document) -> Iterator[str]:
    name, to = path["destination"]["node"], path["destination"]["address"]
    if not host["answered"]:
        yield from _silent(name, host, "what it announces is only declared")
    for one in path["announced"]:
        yield _announced(name, one, answered=host["answered"])
    if not path["announced"]:
        yield f"{name} announces nothing that holds {to}{_why_nothing(path)}"
    if host["answered"]:
        yield _route(name, host, to)


def _why_nothing(path: Document) -> str:
    if not path["destination"]["workload"]:
        return ": a host's own address is the switches' to know"
    block, node = path["block"], path["destination"]["node"]
    if block is None:
        return ": no block holds it"
    if block["node"] != node:
        return f": block {block['cidr']} that holds it is of {block['node']}"
    return ""


def _silent(name: str, host: Document, so: str) -> Iterator[str]:
    last = f"; it said last: {host['lastWord']}" if host["lastWord"] else ""
    yield f"{name} was not asked, or did not answer: {host['why']}; {so}{last}"
    if host["sessions"]:
        yield f"{name} should have sessions with {', '.join(map(_peer, host['sessions']))}"


def _route(name: str, host: Document, to: str) -> str:
    route = host["route"]
    if not route["nextHops"]:
        if route["kind"] == "none":
            return f"{name} has no route to {to}"
        return f"{name} has a route to {to} that leads nowhere ({route['kind']})"
    numbers = {one["peer"]: one["asNumber"] for one in host["sessions"]}
    ways = ", ".join(_hop(hop, numbers) for hop in route["nextHops"])
    return f"{name} routes {to} by {route['prefix'] or 'a route'} ({route['protocol']}): {ways}"


def _hop(hop: Document, numbers: dict[str, int]) -> str:
    if not hop["gateway"]:
        return f"dev {hop['interface']}"
    peer = hop["peer"]
    known = f" ({peer}, AS {numbers[peer]})" if peer in numbers else ""
    return f"via {hop['gateway']} dev {hop['interface']}{known}"


def _announced(name: str, one: Document, *, answered: bool) -> str:
    told = [to for to in one["to"] if not answered or to["state"] == ESTABLISHED]
    not_told = [to for to in one["to"] if to not in told]
    said = "announces" if answered else "should announce"
    found = f"{name} {said} {one['prefix']} to {_with_paths(told)}"
    if not_told:
        found += f", not to {', '.join(map(_peer, not_told))}"
    return found + ("; its speaker does not have it yet" if one["speaker"] is False else "")


def _with_paths(told: Iterable[Document]) -> str:
    return ", ".join(f"{_peer(to)} as AS path {_numbers(to['asPath'])}" for to in told) or "nobody"


def _numbers(path: Iterable[int]) -> str:
    return " ".join(map(str, path))


def _peer(one: Document) -> str:
    state = f", {one['state']}" if one["state"] else ""
    why = f": {one['error']}" if one["error"] and one["state"] != ESTABLISHED else ""
    return f"{one['peer']} (AS {one['asNumber']}{state}{why})"
