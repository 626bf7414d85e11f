"""What a mode means for its workload and its node, beyond link and address: the conditions that say
what ipvlan cannot do here, and what would help. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from api.resources.errors import Cause, Invalid
from api.resources.meta import Condition
from api.resources.workload import IPVLAN, Mode

GATEWAYS = frozenset({Mode.VETH, Mode.TAP})  # modes whose default route leads to a gateway
# modes that policies are enforced for, by the workload's link on its host, or by its addresses
ENFORCED = GATEWAYS | {Mode.IPVLAN_L3S}
WINDOW = 600.0  # seconds for which a mode that had to be restored is told of


def addressed(mode: Mode, asks: bool) -> bool:
    """Whether a workload has addresses; `asks`: it asks for some."""
    return asks if mode is Mode.HOST else mode not in (Mode.NONE, Mode.SHARED)


def unlimited(name: str, mode: Mode, limits: object) -> Invalid | None:
    """Where a limit of bandwidth could not be kept."""
    if limits is None or mode in GATEWAYS:
        return None
    said = f"mode {mode} has no limits of bandwidth: use mode veth"
    return Invalid(f"cannot attach {name}: {said}", causes=[Cause("bandwidth", said)])


def conditions(
    mode: Mode,
    parent: str,
    uplinks: Sequence[str],
    policies: Sequence[str] = (),
    *,
    neighbours: bool = False,
) -> list[Condition]:
    """Of a Workload; `uplinks` are the links that lead off its host now, `policies` those that
    select it and do not hold, or not towards its `neighbours`, if others are on its parent."""
    if mode not in IPVLAN:
        return []
    others = [name for name in uplinks if name != parent]
    egress = Condition(
        type="EgressRedundant",
        status="False" if others else "True",
        reason="OneUplink" if others else "OnlyUplink",
        message=f"all that it sends leaves by {parent}, never by {', '.join(others)}: give the "
        "host a bond over both as ipvlanParent, or use mode veth"
        if others
        else "",
    )
    return [egress, _enforceable(mode, parent, policies, neighbours=neighbours)]


def _enforceable(
    mode: Mode, parent: str, policies: Sequence[str], *, neighbours: bool
) -> Condition:
    lacking = f"; not enforced: {', '.join(policies)}" if policies else ""
    if mode is Mode.IPVLAN_L3:
        reason, said = "BesideTheHost", (
            "its host sees none of what comes in, and nothing of what it and other workloads on "
            f"{parent} say to each other: use mode veth where that has to be filtered{lacking}"
        )  # fmt: skip
    elif neighbours:
        reason, said = "NeighboursUnseen", (
            f"its host sees nothing of what it and the others on {parent} say to each other, and "
            "each of them can use the addresses of the others as a source: use mode veth where "
            f"that has to be filtered{lacking}"
        )  # fmt: skip
    else:
        reason, said = "ByAddress", (
            "its host tells it by its addresses, and cannot tell it from itself where it uses an "
            "address of the host as a source"
        )  # fmt: skip
    return Condition(
        type="PolicyEnforceable",
        status="True" if reason == "ByAddress" else "False",
        reason=reason,
        message=said,
    )


@dataclass(slots=True)
class Switched:
    """The parents that somebody else has switched to another mode, until it was restored."""

    _times: dict[str, list[tuple[float, str]]] = field(default_factory=dict)

    def note(self, restored: Mapping[str, str], now: float) -> None:
        """`restored`: parent to the mode that it had been given."""
        for parent, mode in restored.items():
            held = self._times.setdefault(parent, [])
            held.append((now, mode))
            del held[:-100]

    def condition(self, now: float) -> Condition:
        """Of the Node."""
        said = []
        for parent, times in sorted(self._times.items()):
            recent = [mode for when, mode in times if now - when < WINDOW]
            if recent:
                said.append(
                    f"somebody switched {parent} to mode {recent[-1]} ({len(recent)} times in "
                    f"{WINDOW / 60:.0f} minutes), which all ipvlans on it share: it was restored; "
                    f"give the other program a parent of its own, a VLAN sub-interface of {parent}"
                )
        return Condition(
            type="ParentModeSwitched",
            status="True" if said else "False",
            reason="SwitchedByOthers" if said else "ModeStays",
            message="; ".join(said),
        )
