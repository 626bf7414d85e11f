"""One sync: what was observed against what is desired, and the messages that close the gap.

Every step goes on past what fails and notes it by key; nothing that is right is touched; nothing
foreign is ever replaced (an exclusive create that finds somebody else's route fails with EEXIST
and is reported). Replacing is used only where no foreign route shares prefix and metric.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping

from api.resources.errors import ApplyError, IntentError
from api.resources.net import IPAddress, IPNetwork, host_prefix
from api.resources.workload import Mode
from routed.kernel import fib, interior, observe, shaping, sysctl
from routed.kernel import messages as m
from routed.kernel.learned import Learned, Quiet
from routed.kernel.netlink import Netlink
from routed.kernel.netns import identity
from routed.kernel.observe import Link, Observed
from routed.kernel.template import gateway_address
from routed.state import (
    BLACKHOLE_METRIC,
    Endpoint,
    HostState,
    Report,
    destination,
    host_route_key,
    route_key,
)

# modes whose workloads have a link on the host over which host routes lead
LINKED = frozenset({Mode.VETH, Mode.TAP})
GONE = (errno.ENODEV, errno.ESRCH, errno.ENOENT, errno.EADDRNOTAVAIL)


class Repair:
    """The steps of one sync, in the caller's order; `report` at the end."""

    def __init__(self, netlink: Netlink, observed: Observed, desired: HostState) -> None:
        self.netlink = netlink
        self.observed = observed
        self.desired = desired
        self.changed = 0
        self.failed: dict[str, ApplyError] = {}
        self._ready: dict[str, tuple[IPAddress, ...]] = {}
        self._routed: set[IPNetwork] = set()
        self._made: set[str] = set()
        self._lost: set[str] = set()
        self.restored: dict[str, str] = {}  # parents, with the mode that somebody had set
        self._owners = {  # by destination, the alias of the link that its route leads to
            destination(host_prefix(address)): endpoint.route_alias
            for endpoint in desired.endpoints.values()
            for address in endpoint.addresses
        }

    def fail(self, key: str, error: ApplyError | IntentError | OSError) -> None:
        if isinstance(error, OSError):
            error = ApplyError(key, "look at", error.errno or errno.EIO)
        elif not isinstance(error, ApplyError):
            error = ApplyError(key, str(error).removeprefix("cannot "), errno.EEXIST)
        self.failed[key] = error

    def sysctls(self) -> None:
        """Forwarding of the host, where we may set it."""
        if not self.desired.manage_sysctls:
            return
        versions = {a.version for e in self.desired.endpoints.values() for a in e.addresses}
        versions |= {block.version for block in self.desired.blackholes}  # before anybody is in it
        for set_forwarding in (sysctl.forward_v4, sysctl.forward_v6)[: 2 if 6 in versions else 1]:
            try:
                self.changed += set_forwarding(self.netlink)
            except ApplyError as error:
                self.failed[error.key] = error

    # -- what nobody wants any more ------------------------------

    def sweep(self) -> list[int]:
        """Withdraw our links, host routes and blackholes that are not desired, before anything
        new is made; the links' indexes, for the reaper."""
        wanted = {endpoint.host_interface for endpoint in self.desired.endpoints.values()}
        held = {**self.observed.links, **self.observed.slaves}
        orphans = [link.index for name, link in held.items() if name not in wanted]
        orphans += shaping.unwanted(self.observed, self.desired.endpoints.values())
        holes = {route_key(prefix, BLACKHOLE_METRIC) for prefix in self.desired.blackholes}
        batch = [m.to_reap(index) for index in orphans]
        for key, shape in list(self.observed.routes.items()):
            if shape.kind == m.RTN_BLACKHOLE and key not in holes:
                metric = fib.metric(key[0])
                batch.append(m.blackhole(fib.network(*key), add=False, metric=metric))
            elif shape.device is not None and (
                fib.destination(key) not in self._owners or shape.device in orphans
            ):
                batch.append(m.device_route(shape.device, fib.network(*key), add=False))
                del self.observed.routes[key]
        self._apply("sweep", batch, gone_is_fine=True)
        return orphans

    # -- links ------------------------------

    def _link(self, endpoint: Endpoint) -> Link | None:
        held = self.observed.links.get(endpoint.host_interface)
        return held if held is not None and held.alias == endpoint.alias else None

    def present(self) -> Iterator[tuple[Endpoint, Link]]:
        """The endpoints whose links were there before this sync."""
        for endpoint in self.desired.endpoints.values():
            if endpoint.mode not in LINKED:
                continue
            held = self._link(endpoint)
            if held is not None and endpoint.workload not in self._made:
                yield endpoint, held

    def shapers(self) -> None:
        """The bandwidth limits of all links that were there."""
        for endpoint, link in self.present():
            try:
                self.changed += shaping.keep(self.netlink, endpoint, link.index)
            except (ApplyError, IntentError) as error:
                self.fail(endpoint.workload, error)

    def missing(self) -> list[Endpoint]:
        """The endpoints without a link that can have one. Those whose namespace is gone are
        lost: nothing can be made again."""
        found = []
        for endpoint in self.desired.endpoints.values():
            if endpoint.mode in LINKED and self._link(endpoint) is None:
                if reachable(endpoint):
                    found.append(endpoint)
                else:
                    self._lost.add(endpoint.workload)
        return found

    def made(self, endpoint: Endpoint) -> None:
        self.changed += 1
        self._made.add(endpoint.workload)
        self.reach(endpoint)

    def reach(self, endpoint: Endpoint) -> None:
        """It is whole, as was read back."""
        self._ready[endpoint.workload] = endpoint.addresses

    def lose(self, endpoint: Endpoint) -> None:
        """Its namespace is gone."""
        self._lost.add(endpoint.workload)

    def moved(self) -> None:
        """Remove host routes of ours that lead to another workload than their address belongs to
        now: they would be in the way of the right one."""
        ours = (self.observed.links, self.observed.slaves)
        links = {link.index: link.alias for some in ours for link in some.values()}
        batch = []
        for key, shape in list(self.observed.routes.items()):
            device, owner = shape.device, self._owners.get(fib.destination(key))
            if device is not None and owner is not None and links.get(device) != owner:
                batch.append(m.device_route(device, fib.network(*key), add=False))
                del self.observed.routes[key]
        self._apply("moved host routes", batch, gone_is_fine=True)

    def host_sides(self) -> None:
        """Link up, settings, gateway addresses, neighbours, host routes of links that are there."""
        for endpoint, link in self.present():
            try:
                changes = self._host_changes(endpoint, link)
            except ApplyError as error:
                self.fail(endpoint.workload, error)
                continue
            if changes:
                failed = self.netlink.transact([message for _, message in changes])
                self.changed += len(changes) - len(failed)
                for place, number in failed.items():
                    if number == errno.EEXIST and self._came_back(changes[place][0], link):
                        continue
                    self.fail(
                        endpoint.workload,
                        ApplyError(endpoint.workload, "configure the host side of", number),
                    )
            if endpoint.workload not in self.failed:
                self._ready[endpoint.workload] = endpoint.addresses

    def _came_back(self, value: IPAddress | None, link: Link) -> bool:
        """Whether the host route of `value`, which was not there, is by now."""
        return value is not None and observe.route_index(self.netlink, value) == link.index

    def _host_changes(
        self, endpoint: Endpoint, link: Link
    ) -> list[tuple[IPAddress | None, bytearray]]:
        """The messages needed, each with the address whose host route it makes, if it does."""
        index = link.index
        changes: list[tuple[IPAddress | None, bytearray]] = []
        v6_off = all(value.version == 4 for value in endpoint.addresses)
        if link.settings is not None:
            inet = tuple(value for _, value in m.HOST_SETTINGS)
            if not link.up or link.settings.inet not in (None, inet):
                changes.append((None, m.host_link_up(index, endpoint.alias)))
            if link.settings.v6_off is not None and link.settings.v6_off != v6_off:
                sysctl.v6_of_link(link.name, off=v6_off)
                self.changed += 1
        if link.mtu != endpoint.mtu:
            changes.append((None, m.set_mtu(index, endpoint.mtu)))
        for gateway in interior.gateways(endpoint.addresses):
            if (index, gateway) not in self.observed.addresses:
                changes.append((None, gateway_address(index, gateway)))
        for value in endpoint.addresses:
            if self.observed.neighbours.get((index, value)) != endpoint.mac:
                changes.append((None, m.neighbour(index, value, endpoint.mac)))
            key = host_route_key(value)
            held = self.observed.routes.get(key)
            if held is None or held.device != index:
                changes.append((value, m.device_route(index, host_prefix(value))))
        return changes

    # -- routes ------------------------------

    def blackholes(self) -> None:
        for prefix in self.desired.blackholes:
            held = self.observed.routes.get(route_key(prefix, BLACKHOLE_METRIC))
            if held is None or held.kind != m.RTN_BLACKHOLE:
                failed = self.netlink.transact([m.blackhole(prefix)])
                if failed:
                    key = f"blackhole {prefix}"
                    self.failed[key] = ApplyError(key, "add", failed[0])
                    continue
                self.changed += 1
            self._routed.add(prefix)

    def learned(self, quiet: Quiet) -> None:
        """Routes learned by BGP; one that fails leaves the others."""
        sync = Learned(self.netlink, self.observed, self.desired)
        sync.sync(quiet)
        self.changed += sync.changed
        self.failed |= sync.failed
        self._routed |= sync.routed

    def _apply(self, key: str, batch: list[bytearray], *, gone_is_fine: bool) -> None:
        failed = self.netlink.transact(batch)
        self.changed += len(batch) - len(failed)
        for number in failed.values():
            if not gone_is_fine or number not in GONE:
                self.failed[key] = ApplyError(key, "finish the", number)

    # -- the end ------------------------------

    def report(self, spaces: Mapping[str, int]) -> Report:
        ready = {name: held for name, held in self._ready.items() if name not in self.failed}
        return Report(
            ready=ready,
            routed=frozenset(self._routed),
            failed=self.failed,
            changed=self.changed,
            lost=frozenset(self._lost),
            restored=self.restored,
            spaces=spaces,
        )


def reachable(endpoint: Endpoint) -> bool:
    """Whether the namespace is still where it was: the same one, not another of that name."""
    if endpoint.netns is None:
        return endpoint.mode is Mode.TAP
    found = identity(endpoint.netns)
    return found is not None and endpoint.netns_id in (None, found)
