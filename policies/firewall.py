"""Other people's firewalls: chains that drop forwarded packets unless a rule of theirs accepts,
by their policy (Docker, ufw) or by their last rule (firewalld).

An accept in our table does not override a drop in another base chain of the same hook
(nftables(8), "verdict statements"), so such a chain cuts workloads off, and only a rule in it can
let them through. Pure: reads what ``nft -j list ruleset`` prints. Rules of the legacy iptables are
not in it.

The rules say our links by name (`rt*`) wherever iptables may read them too: a native `iifgroup`,
which would be exact, cannot be translated by iptables-nft, and then `iptables -S` and
`iptables-save` refuse the chain ("unknown ipv4 meta key", tried with 1.8.9), and so does whatever
builds on them. `iifname "rt*"` with a counter and a comment is to it what `-i rt+` makes itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from policies.base import LINK_GROUP, TABLE

DOCKER_CHAIN = "DOCKER-USER"  # Docker's, for other people's rules
LINK_NAMES = "rt*"  # of our links on the host's side
SIDES = {"iifname": "-i", "oifname": "-o"}
IPTABLES = {"ip": "iptables", "ip6": "ip6tables"}
VERDICTS = {"accept", "drop", "reject"}  # the last word on a packet in this base chain
UNCONDITIONAL = VERDICTS | {"return", "goto", "jump", "counter", "log"}
WHOLE = {"match", "xt", "counter", "log", "accept"}  # of a rule that accepts all of a side

Rule = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Blocking:
    """A chain that drops what is forwarded to and from workloads, and what would let it pass.

    `docker`: it sends all through Docker's chain for such rules, which a running agent keeps open.
    """

    family: str
    table: str
    chain: str
    remedy: str
    docker: bool = False


@dataclass(frozen=True, slots=True)
class Course:
    """Rules and chains that no packet gets around, and what is said of all in the end, if not left
    to the policy."""

    rules: list[Rule]
    chains: set[str]
    verdict: str | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A ruleset: every chain, and the rules of each in their order, by (family, table, name)."""

    chains: list[Rule]
    rules: dict[tuple[str, str, str], list[Rule]]

    @classmethod
    def of(cls, entries: Iterable[Rule]) -> Listed:
        """`entries` is the value of "nftables"."""
        chains: list[Rule] = []
        rules: dict[tuple[str, str, str], list[Rule]] = {}
        for entry in entries:
            if "chain" in entry:
                chains.append(entry["chain"])
            elif "rule" in entry:
                rule = entry["rule"]
                key = rule["family"], rule["table"], rule["chain"]
                rules.setdefault(key, []).append(rule)
        return cls(chains, rules)

    def course(self, family: str, table: str, name: str) -> Course:
        """What every packet that enters the chain meets, unless something before decides on it:
        its rules up to the first that ends it for all, and chains that all are sent through."""
        met, through = [], {name}
        for rule in self.rules.get((family, table, name), []):
            met.append(rule)
            parts = rule.get("expr", [])
            said = {key for part in parts for key in part}
            if not said <= UNCONDITIONAL:
                continue
            verdict = next(iter(said & VERDICTS), None)
            for part in parts:
                onward = part.get("jump") or part.get("goto")
                if onward:
                    other = self.course(family, table, onward["target"])
                    met += other.rules
                    through |= other.chains
                    verdict = other.verdict
            if verdict or said & {"return", "goto"}:
                return Course(met, through, verdict)
        return Course(met, through)


def blocking(entries: Iterable[Rule]) -> list[Blocking]:
    """Foreign chains at the forward hook that drop in the end and do not let our links pass."""
    listed = Listed.of(entries)
    found = []
    for chain in listed.chains:
        family, table, name = chain["family"], chain["table"], chain["name"]
        if chain.get("hook") != "forward" or table == TABLE:
            continue
        course = listed.course(family, table, name)
        if (course.verdict or chain.get("policy", "accept")) == "accept":
            continue
        if {side_let_pass(rule) for rule in course.rules} >= SIDES.keys():
            continue
        docker = DOCKER_CHAIN in course.chains
        remedy = _remedy(family, table, DOCKER_CHAIN if docker else name)
        found.append(Blocking(family, table, name, remedy, docker))
    return found


def side_let_pass(rule: Rule) -> str | None:
    """The side (a key of `SIDES`) of our links that `rule` accepts whole; None: of neither."""
    parts = rule.get("expr", [])
    matches = [part["match"] for part in parts if "match" in part]
    extensions = [part["xt"] for part in parts if "xt" in part]
    if any(one.get("name") != "comment" for one in extensions) or len(matches) != 1:
        return None
    said = {key for part in parts for key in part}
    if "accept" not in said or not said <= WHOLE or matches[0].get("op") != "==":
        return None
    left, right = matches[0].get("left"), matches[0].get("right")
    for side in SIDES:
        if left == {"meta": {"key": side}} and right == LINK_NAMES:
            return side
        if left == {"meta": {"key": side.replace("name", "group")}} and right == LINK_GROUP:
            return side
    return None


def _remedy(family: str, table: str, chain: str) -> str:
    """In the words of the program that most likely owns the chain."""
    if family in IPTABLES and table == "filter":
        program = IPTABLES[family]
        said = [f"{program} -I {chain} {flag} rt+ -j ACCEPT" for flag in SIDES.values()]
    else:
        said = [
            f"nft insert rule {family} {table} {chain} {side} {LINK_GROUP} accept"
            for side in ("iifgroup", "oifgroup")
        ]
    return "; ".join(said)
