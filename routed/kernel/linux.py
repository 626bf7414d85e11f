"""The Linux kernel behind `Kernel`.

`attach` is the hot path: two packed batches here and one inside, nothing looked up, and at the
end link and routes read back. The host's route comes last: who sees it, be it another routing
daemon, may send at once. `sync` reads everything of ours once and changes only what differs.

Index choice: an ifindex is given in the request; one that is taken (EBUSY) is passed over.
A crash between link and alias leaves a link of our group without an alias: `sync` sweeps it, and
`attach` of the same name replaces it. A namespace is held open through an attach, so that its path
cannot come to name another one half way.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from api.resources.errors import ApplyError, IntentError
from api.resources.net import IPAddress, host_prefix
from api.resources.workload import Mode
from routed.kernel import (
    hostside,
    interior,
    learned,
    listening,
    netns,
    observe,
    shaping,
    sysctl,
    tap,
)
from routed.kernel import messages as m
from routed.kernel.conntrack import Connections
from routed.kernel.drivers import Drivers
from routed.kernel.monitor import Monitor
from routed.kernel.netlink import Netlink
from routed.kernel.netns import Namespace
from routed.kernel.observe import Link
from routed.kernel.reaper import Reaper
from routed.kernel.removals import Removal
from routed.kernel.repair import GONE, Repair
from routed.kernel.seam import name_taken
from routed.kernel.template import Shape, asks_of, shape_of, values_of
from routed.kernel.uplinks import Uplinks
from routed.state import (
    ALIAS_PREFIX,
    LINK_GROUP,
    Endpoint,
    HostState,
    Report,
    host_interface_name,
)
from routed.steps import Point, reached

FIRST_INDEX = 0x10000
FULL_INSIDE_SECONDS = 30.0  # between visits to namespaces in which nothing was seen to change
VISIT_SECONDS = 0.1  # that such visits may take in one sync


class LinuxKernel:
    """Made in the host's namespace, inside a running loop, by the loop's own thread."""

    def __init__(self) -> None:
        self._home = netns.open_own()
        here = os.fstat(self._home)
        self._own = (here.st_dev, here.st_ino)
        self._netlink = Netlink()
        self._monitor = Monitor()
        self._monitor.ports.add(self._netlink.port)
        self._monitor.start()
        self._reaper = Reaper()
        self._connections = Connections()
        taken = [link.index for link in observe.links(self._netlink)]
        self._index = max(FIRST_INDEX, *(index + 1 for index in taken))
        self._drivers = Drivers(self._netlink, self._home, self._next_index)
        self._links: dict[str, Link] = {}  # by workload, as last read
        self._read: dict[bytes, Link] = {}  # what link messages said, as last read
        self._addresses: dict[str, tuple[IPAddress, ...]] = {}  # by workload
        self._visited: dict[str, float] = {}
        self._uplinks = Uplinks(self._netlink)

    @property
    def overflows(self) -> int:
        return self._monitor.overflows

    @property
    def removals(self) -> Sequence[Removal]:
        return self._monitor.removals.recent

    def check_netns(self, name_or_path: str) -> Namespace:
        return netns.check(name_or_path, self._own)

    def listener(self, protocol: str, port: int, host_ip: IPAddress | None) -> IPAddress | None:
        return listening.listener(protocol, port, host_ip)

    def uplink_mtu(self) -> int:
        return self._uplinks.mtu()

    def uplinks(self) -> list[str]:
        return self._uplinks.names()

    def parent(self, asked: str) -> str:
        return self._uplinks.parent(asked)

    # -- one endpoint ------------------------------------------------------------------------------

    async def attach(self, endpoint: Endpoint) -> None:
        if any(value.version == 6 for value in endpoint.addresses):
            sysctl.check_forward_v6(self._netlink)
        await self._connections.forgotten(endpoint.addresses)
        inner = None
        if endpoint.netns is not None:
            try:
                inner = netns.open_checked(endpoint.netns, endpoint.netns_id)
            except OSError as error:
                raise _apply_error(endpoint, "open the namespace of", error) from error
        try:
            if endpoint in self._drivers:
                self._make(endpoint, inner)
                return
            if endpoint.mode is Mode.TAP:
                index = tap.create(self._netlink, endpoint)
            else:
                index = await self._create(endpoint, inner)
            if index is None:
                self._mend(endpoint, inner)
                return
            try:
                link = self._finish(endpoint, index, inner)
                shaping.keep(self._netlink, endpoint, index)
            except BaseException:
                self._netlink.transact([m.delete_link(index)])
                self._reap(shaping.found(self._netlink, endpoint))
                raise
        finally:
            if inner is not None:
                os.close(inner)
        self._keep(endpoint, link)
        self._wake_for(endpoint)

    def _make(self, endpoint: Endpoint, inner: int | None) -> None:
        """An endpoint of another mode than veth."""
        try:
            self._monitor.hear_spaces(self._drivers.make(endpoint, inner))
            link = observe.one_link(self._netlink, endpoint.host_interface)
        except OSError as error:
            raise _apply_error(endpoint, "attach", error) from error
        if link is not None and link.group == LINK_GROUP:
            self._monitor.links.add(link.index)
        self._wake_for(endpoint)

    def _wake_for(self, endpoint: Endpoint) -> None:
        """The first one with IPv6 needs the host to forward that."""
        if any(value.version == 6 for value in endpoint.addresses) and not sysctl.forwards_v6():
            self._monitor.wake()

    def _next_index(self) -> int:
        """One that no link here has: of a taken one the kernel says nothing that tells."""
        while observe.one_link(self._netlink, self._index) is not None:
            self._index += 1
        self._index += 1
        return self._index - 1

    async def _create(self, endpoint: Endpoint, inner: int | None) -> int | None:
        """The pair, both ends down; the host side's index, None if it is there already."""
        patient = True
        while True:
            host, peer = self._index, self._index + 1
            self._index += 2
            values = values_of(endpoint, host, peer, inner)
            request = shape_of(endpoint).create.fill(values)
            number = self._netlink.transact_numbered(request).get(0)
            if number is None:
                reached(Point.LINK_MADE)
                return host
            if number == errno.EBUSY:
                continue  # an index that somebody has
            if number == errno.EEXIST and observe.one_link(self._netlink, host) is not None:
                continue  # the same, as Linux 6.1 says it
            if number != errno.EEXIST:
                raise ApplyError(endpoint.workload, "make the link of", number)
            held = observe.one_link(self._netlink, endpoint.host_interface)
            if held is not None and held.group not in observe.OUR_GROUPS:
                raise observe.not_ours(endpoint.workload, held.name)
            if held is not None and self._is_whole(endpoint, held, inner):
                return None
            if held is not None and held.group == LINK_GROUP:
                self._netlink.transact([m.delete_link(held.index)])
                continue
            if held is not None:
                self._reaper.add([held.index])
            if patient and await self._reaper.drain():
                patient = False  # what stood in the way may have been on its way out
                continue
            raise name_taken(endpoint)

    def _is_whole(self, endpoint: Endpoint, held: Link, inner: int | None) -> bool:
        """Whether `held` is this endpoint's pair, with the inner end where it belongs."""
        if held.group != LINK_GROUP or held.alias != endpoint.alias:
            return False
        if inner is None:
            return True
        with interior.socket_inside(self._home, inner) as inside:
            found = observe.one_link(inside, held.peer)
        return found is not None and found.mac == endpoint.mac

    def _mend(self, endpoint: Endpoint, inner: int | None) -> None:
        """Put right what differs of a pair that is there."""
        alone = HostState(endpoints={endpoint.workload: endpoint}, sweep=False)
        repair = Repair(self._netlink, observe.read(self._netlink), alone)
        repair.host_sides()
        for error in repair.failed.values():
            raise error
        for _, link in repair.present():
            if inner is not None:
                asks = asks_of(endpoint, link.peer)
                interior.repair(self._home, inner, link.peer, endpoint, asks)
            shaping.keep(self._netlink, endpoint, link.index)
            self._keep(endpoint, link)

    def _finish(self, endpoint: Endpoint, index: int, inner: int | None) -> Link:
        six = any(value.version == 6 for value in endpoint.addresses)
        shape, values = shape_of(endpoint), values_of(endpoint, index, index + 1, inner)
        if inner is not None:
            self._configure_inside(endpoint, shape, values, inner, six=six)
            reached(Point.INSIDE_DONE)
        sysctl.v6_of_link(endpoint.host_interface, off=not six)
        return hostside.finish(self._netlink, endpoint, index, shape, values)

    def _configure_inside(
        self, endpoint: Endpoint, shape: Shape, values: list[bytes], inner: int, *, six: bool
    ) -> None:
        name = endpoint.if_name if six else None
        batch = shape.inside.fill(values)
        try:
            inside = interior.socket_inside(self._home, inner, v6_name=name, brief=True)
        except OSError as error:
            raise _apply_error(endpoint, "enter the namespace of", error) from error
        self._monitor.listen_far(False)
        try:
            failed = inside.transact_numbered(batch)
        finally:
            self._monitor.listen_far(True)
            inside.close()
        for place, number in failed.items():
            if not interior.was_so(shape.steps[place], number):
                raise interior.refused(endpoint, shape.steps[place], number)

    def _keep(self, endpoint: Endpoint, link: Link) -> None:
        """Remember what makes later detaches and events cheap; the kernel remains the truth."""
        before = self._links.get(endpoint.workload)
        if before is not None:
            self._monitor.gone(before.index, before.peer_nsid)
        self._links[endpoint.workload] = link
        self._addresses[endpoint.workload] = endpoint.addresses
        self._visited[endpoint.workload] = asyncio.get_running_loop().time()
        self._monitor.born(link.index, link.peer_nsid)

    async def detach(
        self, workloads: Sequence[str], known: Mapping[str, Endpoint] | None = None
    ) -> None:
        batch: list[bytearray] = []
        gone: list[int] = []
        for workload in workloads:
            endpoint = known.get(workload) if known is not None else None
            if endpoint is not None and endpoint in self._drivers:
                self._drivers.remove(endpoint)
                continue
            addresses = self._addresses.pop(workload, None)
            before = self._links.pop(workload, None)
            self._visited.pop(workload, None)
            if before is not None:
                self._monitor.gone(before.index, before.peer_nsid)
            interior.leave(self._home, endpoint)
            gone += shaping.found(self._netlink, endpoint)
            link = observe.one_link(self._netlink, host_interface_name(workload))
            if link is None or link.group != LINK_GROUP or link.alias != ALIAS_PREFIX + workload:
                continue
            if addresses is None:
                held = observe.neighbours(self._netlink, {link.index})
                addresses = tuple(address for _, address in held)
            for value in addresses:
                batch.append(m.device_route(link.index, host_prefix(value), add=False))
                batch.append(m.delete_neighbour(link.index, value))
            gone.append(link.index)
        batch += map(m.to_reap, gone)
        for number in self._netlink.transact(batch).values():
            if number not in GONE:
                raise ApplyError(", ".join(workloads), "detach", number)
        self._reaper.add(gone)

    def _reap(self, indexes: Sequence[int]) -> None:
        self._netlink.transact([m.to_reap(index) for index in indexes])
        self._reaper.add(indexes)

    def space(self, workload: str) -> int | None:
        return self._drivers.space(workload)

    def forget(self, addresses: Iterable[IPAddress]) -> None:
        self._connections.forget(addresses)

    def forget_unseen(self, addresses: Iterable[IPAddress]) -> None:
        self._connections.forget_unseen(addresses)

    def forget_ports(self, ports: Iterable[int]) -> None:
        self._connections.forget_ports(ports)

    async def reaped(self) -> None:
        """Return when no detached link is left, nor a connection of what was released."""
        await self._reaper.drain()
        await self._connections.drain()

    # -- everything --------------------------------------------------------------------------------

    async def sync(self, desired: HostState) -> Report:
        touched = self._monitor.forget()
        left = learned.leave(self._netlink, desired)
        observed = observe.read(self._netlink, self._read)
        repair = Repair(self._netlink, observed, desired)
        repair.changed += left
        repair.sysctls()
        self._reaper.add(link.index for link in observed.reaping.values())
        if desired.sweep:
            orphans = repair.sweep()
            self._reaper.add(orphans)
            self.forget(a for index, a in observed.neighbours if index in orphans)
        repair.moved()
        made = {}
        for endpoint in repair.missing():
            await asyncio.sleep(0)
            try:
                await self.attach(endpoint)
            except (ApplyError, IntentError) as error:
                repair.fail(endpoint.workload, error)
            else:
                repair.made(endpoint)
                made[endpoint.workload] = endpoint
        repair.host_sides()
        repair.shapers()
        self._visit(repair, *touched)
        self._drivers.sync(repair, *touched[1:])
        spaces = self._drivers.spaces()
        repair.blackholes()
        repair.learned(self._monitor.quiet)
        self._remember(repair, made)
        self._monitor.hear_spaces(spaces.values())
        self._uplinks.saw(observed)
        return repair.report(spaces)

    def _remember(self, repair: Repair, made: dict[str, Endpoint]) -> None:
        links = {name: self._links[name] for name in made}
        addresses = {name: endpoint.addresses for name, endpoint in made.items()}
        for endpoint, link in repair.present():
            links[endpoint.workload] = link
            addresses[endpoint.workload] = endpoint.addresses
        self._links, self._addresses = links, addresses
        self._visited = {name: when for name, when in self._visited.items() if name in links}
        ours = (*links.values(), *repair.observed.links.values())
        self._monitor.links = {link.index for link in ours}
        self._monitor.spaces = Counter(
            link.peer_nsid for link in links.values() if link.peer_nsid is not None
        )

    def _visit(self, repair: Repair, links: set[int], spaces: set[int], missed: bool) -> None:
        """Check the namespaces that this driver has not seen yet or in which something changed,
        and some of the others now and then, the longest unseen first."""
        now = asyncio.get_running_loop().time
        due: list[tuple[float, Endpoint, Link]] = []
        for endpoint, link in repair.present():
            seen = self._visited.get(endpoint.workload)
            touched = missed or link.index in links or link.peer_nsid in spaces
            if seen is None or touched:
                self._visit_one(repair, endpoint, link)
            elif now() - seen >= FULL_INSIDE_SECONDS:
                due.append((seen, endpoint, link))
        until = now() + VISIT_SECONDS
        for _, endpoint, link in sorted(due, key=lambda entry: entry[0]):
            if now() > until:
                break
            self._visit_one(repair, endpoint, link)

    def _visit_one(self, repair: Repair, endpoint: Endpoint, link: Link) -> None:
        if endpoint.netns is not None:
            try:
                with netns.opened(endpoint.netns, endpoint.netns_id) as inner:
                    asks = asks_of(endpoint, link.peer)
                    repair.changed += interior.repair(self._home, inner, link.peer, endpoint, asks)
            except OSError:
                pass  # the path is gone or another's, the namespace not: its link is still here
            except ApplyError as error:
                repair.fail(endpoint.workload, error)
                return
        self._visited[endpoint.workload] = asyncio.get_running_loop().time()

    async def watch(self) -> AsyncIterator[None]:
        async for _ in self._monitor.events():
            yield

    async def close(self) -> None:
        await self.reaped()
        self._monitor.close()
        self._netlink.close()
        os.close(self._home)


def _apply_error(endpoint: Endpoint, operation: str, error: OSError) -> ApplyError:
    return ApplyError(endpoint.workload, operation, error.errno or errno.EIO)
