"""What becomes of a packet: asked of the reference evaluator, and of a ruleset.

Both answer for one host: what an end elsewhere says is not asked.
"""

from __future__ import annotations

from policies.reference import Decision, Verdict, judge
from support.rulesets import Outcome, Ruleset
from support.scenes import PASSING, Scene, Sent

WORDS = {"accept": "allow", "drop": "deny", "reject": "reject"}
# what is answered with: RST, or "administratively prohibited" of either family (docs/policy.md)
RESET, PROHIBITED = "tcp reset", "admin-prohibited"


def by_reference(scene: Scene, sent: Sent) -> str:
    """allow, deny or reject."""
    if sent.state in PASSING:
        return "allow"  # the evaluator is asked about first packets only
    return next(
        (one.verdict.lower() for one in decisions(scene, sent) if one.verdict is not Verdict.ALLOW),
        "allow",
    )


def decisions(scene: Scene, sent: Sent) -> list[Decision]:
    """Of each end that is here, in order."""
    judged = judge(scene.world, sent.asked)
    sender, receiver = scene.at(sent.source), scene.at(sent.destination)
    asked = [judged.egress, judged.own_host] if sender is not None else []
    asked += [judged.ingress] if receiver is not None else []
    return [one for one in asked if one is not None]


def by_ruleset(scene: Scene, ruleset: Ruleset, sent: Sent) -> str:
    """allow, deny or reject. AssertionError, of an answer that is not the one that it should be."""
    last = outcomes(scene, ruleset, sent)[-1]
    if last.verdict == "reject":
        wanted = RESET if sent.protocol == 6 else PROHIBITED
        assert last.answer == wanted, f"{sent}: answered with {last.answer}"
    return WORDS[last.verdict]


def outcomes(scene: Scene, ruleset: Ruleset, sent: Sent) -> list[Outcome]:
    """At each hook, up to the one that does not let it pass."""
    found = []
    for hook, packet in scene.seen(sent):
        found.append(ruleset.walk(packet, hook))
        if found[-1].verdict != "accept":
            break
    return found
