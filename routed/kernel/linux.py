"""The Linux kernel behind `Kernel`.

`attach` is the hot path: two packed batches here and one inside, nothing looked up, nothing read
but the route at the end. `sync` reads everything of ours once and changes only what differs.

Index choice: an ifindex is given in the request; one that is taken (EBUSY) is passed over.
A crash between link and alias leaves a link of our group without an alias: `sync` sweeps it, and
`attach` of the same name replaces it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from api.resources.errors import ApplyError, Cause, Conflict
from api.resources.net import IPAddress, host_prefix
from routed.kernel import interior, netns, observe
from routed.kernel import messages as m
from routed.kernel.monitor import Monitor
from routed.kernel.netlink import Netlink
from routed.kernel.repair import Repair, reachable
from routed.kernel.seam import Namespace
from routed.state import (
    ALIAS_PREFIX,
    LINK_GROUP,
    REAP_GROUP,
    Endpoint,
    HostState,
    Report,
    host_interface_name,
)

FIRST_INDEX = 0x10000
REAP_DELAY = 0.05  # seconds for more links to join a group
REAP_MOST = 24  # links in one group; a larger one stalls attaches
FULL_INSIDE_SECONDS = 30.0  # between visits to namespaces in which nothing was seen to change
V6_OFF = "/proc/sys/net/ipv6/conf/{}/disable_ipv6"


class LinuxKernel:
    """Made in the host's namespace, inside a running loop, by the loop's own thread."""

    def __init__(self) -> None:
        self._home = netns.open_own()
        self._netlink = Netlink()
        self._monitor = Monitor()
        self._monitor.start()
        self._index = FIRST_INDEX
        self._hosts: dict[str, tuple[int, tuple[IPAddress, ...]]] = {}  # by workload
        self._visited: dict[str, float] = {}
        self._reaping: asyncio.Task[None] | None = None
        self._to_reap = 0

    @property
    def overflows(self) -> int:
        """How often events were lost and a full read took their place."""
        return self._monitor.overflows

    def check_netns(self, name_or_path: str) -> Namespace:
        return netns.check(name_or_path)

    def uplink_mtu(self) -> int:
        """The smallest MTU of links that are up, not ours and not lo; 1500 without any."""
        found = [
            link.mtu
            for link in observe.links(self._netlink)
            if link.up and link.group not in (LINK_GROUP, REAP_GROUP) and link.name != "lo"
        ]
        return min(found, default=1500)

    # -- one endpoint ------------------------------------------------------------------------------

    async def attach(self, endpoint: Endpoint) -> None:
        index = self._make(endpoint)
        try:
            self._finish(endpoint, index)
        except BaseException:
            self._netlink.transact([m.delete_link(index)])
            raise
        self._hosts[endpoint.workload] = (index, endpoint.addresses)
        self._visited[endpoint.workload] = asyncio.get_running_loop().time()

    def _make(self, endpoint: Endpoint) -> int:
        """The pair, both ends down; the host side's index."""
        if endpoint.netns is None:
            return self._create(endpoint, None)
        if not reachable(endpoint):
            raise ApplyError(endpoint.workload, "find the namespace of", errno.ENOENT)
        try:
            with _descriptor(endpoint.netns) as inner:
                return self._create(endpoint, inner)
        except OSError as error:
            raise ApplyError(
                endpoint.workload, "open the namespace of", error.errno or 0
            ) from error

    def _create(self, endpoint: Endpoint, inner: int | None) -> int:
        replaced = False
        while True:
            host, peer = self._index, self._index + 1
            self._index += 2
            request = m.create_veth(endpoint, endpoint.host_interface, host, peer, inner)
            number = self._netlink.transact([request]).get(0)
            if number is None:
                return host
            if number == errno.EBUSY:
                continue  # an index that somebody has
            if number == errno.EEXIST and not replaced:
                replaced = self._remove_leftover(endpoint)
                if replaced:
                    continue
            if number == errno.EEXIST:
                raise Conflict(
                    f"cannot attach {endpoint.workload}: its namespace has a {endpoint.if_name} "
                    "already; take another ifName",
                    causes=[Cause("spec.ifName", f"{endpoint.if_name} exists in the namespace")],
                )
            raise ApplyError(endpoint.workload, "make the link of", number)

    def _remove_leftover(self, endpoint: Endpoint) -> bool:
        """Remove a link of ours that has this endpoint's name; False if there is none."""
        held = observe.one_link(self._netlink, endpoint.host_interface)
        if held is None or held.group not in (LINK_GROUP, REAP_GROUP):
            return False
        return not self._netlink.transact([m.delete_link(held.index)])

    def _finish(self, endpoint: Endpoint, index: int) -> None:
        six = any(value.version == 6 for value in endpoint.addresses)
        before = [m.no_link_local(index)] if six else []
        self._v6_off(endpoint.host_interface, off=not six)
        batch = [*before, m.host_link_up(index, endpoint.alias)]
        batch += host_messages(index, endpoint)
        for number in self._netlink.transact(batch).values():
            raise ApplyError(endpoint.workload, "configure the host side of", number)
        if endpoint.netns is not None:
            name = endpoint.if_name if six else None
            try:
                inside = interior.socket_inside(self._home, endpoint.netns, v6_name=name)
            except OSError as error:
                raise ApplyError(
                    endpoint.workload, "enter the namespace of", error.errno or 0
                ) from error
            with inside:
                interior.configure(inside, index + 1, endpoint)
        for value in endpoint.addresses:
            if observe.route_index(self._netlink, value) != index:
                raise ApplyError(
                    f"{endpoint.workload} {value}", "read back the route of", errno.ENODEV
                )

    def _v6_off(self, name: str, *, off: bool) -> None:
        """IPv6 on the host side only where it is used: with it on, an attach costs O(links)."""
        with contextlib.suppress(FileNotFoundError):
            Path(V6_OFF.format(name)).write_text("1" if off else "0", encoding="ascii")
            if not off:
                conf = Path(f"/proc/sys/net/ipv6/conf/{name}")
                (conf / "accept_ra").write_text("0", encoding="ascii")

    async def detach(self, workloads: Sequence[str]) -> None:
        batch: list[bytearray] = []
        gone = 0
        for workload in workloads:
            held = self._hosts.pop(workload, None)
            self._visited.pop(workload, None)
            if held is None:
                link = observe.one_link(self._netlink, host_interface_name(workload))
                if (
                    link is None
                    or link.group != LINK_GROUP
                    or link.alias != ALIAS_PREFIX + workload
                ):
                    continue
                on_link = [a for i, a in observe.neighbours(self._netlink) if i == link.index]
                held = (link.index, tuple(on_link))
            index, addresses = held
            for value in addresses:
                batch.append(m.device_route(index, host_prefix(value), add=False))
                batch.append(m.delete_neighbour(index, value))
            batch.append(m.to_reap(index))
            gone += 1
        if not batch:
            return
        for number in self._netlink.transact(batch).values():
            if number not in (errno.ENODEV, errno.ESRCH, errno.ENOENT):
                raise ApplyError(", ".join(workloads), "detach", number)
        self._to_reap += gone
        if self._to_reap >= REAP_MOST:
            await self._reap()
        elif self._reaping is None or self._reaping.done():
            self._reaping = asyncio.create_task(self._reap_later())

    async def _reap_later(self) -> None:
        await asyncio.sleep(REAP_DELAY)
        await self._reap()

    async def _reap(self) -> None:
        """Delete the links of the reap group. The kernel waits for an RCU grace period in this
        call, which is why it is made off the loop's thread, on a socket of its own."""
        self._to_reap = 0
        await asyncio.to_thread(_delete_reaped)

    # -- everything --------------------------------------------------------------------------------

    async def sync(self, desired: HostState) -> Report:
        touched, self._monitor.touched = self._monitor.touched, set()
        repair = Repair(self._netlink, observe.read(self._netlink), desired)
        repair.sysctls()
        lost = repair.lost()
        repair.moved()
        for endpoint in repair.missing():
            await asyncio.sleep(0)
            try:
                await self.attach(endpoint)
                repair.made(endpoint)
            except (ApplyError, Conflict) as error:
                repair.fail(endpoint.workload, error)
        repair.host_sides()
        self._insides(repair, touched)
        repair.blackholes()
        repair.learned()
        if desired.sweep:
            swept = repair.sweep()
            if swept:
                self._to_reap += swept
                await self._reap()
        self._hosts = repair.known()
        if repair.observed.reaping:
            await self._reap()
        return repair.report(lost)

    def _insides(self, repair: Repair, touched: set[int]) -> None:
        """Visit the namespaces in which something changed, and the others now and then."""
        now = asyncio.get_running_loop().time()
        for endpoint, link in repair.present():
            if endpoint.netns is None:
                continue
            due = now - self._visited.get(endpoint.workload, -FULL_INSIDE_SECONDS)
            if not reachable(endpoint):
                continue  # the path names another namespace by now: nothing to do in there
            if link.peer_nsid not in touched and due < FULL_INSIDE_SECONDS:
                continue
            try:
                repair.changed += interior.repair(self._home, endpoint)
                self._visited[endpoint.workload] = now
            except OSError:
                continue  # the path is gone, the namespace not: its link is still here
            except ApplyError as error:
                repair.fail(endpoint.workload, error)

    async def watch(self) -> AsyncIterator[None]:
        async for _ in self._monitor.events():
            yield

    async def close(self) -> None:
        if self._reaping is not None and not self._reaping.done():
            await self._reaping
        self._monitor.close()
        self._netlink.close()
        os.close(self._home)


def host_messages(index: int, endpoint: Endpoint) -> list[bytearray]:
    """The host side: real gateway addresses, permanent neighbours, one route an address."""
    found = []
    for gateway in interior.gateways(endpoint.addresses):
        length = 32 if gateway.version == 4 else 64
        found.append(m.address(index, gateway, add=True, length=length, scope=m.RT_SCOPE_LINK))
    for value in endpoint.addresses:
        found.append(m.neighbour(index, value, endpoint.mac))
        found.append(m.device_route(index, host_prefix(value)))
    return found


def _delete_reaped() -> None:
    with Netlink() as netlink:
        netlink.transact([m.delete_group(REAP_GROUP)])


@contextlib.contextmanager
def _descriptor(path: str):  # type: ignore[no-untyped-def]
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield opened
    finally:
        os.close(opened)
