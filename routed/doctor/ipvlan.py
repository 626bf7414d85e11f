"""Whether modes ipvlan-l3 and ipvlan-l3s work on this host, and what they cannot do here."""

from __future__ import annotations

from collections.abc import Iterator

from api.resources.errors import IntentError
from api.resources.workload import IPVLAN, Mode
from routed.agent.modes import conditions
from routed.doctor.findings import Finding, fail, ok, warn
from routed.doctor.host import Untried, tried
from routed.kernel.slaves import IPVLAN_MODES, MODE_NAMES, why_not
from routed.kernel.survey import Survey, survey
from routed.settings import AgentSettings


def checks(settings: AgentSettings) -> Iterator[Finding]:
    """Every finding, as it comes."""
    try:
        lacking = tried().get("ipvlan", "not tried")
    except Untried as error:
        yield fail("kernel", str(error), error.remedy)
        return
    if lacking:
        yield fail("kernel: ipvlan", lacking, "mode veth, or a kernel with CONFIG_IPVLAN")
        return
    yield ok("kernel: ipvlan", "there")
    try:
        found = survey(settings.ipvlan_parent)
    except IntentError as error:
        yield fail("parent", str(error), "set ipvlanParent to a link that leads to the switches")
        return
    yield from judge(found)


def judge(found: Survey) -> Iterator[Finding]:
    """What a survey means. Pure."""
    name = found.parent.name
    if found.own is not None:
        has = MODE_NAMES.get(found.own.mode, str(found.own.mode))
        wanted = found.own.alias.removeprefix("routed:").split(" ")[0]
        if (wanted, found.own.flags) == (f"ipvlan-{has}", 0):
            yield ok("parent", f"{name}, in mode {wanted}, as workloads there need it")
        else:
            yield warn("parent", f"{name} is in mode {has} and has workloads of mode {wanted}: "
                       "somebody switched it", "start the agent, which restores it, and give the "
                       "other program a parent of its own")  # fmt: skip
    else:
        yield from _free(found)
    for slave in found.foreign:
        has = MODE_NAMES.get(slave.link.mode, str(slave.link.mode))
        where = f"namespace {slave.where}" if slave.where else "this host"
        said = f"{slave.link.name} in {where} is somebody's slave of {name}, in mode {has}"
        if slave.addresses:
            listed = ", ".join(map(str, slave.addresses))
            said += f"; a workload that asks for {listed} there is refused"
        remedy = f"give it a parent of its own, such as a VLAN sub-interface of {name}"
        yield warn(
            "other slaves", f"{said}; when it is made anew its mode becomes that of all", remedy
        )
    for mode in sorted(IPVLAN):
        egress, policy = conditions(mode, name, found.uplinks, neighbours=True)
        if mode is Mode.IPVLAN_L3:  # it is the same in both
            said, _, remedy = egress.message.partition(": ")
            alone = ok("egress", f"{name} is the only link that leads off")
            yield warn("egress", said, remedy) if egress.status == "False" else alone
        said, _, remedy = policy.message.partition(": ")
        yield warn(f"policy, {mode}", said, remedy)


def _free(found: Survey) -> Iterator[Finding]:
    """Of a parent that has no workload of ours."""
    refused = {mode: why_not(found.parent, mode, 0, found.links) for mode in sorted(IPVLAN_MODES)}
    if not any(said for said, _ in refused.values()):
        yield ok("parent", f"{found.parent.name} is free for either mode")
    for mode, (said, remedy) in refused.items():
        if said:
            yield fail(f"parent: {mode}", said, f"use {remedy}")
