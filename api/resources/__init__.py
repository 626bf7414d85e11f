"""The nouns: every kind, with its validation, and the registry that generic code reads."""

from api.resources.addresslease import AddressLease
from api.resources.bgpfilter import BGPFilter
from api.resources.bgppeer import BGPConfiguration, BGPPeer
from api.resources.hostendpoint import HostEndpoint
from api.resources.ippool import IPBlock, IPPool
from api.resources.ipreservation import IPReservation
from api.resources.meta import Condition, ObjectMeta, Resource, Status
from api.resources.node import Node
from api.resources.policy import NetworkPolicy, NetworkSet, Tier
from api.resources.registry import KINDS, Kind, by_kind, by_name
from api.resources.role import Role
from api.resources.virtualip import VirtualIP
from api.resources.workload import Workload

__all__ = [
    "KINDS",
    "AddressLease",
    "BGPConfiguration",
    "BGPFilter",
    "BGPPeer",
    "Condition",
    "HostEndpoint",
    "IPBlock",
    "IPPool",
    "IPReservation",
    "Kind",
    "NetworkPolicy",
    "NetworkSet",
    "Node",
    "ObjectMeta",
    "Resource",
    "Role",
    "Status",
    "Tier",
    "VirtualIP",
    "Workload",
    "by_kind",
    "by_name",
]
