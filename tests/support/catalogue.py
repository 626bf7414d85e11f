"""The catalogue of cases (tests/policies/catalogue): objects, packets, and verdicts by hand.

A case says what it has beside world.yaml: `policies` (fields of the spec, and the name), `tiers`,
`workloads`, `networksets`, `default`, `untold`, `untold_ports`, `unready`; for short, `in` are the
ingress rules of app == 'db', `out` the egress rules of app == 'web'. `allow`, `deny` and `reject`
are packets: SOURCE > DESTINATION PROTOCOL [[SPORT>]DPORT | TYPE/CODE] [STATE] [by WORKLOAD], the
last of one that is forged. `logs` and `staged` say of some packets what is logged, and which staged
rules would deny it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml

from api.resources.hostendpoint import HostEndpoint
from api.resources.net import IPAddress
from api.resources.policy import NetworkPolicy, NetworkSet, Tier
from api.resources.workload import Workload
from support.rulesets.packets import PORTED
from support.scenes import HERE, NUMBERS, THERE, Scene, Sent, addresses

FOLDER = Path(__file__).resolve().parents[1] / "policies" / "catalogue"
VERDICTS = ("allow", "deny", "reject")
KEYS = {
    *VERDICTS, "case", "policies", "tiers", "workloads", "networksets", "default", "untold",
    "untold_ports", "hostendpoints", "in", "out", "logs", "staged", "unready",
}  # fmt: skip
PACKET = re.compile(
    r"(?P<source>\S+) > (?P<destination>\S+) (?P<protocol>\w+)"
    r"(?: (?:(?P<sport>\d+)>)?(?P<dport>\d+)|(?: (?P<type>\d+)/(?P<code>\d+)))?"
    r"(?: (?P<state>established|related|invalid))?(?: by (?P<by>\w+))?"
)
World = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """`packets`: the text, the packet, and the verdict that it has to get; `logs` and `staged` are
    of some of these, by the text."""

    name: str
    scene: Scene
    packets: list[tuple[str, Sent, str]]
    logs: dict[str, list[str]]
    staged: dict[str, list[str]]


def cases() -> list[Case]:
    """All of them, by file and place. ValueError, of what cannot be read."""
    return [
        case(f"{path.stem}: {raw['case']}", raw)
        for path in sorted(FOLDER.glob("*.yaml"))
        if path.stem != "world"
        for raw in yaml.safe_load(path.read_text(encoding="utf-8"))
    ]


@cache
def _world() -> World:
    found: World = yaml.safe_load((FOLDER / "world.yaml").read_text(encoding="utf-8"))
    return found


def case(name: str, raw: World) -> Case:
    """As the catalogue has it."""
    world = _world()
    if not raw.keys() <= KEYS:
        raise ValueError(f"{name}: {raw.keys() - KEYS}")
    workloads = {**world["workloads"], **raw.get("workloads", {})}
    here = raw.get("hostendpoints", {})
    policies = [*raw.get("policies", [])]
    if "in" in raw:
        policies.append(_short("in", "db", "Ingress", ingress=raw["in"]))
    if "out" in raw:
        policies.append(_short("out", "web", "Egress", egress=raw["out"]))
    scene = Scene(
        tuple(_object(Tier, one) for one in raw.get("tiers", [])),
        tuple(_object(NetworkPolicy, one) for one in policies),
        tuple(
            _labelled(NetworkSet, key, one, nets=one.get("nets", []))
            for key, one in {**world["networksets"], **raw.get("networksets", {})}.items()
        ),
        tuple(_host(key, one) for key, one in {**world["hostendpoints"], **here}.items()),
        tuple(_workload(key, one) for key, one in workloads.items()),
        addresses(*world["host"]),
        raw.get("default", "Allow"),
        frozenset(raw.get("untold", [])),
        frozenset((port, text) for port, text in raw.get("untold_ports", [])),
        frozenset(raw.get("unready", [])),
    )
    named = {key: one["addresses"] for key, one in {**workloads, **world["hostendpoints"]}.items()}
    named["host"] = world["host"]
    packets = [
        (text, packet(text, named), verdict)
        for verdict in VERDICTS
        for text in raw.get(verdict, [])
    ]
    logs, staged = raw.get("logs", {}), raw.get("staged", {})
    if not {*logs, *staged} <= {text for text, _, _ in packets}:
        raise ValueError(f"{name}: logs and staged are of packets that have a verdict")
    return Case(name, scene, packets, logs, staged)


def _short(name: str, app: str, kind: str, **rules: Any) -> World:
    return {"name": name, "selector": f"app == '{app}'", "types": [kind], **rules}


def _object(kind: Any, raw: World) -> Any:
    spec = {key: value for key, value in raw.items() if key != "name"}
    return kind.model_validate({"metadata": {"name": raw["name"]}, "spec": spec})


def _labelled(kind: Any, name: str, raw: World, **spec: Any) -> Any:
    metadata = {"name": name, "labels": raw.get("labels", {})}
    return kind.model_validate({"metadata": metadata, "spec": spec})


def _host(name: str, raw: World) -> HostEndpoint:
    """Without `addresses`: of the host that the local workloads are on."""
    node = THERE if "addresses" in raw else HERE
    interface = raw.get("interface")
    own = raw.get("addresses", [] if interface else _world()["host"])
    spec = {"interfaceName": interface, "expectedIPs": own, "ports": raw.get("ports", [])}
    found: HostEndpoint = _labelled(HostEndpoint, name, raw, node=node, **spec)
    return found


def _workload(name: str, raw: World) -> Workload:
    return Workload.model_validate(
        {
            "metadata": {"name": name, "labels": raw.get("labels", {})},
            "spec": {
                "node": THERE if raw.get("remote") else HERE,
                "netns": name,
                "mode": raw.get("mode", "veth"),
                "ports": raw.get("ports", []),
            },
            "status": {
                "addresses": raw["addresses"],
                "hostInterface": f"rtv-{raw['parent']}" if "parent" in raw else "",
            },
        }
    )


def packet(text: str, named: dict[str, list[str]]) -> Sent:
    """As written. ValueError."""
    match = PACKET.fullmatch(text)
    if match is None:
        raise ValueError(f"no packet: {text}")
    source, destination = (_address(match[side], named) for side in ("source", "destination"))
    protocol = NUMBERS.get(match["protocol"]) or int(match["protocol"])
    first, second = match["type"], match["code"]
    if match["dport"]:
        first, second = match["sport"] or "40000", match["dport"]
    if (protocol in PORTED) != bool(match["dport"]):
        raise ValueError(f"ports, or none: {text}")
    numbers = (None, None) if first is None else (int(first), int(second))
    state, by = match["state"] or "new", match["by"] or ""
    if by and by not in named:
        raise ValueError(f"by nobody: {text}")
    sent = Sent(source, destination, protocol, *numbers, state, by)
    if sent.is_pinged != bool(match["type"]):
        raise ValueError(f"type and code, or none: {text}")
    return sent


def _address(word: str, named: dict[str, list[str]]) -> IPAddress:
    if word in named:
        name, version = word, 4
    elif word.endswith("6") and word[:-1] in named:
        name, version = word[:-1], 6
    else:
        return ip_address(word)
    return next(found for one in named[name] if (found := ip_address(one)).version == version)
