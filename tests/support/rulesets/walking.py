"""The course of one packet through the base chains of a hook."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from support.rulesets.packets import TCP, Packet
from support.rulesets.values import Break, Unknown, holds, is_ambiguous
from support.rulesets.values import field as fields_of

FAMILIES = {4: ("ip", "inet"), 6: ("ip6", "inet")}
VERDICTS = {"accept", "drop"}
FLOW = {"jump", "goto", "return", "continue"}
REJECTS = {"icmp": 4, "icmpv6": 6}  # nft asks for the family in such a rule, and does not list it
MAX_JUMPS = 16  # NFT_JUMP_STACK_SIZE
PASSING = {"counter", "comment"}
LABEL = {"ct": {"key": "label"}}

Key = tuple[str, str, str]


@dataclass(slots=True)
class Outcome:
    """`verdict`: accept, drop or reject (`answer`: with what, such as "tcp reset"). `logged`: each
    log statement that was come to. `held`: (base chain, comment) of all rules with a comment that
    held to their end, in order; `counted`: of those with a counter, as far as that; `chains`: those
    that were entered. A limit is taken as not reached."""

    verdict: str = "accept"
    answer: str = ""
    logged: list[dict[str, Any]] = field(default_factory=list)
    held: list[tuple[str, str]] = field(default_factory=list)
    counted: list[tuple[str, str]] = field(default_factory=list)
    chains: list[str] = field(default_factory=list)

    @property
    def rules(self) -> list[str]:
        """The comments of all rules that held."""
        return [comment for _, comment in self.held]

    @property
    def word(self) -> str:
        """accept, drop, or reject with what."""
        return f"{self.verdict} {self.answer}".strip()


class Ruleset:
    """`listed`: what ``nft -j list ruleset`` printed, or the value of its "nftables"."""

    def __init__(self, listed: str | Iterable[dict[str, Any]]) -> None:
        entries = json.loads(listed)["nftables"] if isinstance(listed, str) else list(listed)
        self.chains: dict[Key, dict[str, Any]] = {}
        self.rules: dict[Key, list[dict[str, Any]]] = {}
        self.sets: dict[Key, dict[str, Any]] = {}
        for entry in entries:
            ((kind, one),) = entry.items()
            if kind in ("metainfo", "table"):
                if one.get("flags"):
                    raise Unknown(f"table with flags {one['flags']}")
                continue
            key = one["family"], one["table"], one.get("name", "")
            if kind == "chain":
                self.chains[key] = one
            elif kind in ("set", "map"):
                self.sets[key] = one
            elif kind == "rule":
                self.rules.setdefault((*key[:2], one["chain"]), []).append(one)
            elif kind not in ("counter", "limit", "quota"):
                raise Unknown(f"{kind} in the listing")

    def walk(self, packet: Packet, hook: str) -> Outcome:
        """What becomes of the packet at that hook: an accept ends one base chain, a drop or
        reject ends all."""
        outcome = Outcome()
        for key, chain in self._base(packet, hook):
            course = _Course(self, packet, outcome, key)
            outcome.verdict = course.through(key[2]) or chain.get("policy", "accept")
            if outcome.verdict != "accept":
                return outcome
        return outcome

    def _base(self, packet: Packet, hook: str) -> Iterator[tuple[Key, dict[str, Any]]]:
        found = [
            (chain["prio"], key, chain)
            for key, chain in self.chains.items()
            if chain.get("hook") == hook and key[0] in FAMILIES[packet.version]
        ]
        priorities = [priority for priority, _, _ in found]
        if len(set(priorities)) != len(priorities):
            raise Unknown(f"two base chains of one priority at {hook}: {priorities}")
        for _, key, chain in sorted(found, key=lambda one: one[0]):
            yield key, chain


class _Course:
    """Through one base chain, and what it sends the packet to."""

    def __init__(self, ruleset: Ruleset, packet: Packet, outcome: Outcome, base: Key) -> None:
        self.ruleset, self.packet, self.outcome = ruleset, packet, outcome
        self.table, self.base = base[:2], base[2]

    def through(self, name: str, depth: int = 0) -> str:
        """accept, drop, reject; empty: came to the end of the chain, or was sent back."""
        if depth > MAX_JUMPS:
            raise Unknown(f"deeper than {MAX_JUMPS} jumps at {name}")
        seen = 0
        while name:
            seen += 1
            if seen > len(self.ruleset.chains):
                raise Unknown(f"goto in a circle at {name}")
            if (*self.table, name) not in self.ruleset.chains:
                raise Unknown(f"no chain {name}")
            self.outcome.chains.append(name)
            name, verdict = self._chain(name, depth)
            if verdict:
                return verdict
        return ""

    def _chain(self, name: str, depth: int) -> tuple[str, str]:
        """(the chain to go to instead, the verdict)."""
        for rule in self.ruleset.rules.get((*self.table, name), []):
            word, target = self._rule(rule)
            if word == "goto":
                return target, ""
            if word == "jump":
                verdict = self.through(target, depth + 1)
                if verdict:
                    return "", verdict
            elif word == "return":
                return "", ""
            elif word:
                return "", word
        return "", ""

    def _rule(self, rule: dict[str, Any]) -> tuple[str, str]:
        """(the verdict, its chain); empty: none, or the rule did not hold."""
        try:
            for part in rule["expr"]:
                ((kind, value),) = part.items() if isinstance(part, dict) else ((part, None),)
                if kind == "counter":
                    self.outcome.counted.append((self.base, rule.get("comment", "")))
                word, target = self._statement(kind, value)
                if word:
                    self._held(rule)
                    return word, target
        except Break:
            return "", ""
        self._held(rule)
        return "", ""

    def _held(self, rule: dict[str, Any]) -> None:
        if "comment" in rule:
            self.outcome.held.append((self.base, rule["comment"]))

    def _statement(self, kind: str, value: Any) -> tuple[str, str]:
        if kind == "match":
            if not self._matches(value):
                raise Break
        elif kind in VERDICTS or kind in FLOW:
            return _verdict(kind, value)
        elif kind == "vmap":
            return self._mapped(value)
        elif kind == "reject":
            return self._reject(value or {})
        elif kind == "log":
            self.outcome.logged.append(value or {})
        elif kind == "limit":
            if not isinstance(value, dict):
                raise Unknown(f"limit {value}")
            if value.get("inv"):
                raise Break
        elif kind == "mangle" and value.get("key") == LABEL:
            pass  # which nothing asks for in this table
        elif kind not in PASSING:
            raise Unknown(f"statement {kind}: {value}")
        return "", ""

    def _reject(self, value: dict[str, Any]) -> tuple[str, str]:
        kind, said = value.get("type", "icmpx"), value.get("expr", "port-unreachable")
        if kind == "tcp reset":
            if self.packet.protocol != TCP:
                raise Unknown("a reset for what is not TCP")
            self.outcome.answer = kind
            return "reject", ""
        if kind not in REJECTS and kind != "icmpx":
            raise Unknown(f"reject with {kind}")
        if REJECTS.get(kind, self.packet.version) != self.packet.version:
            raise Break
        self.outcome.answer = str(said)
        return "reject", ""

    def _matches(self, match: dict[str, Any]) -> bool:
        left, right, op = match["left"], match["right"], match["op"]
        if left == {"ct": {"key": "status"}}:
            if op != "in" or not isinstance(right, str):
                raise Unknown(f"match {match}")
            return right in self.packet.status
        fields = fields_of(left)
        values = [one.of(self.packet) for one in fields]
        if op == "in":  # any bit of these: a packet has one state
            if left != {"ct": {"key": "state"}}:
                raise Unknown(f"match {match}")
            words = right if isinstance(right, list) else [right]
            return any(holds(word, fields, values) for word in words)
        if op not in ("==", "!="):
            raise Unknown(f"operator {op}")
        found = any(holds(one, fields, values) for one in self._elements(right))
        if found and op == "==" and is_ambiguous(fields, right, self.packet):
            raise Unknown(f"ICMP of the other family: {match}")
        return found is (op == "==")

    def _elements(self, right: Any) -> list[Any]:
        match right:
            case {"set": [*elements]}:
                return elements
            case {"set": one}:
                return [one]
            case str() if right.startswith("@"):
                found = self._set(right)
                if found.get("map"):
                    raise Unknown(f"{right} is a map")
                return list(found.get("elem", []))
        return [right]

    def _set(self, name: str) -> dict[str, Any]:
        found = self.ruleset.sets.get((*self.table, name[1:]))
        if found is None:
            raise Unknown(f"no set {name}")
        return found

    def _mapped(self, value: dict[str, Any]) -> tuple[str, str]:
        fields = fields_of(value["key"])
        values = [one.of(self.packet) for one in fields]
        data = value["data"]
        if isinstance(data, str):
            found = self._set(data)
            if found.get("map") != "verdict":
                raise Unknown(f"{data} is no map of verdicts")
            pairs = found.get("elem", [])
        else:
            pairs = data["set"]
        for key, verdict in pairs:
            if key == "*":
                raise Unknown("an element for all the rest")
            if holds(key, fields, values):
                ((kind, of),) = verdict.items()
                return _verdict(kind, of)
        raise Break


def _verdict(kind: str, value: Any) -> tuple[str, str]:
    if kind in VERDICTS or kind == "return":
        return kind, ""
    if kind in ("jump", "goto"):
        return kind, str(value["target"])
    if kind == "continue":
        return "", ""
    raise Unknown(f"verdict {kind}")
