"""What a rule is about, as matches of nftables.

A rule of the API becomes several of nftables where something of it has alternatives that one cannot
say: the families (an address match is of one), a selector that stands for addresses and for nets,
ports by number and by name. What is not about addresses stays one rule for both families.

What a selector stands for is in sets, so it changes by element; only whether it stands for any nets
of a family at all decides on rules. Where the members were never told, the part is taken for true;
who asks has to do what is safe then (`unknown`). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from itertools import product
from weakref import WeakKeyDictionary

from api.resources.net import IPNetwork
from api.resources.policy import ICMP, NUMBERS, PORTED, Entity, Rule
from policies.compile import names
from policies.model import Members, Membership, port_names, rule_needs

_PORTED = frozenset(NUMBERS[name] for name in PORTED)
FAMILY_OF = {NUMBERS["ICMP"]: 4, NUMBERS["ICMPv6"]: 6}
WORDS = {4: "ip", 6: "ip6"}

Alternatives = list[str]  # of which one has to be true; none: it never is


def number(protocol: int | str) -> int:
    """The IANA's."""
    return protocol if isinstance(protocol, int) else NUMBERS[protocol]


def unknown(rule: Rule, known: Membership) -> bool:
    """Whether it needs members that were never told, or has ports of a protocol that has none."""
    needs = rule_needs(rule)
    told = needs.selectors <= known.selectors.keys() and needs.ports <= known.ports.keys()
    return not told or (_asks_for_ports(rule) and not _has_ports(rule))


def _asks_for_ports(rule: Rule) -> bool:
    return any(end.ports or end.not_ports for end in (rule.source, rule.destination))


def _has_ports(rule: Rule) -> bool:
    """The service refuses ports without; nft 1.0.6 takes them for some, and ends where it has to
    list a named one (payload.c:931)."""
    return rule.protocol is not None and number(rule.protocol) in _PORTED


def matches(rule: Rule, known: Membership, *, exclusive: bool = False) -> list[str]:
    """The matches of each nftables rule that `rule` needs, "" for everything. `exclusive`: no
    packet fits two of them, which matters where the first is not the last word."""
    found: list[str] = []
    for version in _versions(rule, known):
        parts: list[Alternatives] = [[f"meta nfproto ipv{version}"]] if version else []
        parts += _protocol(rule)
        parts += _icmp(rule)
        ports = [
            *_ports(rule.source, "s", version, known, exclusive),
            *_ports(rule.destination, "d", version, known, exclusive),
        ] * _has_ports(rule)
        # what is compared comes before what is looked up
        parts += [choices for choices in ports if not any("@" in choice for choice in choices)]
        parts += _addresses(rule.source, "saddr", version, known, exclusive)
        parts += _addresses(rule.destination, "daddr", version, known, exclusive)
        parts += [choices for choices in ports if any("@" in choice for choice in choices)]
        found += [" ".join(choice) for choice in product(*parts)]
    return found


def _versions(rule: Rule, known: Membership) -> list[int]:
    """The families that rules are needed for; 0: one rule for both."""
    only = None if rule.protocol is None else FAMILY_OF.get(number(rule.protocol))
    if None not in (rule.ip_version, only) and rule.ip_version != only:
        return []
    only = rule.ip_version or only
    if only is not None:
        return [only]
    ends = (rule.source, rule.destination)
    return [4, 6] if any(_is_of_addresses(end, known) for end in ends) else [0]


def _is_of_addresses(end: Entity, known: Membership) -> bool:
    told = [text in known.selectors for text in (end.selector, end.not_selector)]
    named = (
        (name, end.selector or "") in known.ports
        for name in port_names([*end.ports, *end.not_ports])
    )
    return bool(end.nets or end.not_nets or any(told) or any(named))


def _protocol(rule: Rule) -> list[Alternatives]:
    never = None if rule.not_protocol is None else number(rule.not_protocol)
    if rule.protocol is not None:
        always = number(rule.protocol)
        return [[] if always == never else [f"meta l4proto {always}"]]
    return [] if never is None else [[f"meta l4proto != {never}"]]


def _icmp(rule: Rule) -> list[Alternatives]:
    word = "icmpv6" if number(rule.protocol or 0) == NUMBERS["ICMPv6"] else "icmp"
    parts: list[Alternatives] = []
    if rule.icmp is not None and rule.icmp.type is not None:
        parts.append([_both(word, rule.icmp)])
    if rule.not_icmp is not None and rule.not_icmp.type is not None:
        kind, code = rule.not_icmp.type, rule.not_icmp.code
        choices = [f"{word} type != {kind}"]
        if code is not None:
            choices.append(f"{word} type {kind} {word} code != {code}")
        parts.append(choices)
    return parts


