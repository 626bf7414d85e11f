"""Intent: what the service has told this node, and its last good copy on disk.

The copy (``<stateDir>/intent.json``, 0600, fsynced) is what an agent works from that starts while
the service is out of reach, also after a reboot. It is written when intent changes, never emptied
by an outage: a copy is replaced only by a whole newer one.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from api.resources import BGPConfiguration, BGPPeer, IPBlock, IPPool, Node, Workload
from api.resources.meta import Model
from api.resources.workload import Origin
from routed.agent.records import write_atomic

WATCHED = ("nodes", "ippools", "ipblocks", "workloads", "bgppeers", "bgpconfigurations")


class Intent(Model):
    """Everything the agent needs of the service, by name. `blocks` are this node's own."""

    node_name: str
    node: Node | None = None
    pools: dict[str, IPPool] = Field(default_factory=dict)
    blocks: dict[str, IPBlock] = Field(default_factory=dict)
    workloads: dict[str, Workload] = Field(default_factory=dict)
    peers: dict[str, BGPPeer] = Field(default_factory=dict)
    bgp: BGPConfiguration | None = None

    def declared(self) -> dict[str, Workload]:
        """The API-born workloads of this node: the service is their truth."""
        return {n: w for n, w in self.workloads.items() if w.spec.origin is Origin.API}

    def reported(self) -> dict[str, Workload]:
        """The service's copies of node-born workloads: reports, never a reason to attach."""
        return {n: w for n, w in self.workloads.items() if w.spec.origin is Origin.NODE}

    def labels(self) -> dict[str, str]:
        return self.node.metadata.labels if self.node else {}


def save(path: Path, intent: Intent) -> None:
    """Replace the copy on disk, durably."""
    write_atomic(path, intent.model_dump_json(by_alias=True).encode(), durable=True)


def load(path: Path, node_name: str) -> Intent | None:
    """The last good intent of `node_name`, or None: no copy, another node's, or unreadable.

    An unreadable copy is moved aside to ``intent.json.bad``, so that it can be looked at.
    """
    try:
        intent = Intent.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        path.rename(path.with_suffix(".json.bad"))
        return None
    return intent if intent.node_name == node_name else None
