"""Real packets: what the catalogue says becomes of them in the kernel, between namespaces.

Links, groups and routes are made by the agent's own driver, and policies are applied as it applies
them. Every case whose packets are the first of a flow is sent, TCP, UDP, SCTP, UDP-Lite, ICMP of
both families and others: it comes to where it should, or an answer that refuses it does, or nothing
does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from support import drawn
from support.catalogue import Case, case, cases, packet
from support.drawn import packets
from support.frames import DESTINATION, FRAGMENT, HOP_BY_HOP
from support.oracles import Evaluated
from support.scenes import HERE, Scene
from support.scenes import addresses as ips
from support.tables import compiled
from support.wires import HOST, Wires, forget_flows, play

from api.resources.net import IPAddress
from policies.nft import Nft

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
Make = Callable[[str], str]
SEEDS_MOST = 10  # of random sets


def test_real_packets_meet_the_verdicts_of_the_catalogue(
    namespaces: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    # those of ipvlan need a kernel that has it (tests/guest/test_ipvlan_policies.py)
    chosen = [one for one in cases() if not one.scene.ipvlan]
    local = {
        one.metadata.name: [str(address) for address in one.status.addresses]
        for each in chosen
        for one in each.scene.workloads
        if one.spec.node == HERE
    }

    def body(wires: Wires, table: Nft) -> Counter[str]:
        counts: Counter[str] = Counter()
        wrong: list[str] = []
        for each in chosen:
            wrong += _wrong(each, wires, table, counts)
        assert not wrong, "\n".join(wrong)
        assert counts["allow"] > 400, counts
        assert counts["deny"] > 400, counts
        assert counts["reject"] > 20, counts
        return counts

    told = play(namespaces, local, HOST, body)
    with capsys.disabled():
        print(f"\n{told}", end=" ")


def test_extension_headers_of_ipv6_are_passed_over(namespaces: Make) -> None:
    rules = [
        {"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}},
        {"action": "Allow", "protocol": "ICMPv6", "icmp": {"type": 128}},
        {"action": "Deny", "reject": True, "protocol": "UDP"},
    ]
    wanted = {
        "web6 > db6 TCP 80": "allow",
        "web6 > db6 TCP 81": "deny",
        "web6 > db6 ICMPv6 128/0": "allow",
        "web6 > db6 ICMPv6 129/0": "deny",
        "web6 > db6 47": "deny",
        "web6 > db6 UDP 80": "reject",
    }
    local = {"web": ["fd00:65::1"], "db": ["fd00:65::2"]}

    def body(wires: Wires, table: Nft) -> Counter[str]:
        scene = replace(case("extensions", {"in": rules}).scene, links=wires.links)
        table.sync(None, compiled(scene))
        for extensions in ([], [DESTINATION], [HOP_BY_HOP, DESTINATION], [FRAGMENT]):
            forget_flows()
            found = {
                text: wires.verdict(scene, packet(text, local), extensions=extensions)
                for text in wanted
            }
            assert found == wanted, extensions
        return Counter()

    play(namespaces, local, HOST, body)


def test_real_packets_meet_what_the_evaluator_says_of_random_policies(
    namespaces: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ips(*drawn.FOUR[:4], *drawn.SIX[:4])
    local = {f"w{place}": [drawn.FOUR[place], drawn.SIX[place]] for place in range(4)}

    def body(wires: Wires, table: Nft) -> Counter[str]:
        counts: Counter[str] = Counter()

        for number in range(SEEDS_MOST):  # what is drawn is another with other modules loaded
            _agreed(number, wires, table, here, counts)
            if min(counts["allow"], counts["deny"], counts["reject"]) > 10:
                return counts
        raise AssertionError(f"too little happens: {counts}")

    told = play(namespaces, local, drawn.HOST, body)
    with capsys.disabled():
        print(f"\n{told}", end=" ")


def _agreed(
    number: int, wires: Wires, table: Nft, here: frozenset[IPAddress], counts: Counter[str]
) -> None:
    """Sixty random sets of policies, with forty packets each."""

    @seed(number)
    @settings(
        max_examples=60,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(made=drawn.scenes(), which=drawn.NUMBERS)
    def agree(made: Scene, which: int) -> None:
        scene = replace(made, links=wires.links)
        table.sync(None, compiled(scene))
        for sent in {str(one): one for one in packets(which, 40)}.values():
            unborn = {sent.source, sent.destination} & here - scene.here
            # a RST to oneself from the same port looks like what it answers
            own = sent.source == sent.destination and sent.first == sent.second
            if sent.state == "new" and not unborn and not own:
                forget_flows()  # or it would be the answer to one before
                said, done = Evaluated(scene, sent).verdict, wires.verdict(scene, sent)
                if said == "reject" and sent.is_error:
                    said = "deny"
                assert done == said, f"{sent}: {done} instead of {said}"
                counts[said] += 1

    agree()


def _wrong(each: Case, wires: Wires, table: Nft, counts: Counter[str]) -> list[str]:
    scene = replace(each.scene, links=wires.links)
    table.sync(None, compiled(scene))
    forget_flows()
    found = []
    for text, sent, verdict in each.packets:
        if sent.state != "new":
            continue
        done = wires.verdict(scene, sent)
        counts[verdict] += 1
        if not done == verdict == Evaluated(scene, sent).verdict:
            found.append(f"{each.name}: {text}: {done} instead of {verdict}")
    return found
