"""The drivers of all modes that are not the kernel driver's own: veth, and tap, which is as veth
but for how its link is made.
"""

from __future__ import annotations

from collections.abc import Callable

from api.resources.workload import IPVLAN, Mode
from routed.kernel.ipvlan import Ipvlan
from routed.kernel.netlink import Netlink
from routed.kernel.plain import Bare, OnHost
from routed.kernel.repair import Repair
from routed.kernel.seam import Driver
from routed.state import Endpoint


class Drivers:
    """One for each mode. `home` is a descriptor of the host's namespace; `index` gives interface
    indexes that are free there."""

    def __init__(self, netlink: Netlink, home: int, index: Callable[[], int]) -> None:
        ipvlan = Ipvlan(netlink, home, index)
        self._of: dict[Mode, Driver] = {
            **dict.fromkeys(IPVLAN, ipvlan),
            Mode.NONE: Bare(netlink, home),
            Mode.HOST: OnHost(netlink, index),
        }

    def __contains__(self, endpoint: Endpoint) -> bool:
        return endpoint.mode in self._of

    def make(self, endpoint: Endpoint, inner: int | None) -> list[int]:
        """See `Driver.make`; the id of the namespace, whose end is to be heard of."""
        driver = self._of[endpoint.mode]
        driver.make(endpoint, inner)
        space = driver.space(endpoint.workload)
        return [] if space is None else [space]

    def remove(self, endpoint: Endpoint) -> None:
        self._of[endpoint.mode].remove(endpoint)

    def sync(self, repair: Repair, spaces: set[int], missed: bool) -> None:
        """See `Driver.sync`."""
        for driver in dict.fromkeys(self._of.values()):
            driver.sync(repair, spaces, missed)

    def spaces(self) -> dict[str, int]:
        """By workload, the ids here of all their namespaces."""
        drivers = dict.fromkeys(self._of.values())
        return {name: space for driver in drivers for name, space in driver.spaces().items()}

    def space(self, workload: str) -> int | None:
        """That of one."""
        found = (driver.space(workload) for driver in dict.fromkeys(self._of.values()))
        return next((space for space in found if space is not None), None)
