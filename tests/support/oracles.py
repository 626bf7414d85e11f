"""What becomes of a packet: asked of the reference evaluator, and of a ruleset.

Both answer for one host: what an end elsewhere says is not asked. Beside the verdict they say what
is logged, and what would deny the packet if all that is staged were in effect.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from policies.compile.names import short
from policies.reference import By, Decision, Judgement, Passed, Verdict, judge
from policies.reference_rules import incomplete
from support.catalogue import Case
from support.rulesets import Outcome, Ruleset
from support.scenes import HERE, PASSING, UPLINK, Scene, Sent

WORDS = {"accept": "allow", "drop": "deny", "reject": "reject"}
# what is answered with: RST, or "administratively prohibited" of either family (docs/policy.md)
RESET, PROHIBITED = "tcp reset", "admin-prohibited"
LOG_GROUP = 82  # of nflog
JUDGING = (
    "policy-egress", "policy-ingress", "policy-tohost", "policy-host-in", "policy-host-out",
    "policy-forward-in", "policy-forward-out", "policy-slaves-egress", "policy-slaves-ingress",
    "policy-slaves-sent", "policy-slaves-forward-in", "policy-slaves-forward-out",
)  # fmt: skip
TRIAL = "trial-"  # what base chains begin with that only count what is staged


class Evaluated:
    """By the reference evaluator."""

    def __init__(self, scene: Scene, sent: Sent) -> None:
        self.scene, self.sent = scene, sent
        self.sender, self.receiver = scene.sender(sent), scene.at(sent.destination)
        self.passing = sent.state in PASSING  # the evaluator is asked about first packets only
        ends = {one.metadata.name for one in (self.sender, self.receiver) if one is not None}
        self.unready = not scene.unready.isdisjoint(ends)  # it does not know of links

    @cached_property
    def judged(self) -> Judgement:
        """Of the ends elsewhere too."""
        sender, receiver = (
            "" if one is None else one.metadata.name for one in (self.sender, self.receiver)
        )
        way = {"through": HERE, "arrives": UPLINK, "leaves": UPLINK}
        asked = replace(self.sent.asked, sender=sender, receiver=receiver, **way)
        return judge(self.scene.world, asked)

    @property
    def decisions(self) -> list[tuple[str, Decision]]:
        """(direction, what it says) of each end that is here, in order, up to one that does not
        allow it; the allow-list of the host is an end too."""
        if self.passing or self.unready or self.sent.by:
            return []
        asked = [("egress", self.judged.egress), ("host", self.judged.own_host)]
        asked = asked if self.sender is not None else []
        asked += [(one.direction.lower(), one.decision) for one in self.passed]
        asked += [("ingress", self.judged.ingress)] if self.receiver is not None else []
        found = []
        for direction, one in asked:
            if one is not None:
                found.append((direction, one))
                if one.verdict is not Verdict.ALLOW:
                    break
        return found

    @property
    def passed(self) -> list[Passed]:
        """What the host endpoints of this host say."""
        return [one for one in self.judged.hosts if one.node == HERE]

    @property
    def verdict(self) -> str:
        """allow, deny or reject."""
        if self.unready or self.sent.by:
            return "deny"
        return self.decisions[-1][1].verdict.lower() if self.decisions else "allow"

    @property
    def logged(self) -> list[str]:
        """The prefixes of all that is logged, in order: rules with the action Log, the denial."""
        tiers = {one.metadata.name: one.spec.tier for one in self.scene.policies}
        found = []
        for direction, one in self.decisions:
            for name, rule in one.logged:
                found.append(f"log {direction} {short(tiers[name])}/{short(name)} {rule} ")
            if one.verdict is not Verdict.ALLOW and direction != "host":
                rule = str(one.rule) if one.by is By.RULE else ""
                parts = ("deny", direction, _whose(one), rule)
                found.append(" ".join(part for part in parts if part) + " ")
        return found

    @property
    def counted(self) -> list[str]:
        """The labels of what decided at each end that is here, a rule or a tier's default, and of
        the node's default where that denies; else ""."""
        found = []
        for direction, one in self.decisions:
            if direction != "host":
                denied = one.by is By.NODE and one.verdict is Verdict.DENY
                last = one.rule if one.by is By.RULE else "default"
                label = f"{_whose(one)} {direction} {last}".strip()
                found.append(label if denied or one.by in (By.RULE, By.TIER) else "")
        return found

    @property
    def staged(self) -> list[str]:
        """The labels of what would deny it: at the sender, and, if it gets there, the receiver."""
        trials = {
            id(self.judged.egress): self.judged.staged_egress,
            id(self.judged.ingress): self.judged.staged_ingress,
            **{id(one.decision): one.staged for one in self.passed},
        }
        found = []
        for direction, decision in self.decisions:
            one = trials.get(id(decision))
            if one is not None:
                last = one.rule if one.by is By.RULE else "default"
                found.append(f"{_whose(one)} {direction} {last}")
        return found


