"""What the reference evaluator is asked about: everything that is declared, and one packet.

Part of the reference evaluator (`policies/reference.py`). The objects are those of the service, as
they are. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from api.resources.hostendpoint import HostEndpoint
from api.resources.meta import Resource
from api.resources.net import IPAddress
from api.resources.node import Node
from api.resources.policy import NetworkPolicy, NetworkSet, Tier
from api.resources.workload import Mode, Phase, Workload
from policies.failsafe import Failsafe, failsafe


@dataclass(frozen=True, slots=True)
class World:
    """Everything that is declared. `nodes`: the addresses of each host. `default`: what the node
    does where no tier decides. `unknown` and `unknown_ports`: the selectors of rules, and the
    (port's name, selector beside it or ""), whose members the agent was never told. `interfaces`:
    by node, the interface that has an address, as far as that is known; `failsafe` is of every
    node."""

    tiers: tuple[Tier, ...] = ()
    policies: tuple[NetworkPolicy, ...] = ()
    network_sets: tuple[NetworkSet, ...] = ()
    host_endpoints: tuple[HostEndpoint, ...] = ()
    workloads: tuple[Workload, ...] = ()
    nodes: Mapping[str, frozenset[IPAddress]] = field(default_factory=dict)
    default: Literal["Allow", "Deny"] = "Allow"
    unknown: frozenset[str] = frozenset()
    unknown_ports: frozenset[tuple[str, str]] = frozenset()
    interfaces: Mapping[str, Mapping[IPAddress, str]] = field(default_factory=dict)
    failsafe: Failsafe = field(default_factory=failsafe)


@dataclass(frozen=True, slots=True)
class Packet:
    """The first of a flow, as policies see it: after DNAT, before SNAT. `protocol` is the IANA's
    number. `sender` and `receiver` name the workloads where addresses do not tell them. `through`
    is a host that forwards it and has neither; `arrives` and `leaves` are the interfaces by which
    it comes to a host and goes from one, where these are known."""

    source: IPAddress
    destination: IPAddress
    protocol: int
    source_port: int | None = None
    destination_port: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    sender: str = ""
    receiver: str = ""
    through: str = ""
    arrives: str = ""
    leaves: str = ""


def counts(workload: Workload) -> bool:
    """Whether its addresses are its own: not if it has failed, nor if it shares another's."""
    return workload.spec.mode is not Mode.SHARED and workload.status.phase is not Phase.FAILED


def gathered(objects: Iterable[Resource], default: Literal["Allow", "Deny"] = "Allow") -> World:
    """The world that `objects` make; those of kinds that policies do not ask for are left out."""
    held = list(objects)
    return World(
        tiers=tuple(one for one in held if isinstance(one, Tier)),
        policies=tuple(one for one in held if isinstance(one, NetworkPolicy)),
        network_sets=tuple(one for one in held if isinstance(one, NetworkSet)),
        host_endpoints=tuple(one for one in held if isinstance(one, HostEndpoint)),
        workloads=tuple(one for one in held if isinstance(one, Workload)),
        nodes={
            one.metadata.name: frozenset(
                [*one.spec.addresses, *(found.address for found in one.status.addresses)]
            )
            for one in held
            if isinstance(one, Node)
        },
        interfaces={
            one.metadata.name: {
                found.address: found.interface for found in one.status.addresses if found.interface
            }
            for one in held
            if isinstance(one, Node)
        },
        default=default,
    )
