"""What is logged of packets, and counted: by nflog, with the policy in the prefix."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
from support.compiled import policy
from support.flows import entered
from support.kernels import endpoint
from support.netns import in_fresh_namespace
from support.nflog import Log

from api.resources.policy import Tier
from policies.compile.chains import LOG_GROUP
from policies.compile.compiler import compiled
from policies.counters import Key
from policies.model import Endpoint, Membership
from policies.nat import Nat
from policies.nft import Nft
from policies.plan import plan
from routed.kernel.linux import LinuxKernel
from routed.state import HostState, host_interface_name

pytestmark = pytest.mark.root
ADDRESSES = {"a.h": "10.65.0.1", "b.h": "10.65.0.2"}
LONG = ".".join(["p" + "x" * 60] * 4)


def rule(action: str, port: int, **more: Any) -> dict[str, Any]:
    return {"action": action, "protocol": "UDP", "destination": {"ports": [port]}, **more}


def test_what_is_logged_and_counted(namespaces: Callable[[str], str]) -> None:
    spaces = {name: namespaces(name[0]) for name in ADDRESSES}
    policies = [
        policy(
            "in",
            order=1,
            selector="is == 'b.h'",
            ingress=[
                rule("Log", 1),
                rule("Allow", 1),
                rule("Deny", 2),
                rule("Deny", 3, reject=True),
            ],
        ),
        policy(LONG, order=2, selector="is == 'b.h'", ingress=[rule("Deny", 4)]),
        policy("trial", order=0, staged=True, selector="is == 'b.h'", ingress=[rule("Deny", 1)]),
        policy("out", tier="first", selector="is == 'a.h'", egress=[rule("Deny", 6)]),
    ]
    tiers = [
        Tier.model_validate(
            {"metadata": {"name": "first"}, "spec": {"order": 1, "defaultAction": "Pass"}}
        )
    ]

    async def body() -> None:
        kernel, table = LinuxKernel(), Nft()
        both = [Endpoint(name, {"is": name}, link=host_interface_name(name)) for name in ADDRESSES]
        table.sync(Nat(), compiled(plan(tiers, policies, both), Membership()))
        ends = {name: endpoint(name, spaces[name], at) for name, at in ADDRESSES.items()}
        await kernel.sync(HostState(endpoints=ends))
        with entered(spaces["a.h"]):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        log = Log(LOG_GROUP)
        for port, said in (
            (1, "log ingress default/in 0 "),
            (2, "deny ingress default/in 2 "),
            (3, "deny ingress default/in 3 "),
            (5, "deny ingress default "),
            (6, "deny egress first/out 0 "),
        ):
            sender.sendto(b"x", (ADDRESSES["b.h"], port))
            assert log.until(1) == [said]
        sender.sendto(b"x", (ADDRESSES["b.h"], 4))
        (said,) = log.until(1)
        assert said.startswith("deny ingress default/pxxx")
        totals = table.counted().totals()
        counted = {key.label: count.packets for key, count in totals.items()}
        wanted = {
            "default/in ingress 0": 1,
            "default/in ingress 1": 1,
            "default/in ingress 2": 1,
            "default/in ingress 3": 1,
            "default/trial ingress 0": 1,
            "default ingress default": 1,
            "first/out egress 0": 1,
        }
        assert {label: counted.get(label) for label in wanted} == wanted
        assert counted["first egress default"] >= 5, "and what it says of itself to its host"
        for _ in range(200):
            sender.sendto(b"x", (ADDRESSES["b.h"], 2))
        table_says = table.counted().totals()[Key("default/in ingress 2")].packets
        assert table_says == 201, "a flood is counted"
        flood = 0
        with pytest.raises(TimeoutError):
            while True:
                flood += len(log.until(1, 0.5))
        assert 0 < flood < 60, "and hardly logged"
        sender.close()
        log.close()

    in_fresh_namespace(body)
