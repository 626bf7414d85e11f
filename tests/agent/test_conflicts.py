"""What others announce of our addresses: which of it is a conflict, and that nothing else is."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from support.agents import owned

from api.resources import BGPPeer, IPPool, Node
from api.resources.net import IPNetwork, parse_cidr
from api.resources.node import NodeSpec
from bgp.seam import Path
from routed.agent.conflicts import Conflicts
from routed.agent.intent import Intent

OURS, TOR, OTHER, THIRD = 4_200_000_001, 65_001, 4_200_000_002, 4_200_000_003
HOP = ip_address("172.31.1.1")
Paths = dict[IPNetwork, dict[str, Path]]


def pool(name: str, cidr: str, **spec: object) -> IPPool:
    document = {"metadata": {"name": name}, "kind": "IPPool", "spec": {"cidr": cidr, **spec}}
    return IPPool.model_validate(document)


BLOCK = owned(parse_cidr("10.65.0.0/26"))
INTENT = Intent(
    node_name="h1",
    node=Node.model_validate(
        {"metadata": {"name": "h1"}, "kind": "Node", "spec": {"asNumber": OURS}}
    ),
    pools={
        "main": pool("main", "10.65.0.0/16"),
        "any": pool("any", "10.66.0.0/16", allocation="Anycast"),
    },
    blocks={BLOCK.metadata.name: BLOCK},
)


def paths(*shown: tuple[str, str, tuple[int, ...]], stale: bool = False) -> Paths:
    """(prefix, peer, AS path) each."""
    found: Paths = {}
    for text, peer, as_path in shown:
        prefix = parse_cidr(text)
        path = Path(peer, prefix, (HOP,), as_path, stale=stale)
        found.setdefault(prefix, {})[peer] = path
    return found


def judged(intent: Intent, shown: Paths) -> list[str]:
    return list(Conflicts().update(intent, shown, None).values())


def test_an_address_of_a_block_of_ours() -> None:
    one = ("10.65.0.5/32", "tor1", (TOR, OTHER))
    of = "10.65.0.5/32, of block 10.65.0.0/26 of this node"
    assert judged(INTENT, paths(one)) == [f"{of}, is announced by AS {OTHER} (seen at tor1)"]
    both = (one, ("10.65.0.5/32", "tor2", (TOR, OTHER)))
    assert judged(INTENT, paths(*both))[0].endswith(f"by AS {OTHER} (seen at tor1, tor2)")
    for prefix in ("10.65.0.0/26", "10.65.0.32/28"):
        assert judged(INTENT, paths((prefix, "tor1", (TOR, OTHER)))), prefix


@pytest.mark.parametrize(
    "shown",
    [
        [("10.65.1.5/32", "tor1", (TOR, OTHER))],  # another's block
        [("10.65.1.5/32", "tor1", (TOR, OTHER)), ("10.65.1.5/32", "tor2", (TOR, OTHER))],
        [("10.65.0.0/16", "tor1", (TOR,)), ("10.65.0.0/16", "tor2", (OTHER,))],  # a summary
        [("0.0.0.0/0", "tor1", (TOR,))],
        [("10.65.0.5/32", "tor1", (TOR, OURS))],  # our own, by a session with another local AS
        [("10.65.0.5/32", "tor1", ())],  # within one AS
        [("10.66.0.5/32", "tor1", (OTHER,)), ("10.66.0.5/32", "tor2", (THIRD,))],  # anycast
        [("192.0.2.5/32", "tor1", (OTHER,)), ("192.0.2.5/32", "tor2", (THIRD,))],  # no pool's
    ],
)
def test_what_is_no_conflict(shown: list[tuple[str, str, tuple[int, ...]]]) -> None:
    assert judged(INTENT, paths(*shown)) == []


def test_an_address_of_anybody_with_two_announcers() -> None:
    shown = [("10.65.1.5/32", "tor1", (TOR, OTHER)), ("10.65.1.5/32", "tor2", (TOR, THIRD))]
    assert judged(INTENT, paths(*shown)) == [
        f"10.65.1.5/32 is announced by AS {OTHER} (seen at tor1) and AS {THIRD} (seen at tor2)"
    ]


def test_what_a_switch_knew_before_it_restarted_proves_nothing() -> None:
    assert judged(INTENT, paths(("10.65.0.5/32", "tor1", (TOR, OTHER)), stale=True)) == []


def test_every_as_that_a_node_announces_from_is_its_own() -> None:
    document = {"peerIP": "172.31.1.1", "asNumber": TOR, "localASNumber": THIRD}
    peer = BGPPeer.model_validate(
        {"metadata": {"name": "tor1"}, "kind": "BGPPeer", "spec": document}
    )
    shown = paths(("10.65.0.5/32", "tor2", (TOR, THIRD)))
    assert judged(INTENT, shown)
    assert not judged(replace(INTENT, peers={"tor1": peer}), shown)


def test_only_what_changed_is_judged_again() -> None:
    class Asked(dict[IPNetwork, dict[str, Path]]):
        asked = 0

        def get(self, key: IPNetwork, default: object = None) -> object:  # type: ignore[override]
            self.asked += 1
            return super().get(key, default)

    many = [(f"10.65.{n >> 8}.{n & 255}/32", "tor1", (TOR, OTHER)) for n in range(256, 2256)]
    held, conflicts = Asked(paths(*many)), Conflicts()
    assert conflicts.update(INTENT, held, None) == {}
    held.asked = 0
    rogue = parse_cidr("10.65.0.5/32")
    held[rogue] = paths((str(rogue), "tor1", (TOR, OTHER)))[rogue]
    assert set(conflicts.update(INTENT, held, {rogue})) == {rogue}
    del held[rogue]
    assert conflicts.update(INTENT, held, {rogue}) == {}
    assert held.asked == 2
    more = owned(parse_cidr("10.65.1.0/26"))
    blocks = {**INTENT.blocks, more.metadata.name: more}
    assert len(conflicts.update(replace(INTENT, blocks=blocks), held, set())) == 64
    ours = (
        INTENT.node.model_copy(update={"spec": NodeSpec(as_number=OTHER)}) if INTENT.node else None
    )
    known = replace(INTENT, blocks=blocks, node=ours)
    assert conflicts.update(known, held, set()) == {}, "it is we who are that AS"
    assert conflicts.update(None, held, None) == {}, "who knows nothing judges nothing"