def _whose(one: Decision) -> str:
    return "/".join(short(part) for part in (one.tier, one.policy) if part)


class Interpreted:
    """By what a ruleset does with it. AssertionError, of an answer that is not the one that it
    should be."""

    def __init__(self, scene: Scene, ruleset: Ruleset, sent: Sent) -> None:
        self.scene = scene
        self.outcomes: list[Outcome] = []  # at each hook, up to the one that does not let it pass
        for hook, packet in scene.seen(sent):
            self.outcomes.append(ruleset.walk(packet, hook))
            if self.outcomes[-1].verdict != "accept":
                break
        last = self.outcomes[-1] if self.outcomes else Outcome()  # of what no hook sees
        if last.verdict == "reject":
            wanted = RESET if sent.protocol == 6 else PROHIBITED
            assert last.answer == wanted, f"{sent}: answered with {last.answer}"
        self.verdict = WORDS[last.verdict]

    @property
    def logged(self) -> list[str]:
        said = [one for outcome in self.outcomes for one in outcome.logged]
        assert {one["group"] for one in said} <= {LOG_GROUP}, said
        return [str(one["prefix"]) for one in said]

    @property
    def counted(self) -> list[str]:
        """The label of the last counter of each base chain that is of policies."""
        ends: dict[str, str] = {}
        for outcome in self.outcomes:
            for base in outcome.chains:
                if base in JUDGING:
                    ends[base] = ""
            for base, comment in outcome.counted:
                if base in JUDGING:
                    ends[base] = comment.rpartition(" #")[0]
        return list(ends.values())

    @property
    def staged(self) -> list[str]:
        """The labels with which trials ended, of those that deny and are counted."""
        ends: dict[str, tuple[str, bool]] = {}
        for outcome in self.outcomes:
            for one in outcome.held:
                if one[0].startswith(TRIAL):
                    ends[one[0]] = one[1].rpartition(" #")[0], one in outcome.counted
        return [label for label, counted in ends.values() if counted and self._denies(label)]

    def _denies(self, label: str) -> bool:
        """Whether the rule or default that it is of denies, be it for want of members."""
        whose, _, last = label.partition(" ")
        direction, _, index = last.partition(" ")
        if not index.isdigit():
            return index == "default"
        name = whose.partition("/")[2]
        (policy,) = (one for one in self.scene.policies if short(one.metadata.name) == name)
        rules = policy.spec.ingress if direction == "ingress" else policy.spec.egress
        rule = rules[int(index)]
        return rule.action == "Deny" or (
            rule.action == "Pass" and incomplete(self.scene.world, rule)
        )


def compared(case: Case, ruleset: Ruleset) -> list[str]:
    """Where a ruleset does not do what a case of the catalogue says; of ICMP in the other family
    listings do not tell all, so that is asked of real packets (tests/policies/test_real_verdicts).
    What is logged and staged also where the case does not say it: as the evaluator has it."""
    found = []
    for text, sent, verdict in case.packets:
        if sent.is_odd:
            continue
        said, one = Evaluated(case.scene, sent), Interpreted(case.scene, ruleset, sent)
        wanted = verdict, case.logs.get(text, said.logged), case.staged.get(text, said.staged)
        got = one.verdict, one.logged, one.staged
        if got != wanted:
            found.append(f"{case.name}: {text}: {got} instead of {wanted}")
        elif uncounted(said, one):
            found.append(f"{case.name}: {text}: counts {one.counted} instead of {said.counted}")
    return found


def uncounted(said: Evaluated, done: Interpreted) -> bool:
    """Whether what decided was not counted. What is not asked of any policy (links of no workload,
    endpoints that nothing selects) comes to base chains all the same, or finds none."""
    return not {label for label in said.counted if label} <= set(done.counted)
