"""Other people's firewalls: chains that drop forwarded packets unless a rule of theirs accepts.

An accept in our table does not override a drop in another base chain of the same hook
(nftables(8), "verdict statements"), so such a chain cuts workloads off, and only its owner can
let them through. Docker, firewalld and ufw make such chains. Pure: reads what
``nft -j list ruleset`` prints. Rules of the legacy iptables are not in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from policies.base import LINK_GROUP, TABLE


@dataclass(frozen=True, slots=True)
class Blocking:
    """A chain that drops what is forwarded to and from workloads, and what would let it pass."""

    family: str
    table: str
    chain: str
    remedy: str


def blocking(listed: Iterable[dict[str, Any]]) -> list[Blocking]:
    """The foreign chains at the forward hook with policy drop that do not let our links pass.

    `listed` is the value of "nftables". Docker's own chain for such rules is named where it is.
    """
    entries = list(listed)
    chains = [entry["chain"] for entry in entries if "chain" in entry]
    rules = [entry["rule"] for entry in entries if "rule" in entry]
    found = []
    for chain in chains:
        if chain.get("hook") != "forward" or chain.get("policy") != "drop":
            continue
        family, table = chain["family"], chain["table"]
        if table == TABLE:
            continue
        here = [rule for rule in rules if (rule["family"], rule["table"]) == (family, table)]
        if _lets_pass(here, "iifgroup") and _lets_pass(here, "oifgroup"):
            continue
        names = {c["name"] for c in chains if (c["family"], c["table"]) == (family, table)}
        target = "DOCKER-USER" if "DOCKER-USER" in names else chain["name"]
        remedy = "; ".join(
            f"nft insert rule {family} {table} {target} {side} {LINK_GROUP} accept"
            for side in ("iifgroup", "oifgroup")
        )
        found.append(Blocking(family, table, chain["name"], remedy))
    return found


def _lets_pass(rules: Iterable[dict[str, Any]], side: str) -> bool:
    for rule in rules:
        matches = [part["match"] for part in rule.get("expr", []) if "match" in part]
        accepts = any("accept" in part for part in rule.get("expr", []))
        if accepts and len(matches) == 1:
            left, right = matches[0].get("left", {}), matches[0].get("right")
            if left == {"meta": {"key": side}} and right == LINK_GROUP:
                return True
    return False
