"""A host that has other addresses than those its Node was registered with. Pure.

`spec.addresses` is made when the node registers, and the BGP identifier of it: changed by itself, a
link that is down for a moment would end every session. So who renumbers a host says so
(docs/host.md), and until then this tells. A family that none is found of now is no difference.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from api.resources.meta import Condition
from api.resources.node import Node
from routed.addressing import Choice

RENUMBERED = "Renumbered"  # the condition
REMEDY = "; if that is to stay: "  # between what is and what to do


def condition(node: Node | None, now: Sequence[Choice]) -> Condition:
    """Of the Node; of one that is not known, nothing can be said."""
    registered = node.spec.addresses if node is not None else []
    new = [one for one in now if node is not None and one.address not in registered]
    return Condition(
        type=RENUMBERED,
        status="True" if new else "False",
        reason="AddressesChanged" if new else "AddressesAsRegistered",
        message=_told(node, now, new) if node is not None and new else "",
    )


def _told(node: Node, now: Sequence[Choice], new: Sequence[Choice]) -> str:
    known = ", ".join(map(str, node.spec.addresses)) or "no address"
    found = ", ".join(f"{one.address} ({one.interface})" for one in new)
    change = json.dumps({"spec": {"addresses": [str(one.address) for one in now]}})
    return (
        f"registered with {known}, has {found} now{REMEDY}"
        f"routectl patch node {node.metadata.name} -p '{change}' (each session begins anew)"
    )
