"""The links that lead off this host: the MTU of workloads is theirs, one is ipvlan's parent."""

from __future__ import annotations

from api.resources.errors import Cause, Invalid
from routed.addressing import OTHERS
from routed.kernel import interior, observe
from routed.kernel import messages as m
from routed.kernel.netlink import Netlink
from routed.kernel.observe import Link, Observed
from routed.state import SHAPER_GROUP

DEFAULT_MTU = 1500


def leading(netlink: Netlink, observed: Observed) -> list[Link]:
    """The links that learned routes and the default route use, by name."""
    used = {index for _, index in observed.objects.hops.values()}
    for address in interior.ANYWHERE.values():
        used.update(observe.ways(netlink, address))
    found = [link for link in _others(observed) if link.index in used]
    return sorted(found, key=lambda link: link.name)


def _others(observed: Observed) -> list[Link]:
    """The links that are up, neither ours nor loopback."""
    every = (link for link in observed.foreign.values() if link.group != SHAPER_GROUP)
    return [link for link in every if link.up and link.index != interior.LOOPBACK]


def _perhaps(observed: Observed) -> list[Link]:
    """Those of them that may lead off: not the bridges of containers, if there are others."""
    every = _others(observed)
    return [link for link in every if not OTHERS.match(link.name)] or every


class Uplinks:
    """As of the last full read, which `saw` is told of; the first time, as of now."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink
        self._mtu: int | None = None
        self._names: list[str] = []

    def saw(self, observed: Observed) -> int:
        """The smallest MTU of those that lead off; without such, of all that are up and may."""
        found = leading(self._netlink, observed)
        self._names = [link.name for link in found]
        self._mtu = min((one.mtu for one in found or _perhaps(observed)), default=DEFAULT_MTU)
        return self._mtu

    def mtu(self) -> int:
        """See `Kernel.uplink_mtu`."""
        return self.saw(observe.read(self._netlink)) if self._mtu is None else self._mtu

    def names(self) -> list[str]:
        """The links that learned routes and the default route use, sorted."""
        self.mtu()
        return self._names

    def parent(self, asked: str) -> str:
        """See `Kernel.parent`. Where several links lead off, it is the first by name: what
        workloads send leaves by this one only."""
        if asked and observe.one_link(self._netlink, asked) is None:
            names = sorted(
                observe.link_of(data).name for data in self._netlink.dump(m.dump_links())
            )
            said = f"there is no link {asked} on this host; there are: {', '.join(names[:20])}"
            raise Invalid(
                f"cannot have an ipvlan parent {asked} (ipvlanParent): {said}",
                causes=[Cause("mode", said)],
            )
        if not asked and not self.names():
            said = "no link leads off this host: neither a default route nor one from a switch"
            raise Invalid(
                f"cannot choose an ipvlan parent: {said}; set ipvlanParent, or use mode veth",
                causes=[Cause("mode", said)],
            )
        return asked or self.names()[0]