def _both(word: str, icmp: ICMP) -> str:
    code = "" if icmp.code is None else f" {word} code {icmp.code}"
    return f"{word} type {icmp.type}{code}"


def _addresses(
    end: Entity, field: str, version: int, known: Membership, exclusive: bool
) -> list[Alternatives]:
    parts: list[Alternatives] = []
    if not version:
        return parts
    address = f"{WORDS[version]} {field}"
    if end.nets:
        parts += _inside(address, collapsed(end.nets, version))
    if end.not_nets:
        parts += _outside(address, collapsed(end.not_nets, version))
    if end.selector is not None and (members := known.selectors.get(end.selector)):
        choices = _sets(end.selector, members, version)
        parts.append(
            _any([(f"{address} @{name}", f"{address} != @{name}") for name in choices], exclusive)
        )
    if end.not_selector is not None and (members := known.selectors.get(end.not_selector)):
        for name in _sets(end.not_selector, members, version):
            parts.append([f"{address} != @{name}"])
    return parts


def _inside(address: str, nets: tuple[IPNetwork, ...]) -> list[Alternatives]:
    if nets and nets[0].prefixlen == 0:
        return []
    return [[f"{address} {_listed(map(str, nets))}"] if nets else []]


def _outside(address: str, nets: tuple[IPNetwork, ...]) -> list[Alternatives]:
    if not nets:
        return []
    return [[] if nets[0].prefixlen == 0 else [f"{address} != {_listed(map(str, nets))}"]]


def _sets(text: str, members: Members, version: int) -> list[str]:
    """The names of the sets that hold what a selector stands for, in that family."""
    some = [names.selector(text, version)]
    return [*some, names.nets(text, version)] if has_nets(members)[version] else some


def _ports(
    end: Entity, side: str, version: int, known: Membership, exclusive: bool
) -> list[Alternatives]:
    """`side`: s or d."""
    parts: list[Alternatives] = []
    for ports, wanted in ((end.ports, True), (end.not_ports, False)):
        keys = [(name, end.selector or "") for name in port_names(ports)]
        if not ports or any(key not in known.ports for key in keys):
            continue
        choices = []
        if ranges := merged(ports):
            value = _listed(f"{low}-{high}" if low < high else str(low) for low, high in ranges)
            choices.append((f"th {side}port {value}", f"th {side}port != {value}"))
        for key in dict.fromkeys(keys):
            three = f"{WORDS[version]} {side}addr . meta l4proto . th {side}port"
            name = names.named(key, version)
            choices.append((f"{three} @{name}", f"{three} != @{name}"))
        if wanted:
            parts.append(_any(choices, exclusive))
        else:
            parts += [[negative] for _, negative in choices]
    return parts


def _any(choices: list[tuple[str, str]], exclusive: bool) -> Alternatives:
    """One of (match, its opposite) each."""
    if not exclusive:
        return [match for match, _ in choices]
    before: list[str] = []
    found = []
    for match, opposite in choices:
        found.append(" ".join([*before, match]))
        before.append(opposite)
    return found


def _listed(values: Iterable[str]) -> str:
    some = list(values)
    return some[0] if len(some) == 1 else f"{{ {', '.join(some)} }}"


def merged(ports: Iterable[int | str]) -> list[tuple[int, int]]:
    """The numbers among them as ranges that neither overlap nor touch."""
    ranges = []
    for port in ports:
        if isinstance(port, int):
            ranges.append((port, port))
        elif ":" in port:
            first, _, last = port.partition(":")
            ranges.append((int(first), int(last)))
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(high, found[-1][1])
        else:
            found.append((low, high))
    return found


def collapsed(nets: Iterable[IPNetwork], version: int) -> tuple[IPNetwork, ...]:
    """Those of one family, as the fewest that hold the same addresses: nftables refuses a set of
    prefixes that overlap."""
    if version == 4:
        return tuple(collapse_addresses(net for net in nets if isinstance(net, IPv4Network)))
    return tuple(collapse_addresses(net for net in nets if isinstance(net, IPv6Network)))


_FAMILIES: WeakKeyDictionary[Members, dict[int, bool]] = WeakKeyDictionary()


def has_nets(members: Members) -> dict[int, bool]:
    """Whether there are any nets, by family."""
    if (found := _FAMILIES.get(members)) is None:
        versions = {net.version for net in members.nets}
        found = _FAMILIES[members] = {version: version in versions for version in WORDS}
    return found
