"""The MTU of a workload's link, from what decides it."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from support.agents import agent_on

from api.resources import IPBlock, IPPool, Node, ObjectMeta
from api.resources.errors import Invalid
from api.resources.ippool import Encapsulation, IPBlockSpec, IPPoolSpec
from api.resources.node import NodeSpec
from routed.agent.intent import Intent
from routed.agent.request import AttachRequest
from routed.agent.sizes import derived, overhead, too_small
from routed.kernel.fake import FakeKernel


def intent(encapsulation: Encapsulation, *addresses: str) -> Intent:
    pools = {
        name: IPPool(
            metadata=ObjectMeta(name=name),
            spec=IPPoolSpec(cidr=ip_network(cidr), encapsulation=how),
        )
        for name, cidr, how in (
            ("plain", "10.65.0.0/16", Encapsulation.NEVER),
            ("other", "10.66.0.0/16", encapsulation),
        )
    }
    spec = NodeSpec(addresses=[ip_address(one) for one in addresses])
    node = Node(metadata=ObjectMeta(name="h1"), spec=spec)
    return Intent(node_name="h1", node=node, pools=pools)


@pytest.mark.parametrize(
    ("addresses", "how", "nodes", "expected"),
    [
        (["10.65.0.1"], Encapsulation.ALWAYS, ["192.0.2.1"], 9000),
        (["10.66.0.1"], Encapsulation.NEVER, ["192.0.2.1"], 9000),
        (["10.66.0.1"], Encapsulation.ALWAYS, ["192.0.2.1"], 8950),
        (["10.66.0.1"], Encapsulation.CROSS_SUBNET, ["192.0.2.1", "2001:db8::1"], 8950),
        (["10.66.0.1"], Encapsulation.ALWAYS, ["2001:db8::1"], 8930),
        (["10.65.0.1", "10.66.0.1"], Encapsulation.ALWAYS, [], 8950),
        (["192.0.2.9"], Encapsulation.ALWAYS, [], 9000),
        ([], Encapsulation.ALWAYS, [], 9000),
    ],
)
def test_what_encapsulation_takes(
    addresses: list[str], how: Encapsulation, nodes: list[str], expected: int
) -> None:
    held = [ip_address(one) for one in addresses]
    assert derived(9000, held, intent(how, *nodes)) == expected


def test_the_outer_headers_are_those_of_the_nodes_family() -> None:
    assert overhead([]) == 50
    assert overhead([ip_address("2001:db8::1")]) == 70
    assert overhead([ip_address("2001:db8::1"), ip_address("192.0.2.1")]) == 50


@pytest.mark.parametrize(
    ("mtu", "address", "fits"),
    [(1280, "fd00::1", True), (1279, "fd00::1", False), (1279, "10.65.0.1", True)],
)
def test_ipv6_needs_its_least(mtu: int, address: str, fits: bool) -> None:
    refused = too_small("web", mtu, [ip_address(address)])
    assert (refused is None) is fits
    if refused is not None:
        assert str(refused).startswith("cannot attach web: IPv6 needs 1280 bytes, ")
        assert "leave 1279" in str(refused)


class SmallKernel(FakeKernel):
    """Its uplinks are too small for IPv6."""

    def uplink_mtu(self) -> int:
        return 1200


def test_an_attach_that_the_links_are_too_small_for_leaves_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        kernel = SmallKernel()
        for name in ("web", "four"):
            kernel.add_namespace(name)
        agent = agent_on(kernel, tmp_path)
        known = agent.known_intent()
        cidr = ip_network("fd00:65::/122")
        spec = IPBlockSpec(node="h1", pool="six", cidr=cidr)
        block = IPBlock(metadata=ObjectMeta(name="six-1"), spec=spec)
        pool = IPPool(metadata=ObjectMeta(name="six"), spec=IPPoolSpec(cidr=cidr))
        agent.intent_changed(
            Intent(
                node_name="h1",
                pools={**known.pools, "six": pool},
                blocks={**known.blocks, "six-1": block},
            )
        )
        serving = asyncio.create_task(agent.writer.serve())
        asked = {"name": "web", "netns": "web", "ipFamilies": ["IPv4", "IPv6"]}
        with pytest.raises(Invalid, match="IPv6 needs 1280 bytes"):
            await agent.attach(AttachRequest.model_validate(asked))
        assert "link rt" not in str(kernel)
        assert not agent.records.all()
        assert {name: used for name, (used, _) in agent.book.counts().items() if used} == {}
        four = {"name": "four", "netns": "four", "ipFamilies": ["IPv4"]}
        record, _ = await agent.attach(AttachRequest.model_validate(four))
        assert record.mtu == 1200
        assert record.status(ready=True).mtu == 1200
        serving.cancel()

    asyncio.run(body())
