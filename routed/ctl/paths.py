"""The way that a flow takes, as far as it is ours: from the sender's link to its host's route, from
what the receiver's host announces to its link there.

What is declared says who announces what, and with whom a node should have sessions. What a host
really does only its agent knows, so that is asked (`api.service.questions`) and stands beside it;
where it does not answer, the document says why, and what follows from what is declared. What the
switches between the hosts do is theirs. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from api.resources import BGPConfiguration, BGPPeer, IPBlock, IPPool, Node, Workload
from api.resources.ippool import Announce
from api.resources.meta import Resource
from api.resources.net import IPAddress, PrefixIndex, host_prefix
from api.resources.workload import Mode, Phase
from routed.agent.intent import Intent
from routed.agent.plan import sessions
from routed.ctl.traffic import End

KINDS: tuple[type[Resource], ...] = (IPPool, IPBlock, BGPPeer, BGPConfiguration)
SILENT = "NodeSilent"  # the reason of a Node's conditions (api/service/heartbeats.py)
Document = dict[str, Any]


class Question(NamedTuple):
    """To the agent of `node`: its way to an address, of what comes from `source`."""

    node: str
    to: IPAddress
    source: IPAddress | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where an end is; `node` "": at none that is known."""

    end: End
    node: str = ""
    workload: Workload | None = None

    @property
    def wire(self) -> Document:
        status = self.workload.status if self.workload is not None else None
        return {
            "address": str(self.end.address),
            "node": self.node,
            "workload": self.end.workload,
            "interface": status.host_interface if status is not None else "",
            "gateway": status.gateway if status is not None else "",
        }


class Fabric:
    """What is declared of nodes, blocks and peerings."""

    def __init__(self, objects: Iterable[Resource]) -> None:
        held = list(objects)
        self.nodes = {one.metadata.name: one for one in held if isinstance(one, Node)}
        self.workloads = {one.metadata.name: one for one in held if isinstance(one, Workload)}
        self.peers = {one.metadata.name: one for one in held if isinstance(one, BGPPeer)}
        self.pools = PrefixIndex((one.spec.cidr, one) for one in held if isinstance(one, IPPool))
        self.blocks = PrefixIndex(
            (one.spec.cidr, one)
            for one in held
            if isinstance(one, IPBlock) and one.spec.cidr is not None
        )
        self._hosts = {
            address: name
            for name, node in self.nodes.items()
            for address in [*node.spec.addresses, *(one.address for one in node.status.addresses)]
        }

    def place(self, end: End) -> Place:
        workload = self.workloads.get(end.workload)
        node = workload.spec.node if workload is not None else self._hosts.get(end.address, "")
        return Place(end, node, workload)

    def unasked(self, node: str) -> str:
        """Why its agent is not asked at all; "": it is."""
        held = self.nodes.get(node)
        if held is None:
            return "there is no such Node"
        ready = next((one for one in held.status.conditions if one.type == "Ready"), None)
        if ready is None:
            return "its agent has never reported"
        return "its agent has not been heard for some time" if ready.reason == SILENT else ""

    def sessions(self, node: str) -> list[Document]:
        """Those that it is declared to have; nobody says in which state they are."""
        intent = Intent(node_name=node, node=self.nodes.get(node), peers=self.peers)
        return sessions(intent, {})

    def last_word(self, node: str) -> str:
        """What its agent said of its sessions last."""
        held = self.nodes.get(node)
        for one in held.status.conditions if held is not None else ():
            if one.type == "BGPEstablished":
                return f"BGPEstablished {one.status} ({one.reason}) {one.message}".rstrip()
        return ""

    def announced(self, place: Place) -> list[str]:
        """What its host should announce of it, the longest first."""
        address = place.end.address
        found, block = self.blocks.find(address), self.pools.find(address)
        if found is None or block is None or found.spec.node != place.node:
            return []
        announce, workload, prefixes = block.spec.announce, place.workload, []
        ready = workload is not None and workload.status.phase is Phase.READY
        if ready and announce is not Announce.BLOCKS:
            prefixes.append(str(host_prefix(address)))
        if announce is not Announce.HOSTS and str(found.spec.cidr) not in prefixes:
            prefixes.append(str(found.spec.cidr))
        return prefixes


