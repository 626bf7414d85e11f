"""What the left sides of matches are worth, and whether a right side holds that.

nft leaves conditions out of what it lists where another says them already: `ip saddr` holds for
IPv4 alone, `tcp dport` for TCP alone. Two cannot be told from their listing, and are Unknown for
ICMP in the other family: `meta l4proto icmp` is listed alike with and without a family before it,
and `icmp type` after that looks at IPv6 too (nft 1.0.6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network
from typing import Any

from support.rulesets.packets import PINGED, PORTED, Packet

NFPROTO = {4: "ipv4", 6: "ipv6"}
ETHERTYPES = {4: {"ip", 0x0800}, 6: {"ip6", 0x86DD}}
PROTOCOLS = {
    "icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58,
    "icmpv6": 58, "sctp": 132, "udplite": 136,
}  # fmt: skip
TYPES = {
    "icmp": {
        "echo-reply": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5,
        "echo-request": 8, "router-advertisement": 9, "router-solicitation": 10,
        "time-exceeded": 11, "parameter-problem": 12, "timestamp-request": 13,
        "timestamp-reply": 14, "info-request": 15, "info-reply": 16, "address-mask-request": 17,
        "address-mask-reply": 18,
    },
    "icmpv6": {
        "destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3,
        "parameter-problem": 4, "echo-request": 128, "echo-reply": 129, "mld-listener-query": 130,
        "mld-listener-report": 131, "mld-listener-done": 132, "mld-listener-reduction": 132,
        "nd-router-solicit": 133, "nd-router-advert": 134, "nd-neighbor-solicit": 135,
        "nd-neighbor-advert": 136, "nd-redirect": 137, "router-renumbering": 138,
        "ind-neighbor-solicit": 141, "ind-neighbor-advert": 142, "mld2-listener-report": 143,
    },
}  # fmt: skip
CODES = {
    "icmp": {
        "net-unreachable": 0, "host-unreachable": 1, "prot-unreachable": 2, "port-unreachable": 3,
        "frag-needed": 4, "net-prohibited": 9, "host-prohibited": 10, "admin-prohibited": 13,
    },
    "icmpv6": {
        "no-route": 0, "admin-prohibited": 1, "addr-unreachable": 3, "port-unreachable": 4,
        "policy-fail": 5, "reject-route": 6,
    },
}  # fmt: skip
STATES = {"invalid", "established", "related", "new", "untracked"}


class Unknown(Exception):
    """The ruleset has a word, or asks a thing of the packet, that the interpreter does not know."""


class Break(Exception):
    """The packet has no such thing: the kernel leaves the rule (NFT_BREAK)."""


class Garbage:
    """What the kernel reads where the header is another one: some number, nobody knows which."""


GARBAGE = Garbage()
Names = dict[str, int]
# of what the type is asked; links and marks that it is asked with decide nothing here
TYPED = {
    ("daddr",): "daddr_type",
    ("daddr", "mark"): "daddr_type",
    ("saddr",): "saddr_type",
    ("oif", "saddr"): "saddr_type",
}


class Field:
    """A kind of values: `of` says the packet's, `read` what a word of the listing stands for."""

    def __init__(self, of: Callable[[Packet], Any], read: Callable[[Any], Any]) -> None:
        self.of, self.read = of, read


def _number(names: Names) -> Callable[[Any], int]:
    def read(word: Any) -> int:
        if isinstance(word, int) and not isinstance(word, bool):
            return word
        if isinstance(word, str) and word.isdigit():
            return int(word)
        if word in names:
            return names[word]
        raise Unknown(f"{word!r} is no number, nor one of {sorted(names)}")

    return read


def _one_of(words: Iterable[str]) -> Callable[[Any], str]:
    known = frozenset(words)

    def read(word: Any) -> str:
        if word not in known:
            raise Unknown(f"{word!r} is none of {sorted(known)}")
        return str(word)

    return read


def _text(word: Any) -> str:
    if not isinstance(word, str):
        raise Unknown(f"{word!r} is no text")
    return word


def _address(version: int) -> Callable[[Any], Any]:
    def read(word: Any) -> Any:
        try:
            found = ip_address(word)
        except ValueError as error:
            raise Unknown(f"{word!r} is no address") from error
        if found.version != version:
            raise Unknown(f"{word!r} is no address of IPv{version}")
        return found

    return read


def _of_family(version: int, of: Callable[[Packet], Any]) -> Callable[[Packet], Any]:
    def value(packet: Packet) -> Any:
        if packet.version != version:
            raise Break
        return of(packet)

    return value


def _port(protocol: str, side: str) -> Callable[[Packet], Any]:
    def value(packet: Packet) -> Any:
        found = getattr(packet, side)
        if protocol == "th":
            return GARBAGE if found is None else found
        if PORTED.get(packet.protocol) != protocol:
            raise Break
        return found

    return value


def _icmp(protocol: str, what: str) -> Callable[[Packet], Any]:
    def value(packet: Packet) -> Any:
        if PINGED.get(packet.protocol) != protocol:
            raise Break
        found = getattr(packet, what)
        if found is None:
            raise Unknown(f"{protocol} {what} of a packet of IPv{packet.version}")
        return found

    return value


