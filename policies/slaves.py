"""Other people's firewalls and workloads of the ipvlan modes.

What comes to a slave passes the host's own INPUT (ipvlan-l3s), what it sends passes OUTPUT, with
its own addresses, which are none of the host's (docs/modes.md). A chain there that drops in the end
cuts them off, unless a rule of it lets pass the pools that they have addresses of. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from api.resources.net import IPNetwork
from policies.firewall import FAMILIES, Blocking, Listed, Rule, is_comment, program_of
from policies.marks import TABLES

FIELDS = {"input": ("daddr", "-d"), "output": ("saddr", "-s")}
WHAT = {"input": "what comes to ipvlan workloads", "output": "what ipvlan workloads send"}
PROTOCOLS = {4: "ip", 6: "ip6"}


@dataclass(frozen=True, slots=True)
class Slaves:
    """The pools whose addresses pass INPUT of this host, and those whose pass OUTPUT."""

    arriving: tuple[IPNetwork, ...] = ()
    leaving: tuple[IPNetwork, ...] = ()

    def pools(self, hook: str) -> Sequence[IPNetwork]:
        return {"input": self.arriving, "output": self.leaving}.get(hook, ())


NO_SLAVES = Slaves()


def blocking(entries: Iterable[Rule], slaves: Slaves) -> list[Blocking]:
    """Foreign chains at these two hooks that drop in the end and do not let the pools pass."""
    listed = Listed.of(entries)
    found = []
    for chain in listed.chains:
        family, table, name = chain["family"], chain["table"], chain["name"]
        hook = str(chain.get("hook", ""))
        if table in TABLES or family not in FAMILIES:
            continue
        policy = chain.get("policy", "accept")
        missing = [
            pool
            for pool in slaves.pools(hook)
            if family in ("inet", PROTOCOLS[pool.version])
            and (listed.course(family, table, name, _of(pool, hook)).verdict or policy) != "accept"
        ]
        if missing:
            remedy = "; ".join(_remedy(family, table, name, hook, pool) for pool in missing)
            found.append(Blocking(family, table, name, remedy, what=WHAT[hook]))
    return found


def _of(pool: IPNetwork, hook: str) -> Callable[[Rule], bool]:
    """Whether a part of a rule holds for every packet of the pool there."""
    wanted = {"payload": {"protocol": PROTOCOLS[pool.version], "field": FIELDS[hook][0]}}

    def holds(part: Rule) -> bool:
        match = part.get("match")
        if match is None or match.get("op") != "==" or match.get("left") != wanted:
            return is_comment(part)
        return _covers(match.get("right"), pool)

    return holds


def _covers(right: Any, pool: IPNetwork) -> bool:
    prefix = right.get("prefix") if isinstance(right, dict) else None
    text = f"{prefix['addr']}/{prefix['len']}" if prefix else right
    try:
        net = ip_network(text)
    except (ValueError, TypeError):
        return False  # a set, a range
    # both are of the family that the match is for
    return net.prefixlen <= pool.prefixlen and pool.network_address in net


def _remedy(family: str, table: str, chain: str, hook: str, pool: IPNetwork) -> str:
    field, flag = FIELDS[hook]
    if program := program_of(family, table):
        return f"{program} -I {chain} {flag} {pool} -j ACCEPT"
    protocol = PROTOCOLS[pool.version]
    return f"nft insert rule {family} {table} {chain} {protocol} {field} {pool} accept"