def questions(source: Place, destination: Place) -> list[Question]:
    """What the agents of the two ends have to be asked."""
    to, asked = destination.end.address, []
    if source.node:
        came = source.end.address if source.workload is not None else None
        asked.append(Question(source.node, to, came))
    if destination.node and destination.node != source.node:
        asked.append(Question(destination.node, to, None))
    return asked


def path(
    fabric: Fabric,
    source: Place,
    destination: Place,
    answers: Mapping[Question, Document | str],
) -> Document:
    """Of one flow. `answers`: what an agent says, or why it does not."""
    asked = {one.node: one for one in questions(source, destination)}
    hosts = {name: _host(fabric, name, answers.get(one, "")) for name, one in asked.items()}
    block = fabric.blocks.find(destination.end.address)
    pool = fabric.pools.find(destination.end.address)
    return {
        "source": source.wire,
        "destination": destination.wire,
        "sameNode": bool(source.node) and source.node == destination.node,
        "block": None
        if block is None
        else {
            "name": block.metadata.name,
            "cidr": str(block.spec.cidr),
            "node": block.spec.node,
        },
        "pool": pool.metadata.name if pool is not None else "",
        "natOutgoing": _hidden(fabric, source, destination),
        "hosts": hosts,
        "announced": _announced(fabric, destination, hosts),
        "notKnown": _not_known(source, destination),
    }


def _host(fabric: Fabric, name: str, answer: Document | str) -> Document:
    if isinstance(answer, str):
        why, said = answer, fabric.last_word(name)
        sessions = fabric.sessions(name)
        return {"answered": False, "why": why, "lastWord": said, "sessions": sessions}
    return {
        "answered": True,
        "route": answer.get("route", {}),
        "learned": answer.get("learned", []),
        "announced": answer.get("announced", []),
        "sessions": answer.get("sessions", []),
    }


def _announced(fabric: Fabric, place: Place, hosts: Mapping[str, Document]) -> list[Document]:
    """The prefixes that lead to the receiver, and to whom its host tells each of them."""
    host = hosts.get(place.node)
    if host is None:
        return []
    if host["answered"]:
        prefixes = [(one["prefix"], one["speaker"]) for one in host["announced"]]
    else:
        prefixes = [(prefix, None) for prefix in fabric.announced(place)]
    family = f"IPv{place.end.address.version}"
    return [
        {
            "prefix": prefix,
            "node": place.node,
            "speaker": speaker,
            "to": [
                {
                    "peer": one["peer"],
                    "asNumber": one["asNumber"],
                    "asPath": [one["localASNumber"]],
                    "state": one["state"],
                    "error": one["error"],
                }
                for one in host["sessions"]
                if family in one["families"]
            ],
        }
        for prefix, speaker in prefixes
    ]


def _hidden(fabric: Fabric, source: Place, destination: Place) -> bool:
    """Whether it leaves with an address of the sender's host as its source."""
    pool = fabric.pools.find(source.end.address)
    outside = fabric.pools.find(destination.end.address) is None and not destination.node
    workload = source.workload
    own = workload is not None and workload.spec.mode is not Mode.HOST
    return own and pool is not None and pool.spec.nat_outgoing and outside


def _not_known(source: Place, destination: Place) -> list[str]:
    found = []
    if not source.node:
        found.append(f"how {source.end.called} comes to the switches: it is at no node")
    if not source.node or source.node != destination.node:
        found.append("what the switches between do with it: their tables are theirs")
    if not destination.node:
        found.append(f"where {destination.end.called} is: no node has it")
    return found