def _ether(word: Any) -> int:
    for version, words in ETHERTYPES.items():
        if word in words:
            return version
    raise Unknown(f"{word!r} is no protocol of Ethernet that is known here")


def _group(side: str) -> Callable[[Packet], int]:
    def value(packet: Packet) -> int:
        found: int | None = getattr(packet, side)
        if found is None:
            raise Break
        return found

    return value


def _skuid(packet: Packet) -> int:
    if packet.skuid is None:
        raise Break
    return packet.skuid


def _l4proto(packet: Packet) -> int:
    return packet.protocol


META = {
    "iifname": Field(lambda packet: packet.iifname, _text),
    "oifname": Field(lambda packet: packet.oifname, _text),
    "iifgroup": Field(_group("iifgroup"), _number({"default": 0})),
    "oifgroup": Field(_group("oifgroup"), _number({"default": 0})),
    "l4proto": Field(_l4proto, _number(PROTOCOLS)),
    "nfproto": Field(lambda packet: NFPROTO[packet.version], _one_of(NFPROTO.values())),
    "protocol": Field(lambda packet: packet.version, _ether),
    "mark": Field(lambda packet: packet.mark, _number({})),
    "skuid": Field(_skuid, _number({"root": 0})),
}
PAYLOAD = {
    **{
        (word, side): Field(
            _of_family(version, lambda packet, side=side: getattr(packet, side)), _address(version)
        )
        for version, word in ((4, "ip"), (6, "ip6"))
        for side in ("saddr", "daddr")
    },
    ("ip", "protocol"): Field(_of_family(4, lambda p: p.protocol), _number(PROTOCOLS)),
    ("ip6", "nexthdr"): Field(_of_family(6, lambda p: p.protocol), _number(PROTOCOLS)),
    **{
        (word, side): Field(_port(word, side), _number({}))
        for word in (*PORTED.values(), "th")
        for side in ("sport", "dport")
    },
    **{
        (word, what): Field(_icmp(word, what), _number(names[word]))
        for word in PINGED.values()
        for what, names in (("type", TYPES), ("code", CODES))
    },
}


def _asked(what: str) -> Callable[[Packet], Any]:
    def value(packet: Packet) -> Any:
        found = getattr(packet, what)
        if found is None:
            raise Unknown(f"{what} is not said of {packet}")
        return found

    return value


def _truth(word: Any) -> bool:
    if not isinstance(word, bool):
        raise Unknown(f"{word!r} is neither true nor false")
    return word


def field(left: Any) -> list[Field]:
    """The parts of a left side: one, or those of a concatenation."""
    match left:
        case {"concat": [*parts]}:
            return [one for part in parts for one in field(part)]
        case {"meta": {"key": key}} if key in META:
            return [META[key]]
        case {"payload": {"protocol": protocol, "field": name}} if (protocol, name) in PAYLOAD:
            return [PAYLOAD[protocol, name]]
        case {"ct": {"key": "state", **more}} if not more:
            return [Field(lambda packet: packet.state, _one_of(STATES))]
        case {"fib": {"result": "oif", "flags": flags}} if sorted(flags) == ["iif", "saddr"]:
            return [Field(_asked("routed_back"), _truth)]
        case {"fib": {"result": "type", "flags": flags}}:
            words = [flags] if isinstance(flags, str) else sorted(flags)
            if tuple(words) in TYPED:
                return [Field(_asked(TYPED[tuple(words)]), _text)]
    raise Unknown(f"left side {left}")


def holds(element: Any, fields: list[Field], values: list[Any]) -> bool:
    """Whether an element of a set, or the right side of a match, is or spans the packet's."""
    match element:
        case {"elem": {"val": inner}}:
            return holds(inner, fields, values)
        case {"concat": [*parts]}:
            pass
        case _:
            parts = [element]
    if len(parts) != len(fields):
        raise Unknown(f"{element} against {len(fields)} parts")
    found = [_spans(*one) for one in zip(parts, fields, values, strict=True)]
    if False in found:
        return False
    if None in found:
        raise Unknown(f"{element}: the packet has another header there")
    return True


def is_ambiguous(fields: list[Field], right: Any, packet: Packet) -> bool:
    """Whether that match, which holds, may have had a family with it that is not listed."""
    odd = packet.protocol in PINGED and packet.type is None
    return odd and fields[0].of is _l4proto and not isinstance(right, dict)


def _spans(part: Any, field: Field, value: Any) -> bool | None:
    """None: nobody knows."""
    if value is GARBAGE:
        return None
    match part:
        case {"range": [first, last]}:
            return bool(field.read(first) <= value <= field.read(last))
        case {"prefix": {"addr": address, "len": length}}:
            return value in ip_network(f"{field.read(address)}/{length}")
        case str() if field.read is _text and part.endswith("*"):
            return str(value).startswith(part[:-1])
        case dict() | list():
            raise Unknown(f"right side {part}")
    return bool(field.read(part) == value)
