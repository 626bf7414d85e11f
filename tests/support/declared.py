"""A world of policies as the manifests say it, and packets in a word.

`world("...")` reads documents without apiVersion; `packet("10.0.0.1", "10.0.0.2", "TCP/443")`.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, Literal

import yaml

from api.resources.decode import decode
from api.resources.meta import API_VERSION
from api.resources.registry import by_kind
from policies.reference import Packet, World, gathered
from policies.reference_rules import NUMBERS


def world(text: str, default: Literal["Allow", "Deny"] = "Allow") -> World:
    """The objects of `text`, status included."""
    objects = []
    for document in yaml.safe_load_all(text):
        kind = by_kind(document["kind"])
        assert kind is not None, document
        objects.append(decode(kind, {"apiVersion": API_VERSION, **document}))
    return gathered(objects, default)


def policies(*specs: str) -> str:
    """The documents of policies p0, p1, …, by what stands in the braces of their specs."""
    return "".join(
        f"---\nkind: NetworkPolicy\nmetadata: {{name: p{number}}}\nspec: {{{spec}}}\n"
        for number, spec in enumerate(specs)
    )


def packet(source: str, destination: str, what: str = "TCP/80", **more: Any) -> Packet:
    """`what`: PROTOCOL[/PORT] with the destination's port, or ICMP[v6]/TYPE[.CODE]. A source port
    of 40000, unless `more` has another."""
    name, _, rest = what.partition("/")
    number = NUMBERS[name] if name in NUMBERS else int(name)
    if name in ("ICMP", "ICMPv6"):
        kind, _, code = rest.partition(".")
        more = {"icmp_type": int(kind or 8), "icmp_code": int(code or 0), **more}
    elif rest:
        more = {"source_port": 40_000, "destination_port": int(rest), **more}
    return Packet(ip_address(source), ip_address(destination), number, **more)
