"""Other people's firewalls: chains that drop forwarded packets unless a rule of theirs accepts,
by their policy (Docker, ufw) or by their last rule (firewalld).

An accept in our table does not override a drop in another base chain of the same hook
(nftables(8), "verdict statements"), so such a chain cuts workloads off, and only a rule in it can
let them through. Pure: reads what ``nft -j list ruleset`` prints, and rules of the legacy iptables
put in the same words (`policies/legacy.py`).

A packet from a workload and one to a workload are followed separately, each past the rules that say
nothing about it: what firewalld and ufw write for an interface of theirs is a rule that sends its
packets to another chain, and there they are let pass. Conditions on anything else (addresses, other
interfaces) decide nothing here, so who lets workloads pass by such only is told all the same.

The rules say our links by name (`rt*`) wherever iptables may read them too: a native `iifgroup`,
which would be exact, cannot be translated by iptables-nft, and then `iptables -S` and
`iptables-save` refuse the chain ("unknown ipv4 meta key", tried with 1.8.9), and so does whatever
builds on them. `iifname "rt*"` with a counter and a comment is to it what `-i rt+` makes itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from policies.marks import LINK_GROUP, TABLES

DOCKER_CHAIN = "DOCKER-USER"  # Docker's, for other people's rules
LINK_NAMES = "rt*"  # of our links on the host's side
SIDES = {"iifname": "-i", "oifname": "-o"}
IPTABLES = {"ip": "iptables", "ip6": "ip6tables"}
FAMILIES = {*IPTABLES, "inet"}  # whose forward hook sees what is routed
LEGACY = "iptables-legacy filter"  # the table of the legacy iptables, as it is called here
VERDICTS = {"accept", "drop", "reject"}  # the last word on a packet in this base chain
TARGETS = {"REJECT": "reject", "DROP": "drop", "ACCEPT": "accept"}  # of iptables-nft, by xt
UNCONDITIONAL = VERDICTS | {"return", "goto", "jump", "counter", "log"}
WHOLE = {"match", "xt", "counter", "log", "accept"}  # of a rule that accepts all of a side
# what makes it last: a rule of somebody else's is forgotten when these write theirs anew
FIREWALLD = (
    "firewall-cmd --permanent --zone=trusted --add-interface=rt+",
    "firewall-cmd --permanent --new-policy=routed",
    "firewall-cmd --permanent --policy=routed --add-ingress-zone=ANY",
    "firewall-cmd --permanent --policy=routed --add-egress-zone=trusted",
    "firewall-cmd --permanent --policy=routed --set-target=ACCEPT",
    "firewall-cmd --reload",
)
UFW = ("ufw route allow in on rt+", "ufw route allow out on rt+")

Rule = dict[str, Any]
Holds = Callable[[Rule], bool]  # whether a part of a rule is true for the packets in question


@dataclass(frozen=True, slots=True)
class Blocking:
    """A chain that drops what is forwarded to and from workloads, and what would let it pass.

    `remedy`: commands, with "; " between them, that help at once. `lasting`: those that make the
    program whose chain it is keep that; empty where it is not known. `docker`: it sends all through
    Docker's chain for such rules, which a running agent keeps open.
    """

    family: str
    table: str
    chain: str
    remedy: str
    docker: bool = False
    lasting: str = ""
    what: str = "what workloads send"

    def told(self) -> str:
        """For people."""
        said = (
            f"chain {self.chain} of table {self.family} {self.table} drops {self.what}; "
            f"run: {self.remedy}"
        )
        return f"{said} (to keep it: {self.lasting})" if self.lasting else said


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
        """`entries` is the value of "nftables", in which a statement may be a mere word."""
        chains: list[Rule] = []
        rules: dict[tuple[str, str, str], list[Rule]] = {}
        for entry in entries:
            if "chain" in entry:
                chains.append(entry["chain"])
            elif "rule" in entry:
                rule = entry["rule"]
                key = rule["family"], rule["table"], rule["chain"]
                parts = rule.get("expr", [])
                parts = [part if isinstance(part, dict) else {str(part): None} for part in parts]
                rules.setdefault(key, []).append({**rule, "expr": parts})
        return cls(chains, rules)

    def course(self, family: str, table: str, name: str, ours: Holds = lambda _: False) -> Course:
        """What every packet that enters the chain meets, unless something before decides on it:
        its rules up to the first that ends it for all, and chains that all are sent through. Of
        the packets for which the parts of rules hold that are `ours`."""
        met, through = [], {name}
        for rule in self.rules.get((family, table, name), []):
            met.append(rule)
            parts = [part for part in map(_plain, rule.get("expr", [])) if not ours(part)]
            said = {key for part in parts for key in part}
            if not said <= UNCONDITIONAL:
                continue
            verdict = next(iter(said & VERDICTS), None)
            for part in parts:
                onward = part.get("jump") or part.get("goto")
                if onward:
                    other = self.course(family, table, onward["target"], ours)
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
        if chain.get("hook") != "forward" or table in TABLES or family not in FAMILIES:
            continue
        policy = chain.get("policy", "accept")
        ends = {
            listed.course(family, table, name, partial(_is_ours, side)).verdict or policy
            for side in SIDES
        }
        if ends == {"accept"}:
            continue
        through = listed.course(family, table, name).chains
        docker = DOCKER_CHAIN in through
        remedy = _remedy(family, table, DOCKER_CHAIN if docker else name)
        kept = docker and table != LEGACY  # we write to no table of the legacy iptables
        found.append(Blocking(family, table, name, remedy, kept, _lasting(family, table, through)))
    return found


def _plain(part: Rule) -> Rule:
    """A verdict that iptables-nft puts as an extension of its own, as what it is."""
    extension = part.get("xt")
    if isinstance(extension, dict) and extension.get("type") == "target":
        verdict = TARGETS.get(str(extension.get("name")))
        return part if verdict is None else {verdict: None}
    return part


def is_comment(part: Rule) -> bool:
    """Whether it is no condition at all, though an extension of iptables."""
    extension = part.get("xt")
    return isinstance(extension, dict) and extension.get("name") == "comment"


def _is_ours(side: str, part: Rule) -> bool:
    """Whether that part of a rule holds for every packet of our links on that side."""
    match = part.get("match")
    return is_comment(part) if match is None else _side_of(match) == side


def side_let_pass(rule: Rule) -> str | None:
    """The side (a key of `SIDES`) of our links that `rule` accepts whole; None: of neither."""
    parts = rule.get("expr", [])
    matches = [part["match"] for part in parts if "match" in part]
    if any("xt" in part and not is_comment(part) for part in parts) or len(matches) != 1:
        return None
    said = {key for part in parts for key in part}
    if "accept" not in said or not said <= WHOLE:
        return None
    return _side_of(matches[0])


def _side_of(match: Rule) -> str | None:
    """The side whose links, all of ours, `match` is for."""
    left, right = match.get("left"), match.get("right")
    for side in SIDES if match.get("op") == "==" else ():
        if left == {"meta": {"key": side}} and right == LINK_NAMES:
            return side
        if left == {"meta": {"key": side.replace("name", "group")}} and right == LINK_GROUP:
            return side
    return None


def _lasting(family: str, table: str, chains: set[str]) -> str:
    """In the words of the program that writes such chains, which one tells by their names."""
    if (family, table) == ("inet", "firewalld"):
        return "; ".join(FIREWALLD)
    return "; ".join(UFW) if any(name.startswith(("ufw-", "ufw6-")) for name in chains) else ""


def program_of(family: str, table: str) -> str:
    """The iptables that most likely owns a table; "": none does."""
    if family not in IPTABLES or table not in ("filter", LEGACY):
        return ""
    return IPTABLES[family] + ("-legacy" if table == LEGACY else "")


def _remedy(family: str, table: str, chain: str) -> str:
    """In the words of the program that most likely owns the chain."""
    if program := program_of(family, table):
        said = [f"{program} -I {chain} {flag} rt+ -j ACCEPT" for flag in SIDES.values()]
    else:
        said = [
            f"nft insert rule {family} {table} {chain} {side} {LINK_GROUP} accept"
            for side in ("iifgroup", "oifgroup")
        ]
    return "; ".join(said)
