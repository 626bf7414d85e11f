"""The nouns: every kind, with its validation, and the registry that generic code reads."""

from api.resources.addresslease import AddressLease
from api.resources.bgppeer import BGPConfiguration, BGPPeer
from api.resources.ippool import IPBlock, IPPool
from api.resources.ipreservation import IPReservation
from api.resources.meta import Condition, ObjectMeta, Resource, Status
from api.resources.node import Node
from api.resources.registry import KINDS, Kind, by_kind, by_name
from api.resources.role import Role
from api.resources.workload import Workload

__all__ = [
    "KINDS",
    "AddressLease",
    "BGPConfiguration",
    "BGPPeer",
    "Condition",
    "IPBlock",
    "IPPool",
    "IPReservation",
    "Kind",
    "Node",
    "ObjectMeta",
    "Resource",
    "Role",
    "Status",
    "Workload",
    "by_kind",
    "by_name",
]
