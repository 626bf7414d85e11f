"""What `routed doctor --ipvlan` makes of a host, by what was seen of it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from routed.doctor.findings import Finding, Verdict, exit_code
from routed.doctor.ipvlan import judge
from routed.kernel.slaves import Shown
from routed.kernel.survey import Slave, Survey
from routed.state import SLAVE_GROUP

ETH0 = Shown(2, "eth0", 0, "", "", master=0, lower=0)
L2, L3, L3S = 0, 1, 2


def ipvlan(name: str, mode: int, group: int = 0, alias: str = "") -> Shown:
    return Shown(9, name, group, alias, "ipvlan", master=0, lower=2, mode=mode)


def found(survey: Survey) -> dict[str, Finding]:
    return {one.check: one for one in judge(survey)}


def test_a_free_parent_that_is_the_only_uplink() -> None:
    said = found(Survey(ETH0, (ETH0,), ("eth0",)))
    assert (said["parent"].verdict, said["egress"].verdict) == (Verdict.OK, Verdict.OK)
    for mode, what in (
        ("ipvlan-l3", "none of what comes in"),
        ("ipvlan-l3s", "it and the others on"),
    ):
        assert said[f"policy, {mode}"].verdict is Verdict.WARN
        assert what in str(said[f"policy, {mode}"])
        assert "mode veth" in said[f"policy, {mode}"].remedy
    assert exit_code(said.values()) == 0


def test_a_second_uplink_is_never_used() -> None:
    said = found(Survey(ETH0, (ETH0,), ("eth0", "eth1")))["egress"]
    assert (said.verdict, "never by eth1" in said.found) == (Verdict.WARN, True)
    assert "bond" in said.remedy


@pytest.mark.parametrize(
    ("other", "parent", "says", "remedy"),
    [
        (Shown(5, "br0", 0, "", "bridge", 0, 0), replace(ETH0, master=5),
         "eth0 is a member of the bridge br0", "use br0 as ipvlanParent"),
        (Shown(5, "bond0", 0, "", "bond", 0, 0), replace(ETH0, master=5),
         "eth0 is a member of the bond bond0", "use bond0 as ipvlanParent"),
        (Shown(5, "m0", 0, "", "macvlan", 0, 2), ETH0,
         "eth0 carries m0, a macvlan", "VLAN sub-interface"),
        (ipvlan("c0", L2), ETH0, "eth0 carries c0, an ipvlan of mode l2", "VLAN sub-interface"),
    ],
)  # fmt: skip
def test_a_parent_that_is_taken(other: Shown, parent: Shown, says: str, remedy: str) -> None:
    said = found(Survey(parent, (parent, other), ("eth0",)))
    for mode in ("ipvlan-l3", "ipvlan-l3s"):
        assert says in said[f"parent: {mode}"].found
        assert remedy in said[f"parent: {mode}"].remedy
    assert exit_code(said.values()) == 1


def test_one_mode_may_be_possible_and_the_other_not() -> None:
    said = found(Survey(ETH0, (ETH0, ipvlan("c0", L3)), ("eth0",)))
    assert "parent: ipvlan-l3" not in said
    assert said["parent: ipvlan-l3s"].verdict is Verdict.FAIL


@pytest.mark.parametrize(("mode", "verdict"), [(L3, Verdict.OK), (L3S, Verdict.WARN)])
def test_a_mode_that_somebody_switched(mode: int, verdict: Verdict) -> None:
    own = ipvlan("rtv0", mode, SLAVE_GROUP, "routed:ipvlan-l3 eth0")
    assert found(Survey(ETH0, (ETH0, own), ("eth0",), own))["parent"].verdict is verdict


def test_other_peoples_slaves_and_their_addresses_are_named() -> None:
    other = Slave("theirs", ipvlan("eth0", L3), (ip_address("10.65.0.1"),))
    said = found(Survey(ETH0, (ETH0,), ("eth0",), foreign=(other,)))["other slaves"]
    assert "eth0 in namespace theirs is somebody's slave of eth0, in mode l3" in said.found
    assert "asks for 10.65.0.1 there is refused" in said.found
