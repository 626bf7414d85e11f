"""Our pair of rules in Docker's `DOCKER-USER` chain, the one place of others that we write to.

Docker sets the policy of FORWARD to drop where it switched forwarding on itself, and sends every
forwarded packet through this chain first, which it makes once and then leaves to others
(docs.docker.com, "Packet filtering and firewalls"). The pair lets pass what comes from and goes to
our links. It stands at the top, so rules that are to hold for workloads too must be inserted above
it. Nobody but its reader removes it: not an agent that stops, nor the package when it is removed.

Recognised by its comment, and by its shape where a rule was saved and restored by iptables, whose
comments nft does not show. Why by name and not by group: see `policies/firewall.py`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from policies.firewall import DOCKER_CHAIN, LINK_NAMES, SIDES, Listed, Rule, side_let_pass

MARK = "routed"


def commands(entries: Iterable[Rule]) -> list[str]:
    """The nft commands that make every such chain hold the pair exactly once; none if it does."""
    listed = Listed.of(entries)
    found = []
    for chain in listed.chains:
        if chain["name"] == DOCKER_CHAIN:
            found += _of_chain(listed, chain["family"], chain["table"])
    return found


def _of_chain(listed: Listed, family: str, table: str) -> list[str]:
    place = f"{family} {table} {DOCKER_CHAIN}"
    kept: dict[str, int] = {}  # by side, the handle
    for rule in listed.course(family, table, DOCKER_CHAIN).rules:
        side = side_let_pass(rule)
        if side is not None and rule["chain"] == DOCKER_CHAIN:
            kept.setdefault(side, rule["handle"])
    here = listed.rules.get((family, table, DOCKER_CHAIN), [])
    stale = [
        f"delete rule {place} handle {rule['handle']}"
        for rule in here
        if rule.get("comment") == MARK and rule["handle"] not in kept.values()
    ]
    missing = [side for side in reversed(SIDES) if side not in kept]
    return stale + [
        f'insert rule {place} {side} "{LINK_NAMES}" counter accept comment "{MARK}"'
        for side in missing
    ]
