"""Policies compiled in tests, and what of them is in the kernel."""

from __future__ import annotations

import json
from typing import Any

from api.resources.policy import NetworkPolicy, Tier
from policies.compile import names
from policies.compile.compiler import compiled
from policies.compile.ruleset import Ruleset
from policies.model import Endpoint, Members, Membership
from policies.plan import plan
from support.netns import run

TABLE = "inet routed"
WEB = {"action": "Allow", "protocol": "TCP", "source": {"selector": "app == 'web'"}}
DENY = {"action": "Deny", "reject": True, "source": {"notSelector": "app == 'web'"}}
KNOWN = Membership({"app == 'web'": Members()})
S4, S6 = (names.selector("app == 'web'", version) for version in (4, 6))


def policy(name: str, **spec: Any) -> NetworkPolicy:
    return NetworkPolicy.model_validate({"metadata": {"name": name}, "spec": spec})


def endpoints(count: int, **labels: str) -> list[Endpoint]:
    return [Endpoint(f"w{number}", labels, link=f"rt{number}") for number in range(count)]


def ruleset(*policies: NetworkPolicy, tiers: tuple[Tier, ...] = ()) -> Ruleset:
    return compiled(plan(tiers, policies, endpoints(3, app="db")), KNOWN)


def listed() -> dict[str, Any]:
    """The table: rules of each chain in their order, and all else by name; without handles and
    counts, which tell nothing of what it does."""
    found: dict[str, Any] = {}
    for entry in json.loads(run("nft", "-j", "list", "table", *TABLE.split()))["nftables"]:
        ((kind, one),) = entry.items()
        one.pop("handle", None)
        if kind == "rule":
            parts = [part for part in one["expr"] if "counter" not in part]
            counted = len(parts) < len(one["expr"])
            said = (json.dumps(parts), counted, one.get("comment"))
            found.setdefault(f"rules of {one['chain']}", []).append(said)
        elif kind != "metainfo":
            one["elem"] = sorted(json.dumps(element) for element in one.get("elem", []))
            found[f"{kind} {one['name']}"] = one
    return found


def handles() -> dict[str, list[int]]:
    """Of rules, by chain: who keeps its own was not touched."""
    found: dict[str, list[int]] = {}
    for entry in json.loads(run("nft", "-j", "list", "table", *TABLE.split()))["nftables"]:
        if "rule" in entry:
            found.setdefault(entry["rule"]["chain"], []).append(entry["rule"]["handle"])
    return found


def changed(before: dict[str, list[int]], now: dict[str, list[int]]) -> set[str]:
    return {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
