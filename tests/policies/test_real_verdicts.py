"""Real packets: what the catalogue says becomes of them in the kernel, between namespaces.

Links, groups and routes are made by the agent's own driver, and policies are applied as it applies
them. Every case whose packets are the first of a flow is sent, TCP, UDP, SCTP, UDP-Lite, ICMP of
both families and others: it comes to where it should, or an answer that refuses it does, or nothing
does.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from support.catalogue import Case, cases
from support.netns import in_fresh_namespace
from support.oracles import Evaluated
from support.scenes import HERE
from support.tables import compiled
from support.wires import Wires

from policies.nft import Nft
from routed.kernel import conntrack
from routed.kernel.netlink import Netlink, message

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
Make = Callable[[str], str]


def test_real_packets_meet_the_verdicts_of_the_catalogue(
    namespaces: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    chosen = cases()
    local = {
        one.metadata.name: [str(address) for address in one.status.addresses]
        for case in chosen
        for one in case.scene.workloads
        if one.spec.node == HERE
    }
    spaces = {name: namespaces(name) for name in local}
    outside = namespaces("outside")
    read, write = os.pipe()

    async def body() -> None:
        wires, table = await Wires.made(spaces, local, outside), Nft()
        counts: Counter[str] = Counter()
        wrong: list[str] = []
        for case in chosen:
            wrong += _wrong(case, wires, table, counts)
        os.write(write, f"{sum(counts.values())} packets: {dict(counts)}".encode())
        wires.close()
        table.close()
        assert not wrong, "\n".join(wrong)
        assert counts["allow"] > 400, counts
        assert counts["deny"] > 400, counts
        assert counts["reject"] > 20, counts

    in_fresh_namespace(body)
    os.close(write)
    with os.fdopen(read, "rb") as pipe, capfd.disabled():
        print(f"\n{pipe.read().decode()}", end=" ")


def _wrong(case: Case, wires: Wires, table: Nft, counts: Counter[str]) -> list[str]:
    scene = replace(case.scene, links=wires.links)
    table.sync(None, compiled(scene))
    forget_flows()
    found = []
    for text, sent, verdict in case.packets:
        if sent.state != "new":
            continue
        done = wires.verdict(scene, sent)
        counts[verdict] += 1
        if not done == verdict == Evaluated(scene, sent).verdict:
            found.append(f"{case.name}: {text}: {done} instead of {verdict}")
    return found


def forget_flows() -> None:
    """Every packet is the first of its flow again: a deletion that names none is of all."""
    with Netlink(protocol=conntrack.NETLINK_NETFILTER) as netlink:
        failed = netlink.transact([message(conntrack.CT_DELETE, 0, bytes(4))])
    assert not failed, failed
