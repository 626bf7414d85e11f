"""Which pools' addresses pass the host's own hooks."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from api.resources import IPPool, ObjectMeta
from api.resources.ippool import IPPoolSpec
from api.resources.workload import Mode, Origin
from policies.slaves import Slaves
from routed.agent.attachment import Attachment
from routed.agent.intent import Intent
from routed.agent.plan import Facts
from routed.agent.slaves import slaves

FOUR, SIX, OTHER = (ip_network(one) for one in ("10.65.0.0/16", "fd00:65::/112", "10.66.0.0/16"))


def record(name: str, mode: Mode, *addresses: str) -> Attachment:
    return Attachment(
        id=f"{name}.h1", name=name, node="h1", origin=Origin.NODE, netns="/run/netns/x",
        if_name="eth0", mode=mode, addresses=[ip_address(one) for one in addresses],
    )  # fmt: skip


def test_of_each_mode_the_pools_in_use() -> None:
    pools = {
        f"p{number}": IPPool(metadata=ObjectMeta(name=f"p{number}"), spec=IPPoolSpec(cidr=cidr))
        for number, cidr in enumerate((FOUR, SIX, OTHER))
    }
    intent = Intent(node_name="h1", pools=pools)
    held = [
        record("a", Mode.VETH, "10.66.0.1"),
        record("b", Mode.IPVLAN_L3, "10.65.0.1"),
        record("c", Mode.IPVLAN_L3S, "fd00:65::1", "192.0.2.1"),
    ]
    records = {one.id: one for one in held}
    assert slaves(Facts(intent, records)) == Slaves(arriving=(SIX,), leaving=(FOUR, SIX))
    assert slaves(Facts(intent, {"a.h1": held[0]})) == Slaves()
    assert slaves(Facts(None, records)) == Slaves()
