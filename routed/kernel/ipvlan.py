"""Modes ipvlan-l3 and ipvlan-l3s: a slave of an uplink in the workload's namespace.

The host has no end of such a link, so it has a slave of its own on each parent, and the /32s lead
over that: host and workload reach each other, and what comes in by another uplink finds its way.

How an agent without memory recognises what is ours: the host's slave by its group and alias, which
says mode and parent; host routes, as all, by protocol 82; a workload's slave, which only its
namespace shows, by group and alias there. A namespace gets an id here (rtnetlink(7), RTM_NEWNSID),
so that its end and what somebody takes away in it is heard of as it is of veth.

Races: somebody else's slave switches the parent to another mode. Its making is an event here, and
the next sync restores ours; a mere change of mode in a foreign namespace is seen by the periodic
one.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network

from api.resources.errors import ApplyError, Cause, Conflict, Invalid
from api.resources.net import host_prefix
from routed.kernel import interior, netns, observe, slaves, spaces
from routed.kernel import messages as m
from routed.kernel.netlink import Netlink
from routed.kernel.observe import Link
from routed.kernel.parents import Parents
from routed.kernel.repair import GONE, Repair, reachable
from routed.kernel.seam import name_taken
from routed.kernel.slaves import Shown
from routed.state import (
    LINK_GROUP,
    SLAVE_GROUP,
    Endpoint,
    destination,
    host_route_key,
    slave_name,
)
from routed.steps import Point, reached

TRIES = 100  # to find an index that is free in a namespace
LOOK_SECONDS = 30.0  # between visits to a namespace in which nothing was seen to change
REMEDY = "mode veth works on every link"


@dataclass(slots=True)
class Held:
    """What is known of one workload: never more than what the kernel shows."""

    endpoint: Endpoint
    space: int | None
    index: int
    seen: float


class Ipvlan:
    """The driver; `index` gives interface indexes that are free on the host."""

    def __init__(self, netlink: Netlink, home: int, index: Callable[[], int]) -> None:
        self._netlink = netlink
        self._home = home
        self._index = index
        self._parents = Parents(netlink, index)
        self._held: dict[str, Held] = {}

    def spaces(self) -> dict[str, int]:
        return {name: held.space for name, held in self._held.items() if held.space is not None}

    def space(self, workload: str) -> int | None:
        held = self._held.get(workload)
        return None if held is None else held.space

    # -- one workload ------------------------------------------------------------------------------

    def make(self, endpoint: Endpoint, inner: int | None) -> int:
        """Whole, or nothing is left; the number of changes."""
        if inner is None:
            raise Invalid(
                f"cannot attach {endpoint.workload}: mode {endpoint.mode} has no hand-over form",
                causes=[Cause("netns", f"is needed by mode {endpoint.mode}; {REMEDY}")],
            )
        own, fresh = self._parents.own_slave(endpoint, carries=self._carries(endpoint))
        index, made, changes = 0, False, 0
        routed: list[bytearray] = []
        try:
            index, made, changes = self._inside(endpoint, own.peer, inner)
            reached(Point.INSIDE_DONE)
            for value in endpoint.addresses:
                prefix = host_prefix(value)
                failed = self._netlink.transact([m.device_route(own.index, prefix)])
                if not failed:
                    routed.append(m.device_route(own.index, prefix, add=False))
                elif observe.route_index(self._netlink, value) != own.index:
                    raise ApplyError(endpoint.workload, "add the host route of", failed[0])
            reached(Point.HOST_SIDE_DONE)
        except BaseException:
            self._netlink.transact(routed)
            if made:
                with interior.socket_inside(self._home, inner) as inside:
                    inside.transact([m.delete_link(index)])
            if fresh:
                self._netlink.transact([m.delete_link(own.index)])
            raise
        self._hold(endpoint, index, inner)
        return changes + len(routed) + fresh

    def _carries(self, endpoint: Endpoint) -> bool:
        """Whether its parent has slaves of workloads of another mode, as far as is known here."""
        return any(
            held.endpoint.parent == endpoint.parent and held.endpoint.mode is not endpoint.mode
            for name, held in self._held.items()
            if name != endpoint.workload
        )

    def _hold(self, endpoint: Endpoint, index: int, inner: int) -> None:
        space = spaces.numbered(self._netlink, inner)
        self._held[endpoint.workload] = Held(endpoint, space, index, time.monotonic())

    # -- the inside ------------------------------------------------------------------------------

    def _inside(self, endpoint: Endpoint, parent: int, inner: int) -> tuple[int, bool, int]:
        """The slave in the namespace, configured: its index, whether it was made, how many changes
        that took."""
        with interior.socket_inside(self._home, inner) as inside:
            found = _ours(inside, endpoint, parent)
            if found is not None and found.alias == endpoint.alias:
                return found.index, False, self._configure(inside, found.index, endpoint)
            if found is not None:  # a crash before it was complete
                inside.transact([m.delete_link(found.index)])
            for family, everywhere in _everywhere(endpoint):
                if everywhere in observe.routes(inside, family, 0).destinations():
                    raise interior.refused(endpoint, "add the default route in", errno.EEXIST)
            index = self._create(endpoint, parent, inner)
            reached(Point.LINK_MADE)
            try:
                inside.transact([m.no_link_local(index)])
                changes = self._configure(inside, index, endpoint)
            except BaseException:
                inside.transact([m.delete_link(index)])
                raise
        return index, True, changes

    def _create(self, endpoint: Endpoint, parent: int, inner: int) -> int:
        number: int | None = None
        for _ in range(TRIES):
            index = self._index()
            request = slaves.make_inner(endpoint, parent, index, inner)
            number = self._netlink.transact([request]).get(0)
            if number is None:
                return index
            if number == errno.EEXIST:
                raise name_taken(endpoint)
            if number != errno.EBUSY:  # an index that somebody has
                break
        raise ApplyError(endpoint.workload, "make the link of", number or errno.EIO)

    def _configure(self, inside: Netlink, index: int, endpoint: Endpoint) -> int:
        """Put right what differs inside; the number of changes."""
        steps = differences(inside, index, endpoint)
        if not steps:
            return 0
        failed = inside.transact([message for _, message in steps])
        for place, number in failed.items():
            if number == errno.EADDRINUSE:
                said = f"another slave of {endpoint.parent} has that address"
                raise Conflict(
                    f"cannot attach {endpoint.workload}: {said}; detach that one first",
                    causes=[Cause("addresses", said)],
                )
            if number != errno.EEXIST or steps[place][0].startswith("add the default"):
                raise interior.refused(endpoint, steps[place][0], number)
        left = differences(inside, index, endpoint)
        if left:
            raise ApplyError(f"{endpoint.workload} ({endpoint.netns})", left[0][0], errno.EAGAIN)
        return len(steps)

    def remove(self, endpoint: Endpoint) -> None:
        """Routes at once, then the slave; what is gone is fine. ApplyError."""
        held = self._held.pop(endpoint.workload, None)
        own = observe.one_link(self._netlink, slave_name(endpoint.parent))
        if own is not None and own.group == SLAVE_GROUP:
            routes = [
                m.device_route(own.index, host_prefix(value), add=False)
                for value in endpoint.addresses
            ]
            for number in self._netlink.transact(routes).values():
                if number not in GONE:
                    raise ApplyError(endpoint.workload, "detach", number)
        try:
            with (
                netns.opened(str(endpoint.netns), endpoint.netns_id) as inner,
                interior.socket_inside(self._home, inner) as inside,
            ):
                found = _ours(inside, endpoint, own.peer if own is not None else 0)
                if found is not None:
                    inside.transact([m.delete_link(found.index)])
        except OSError:  # the path is gone; the namespace perhaps not
            if held is not None and held.space is not None:
                self._remove_far(endpoint, held.space, held.index)

    def _remove_far(self, endpoint: Endpoint, space: int, index: int) -> None:
        """Its slave where only the id of the namespace is known: the kernel gives the id of one
        that ended to the next, in which another may have that index."""
        try:
            data = self._netlink.get(slaves.get_far(space, index))
        except OSError:
            return
        if data is not None and slaves.shown(data).alias == endpoint.alias:
            self._netlink.transact([slaves.delete_far(space, index)])

    # -- everything --------------------------------------------------------------------------------

    def sync(self, repair: Repair, spaces: set[int], missed: bool) -> None:
        wanted = [
            endpoint
            for endpoint in repair.desired.endpoints.values()
            if endpoint.mode in slaves.IPVLAN_MODES
        ]
        names = {endpoint.workload for endpoint in wanted}
        self._held = {name: held for name, held in self._held.items() if name in names}
        self._parents.restore(repair, wanted)
        for endpoint in wanted:
            try:
                self._keep(repair, endpoint, spaces, missed=missed)
            except (ApplyError, Conflict, Invalid, OSError) as error:
                repair.fail(endpoint.workload, error)

    def _keep(self, repair: Repair, endpoint: Endpoint, spaces: set[int], *, missed: bool) -> None:
        if not reachable(endpoint):
            self.remove(endpoint)
            repair.lose(endpoint)
            return
        inner = netns.open_checked(str(endpoint.netns), endpoint.netns_id)
        try:
            own = repair.observed.slaves.get(endpoint.host_interface)
            held = self._held.get(endpoint.workload)
            whole = (
                own is not None and own.up and own.alias == endpoint.route_alias
                and held is not None and held.endpoint == endpoint
            )  # fmt: skip
            if not whole:
                repair.changed += self.make(endpoint, inner)
            elif held is not None and own is not None:
                self._routes(repair, endpoint, own)
                now = time.monotonic()
                if missed or held.space in spaces or now - held.seen >= LOOK_SECONDS:
                    repair.changed += self._look(endpoint, own, held, inner)
            repair.reach(endpoint)
        finally:
            os.close(inner)

    def _look(self, endpoint: Endpoint, own: Link, held: Held, inner: int) -> int:
        with interior.socket_inside(self._home, inner) as inside:
            found = _ours(inside, endpoint, own.peer)
            if found is not None and found.alias == endpoint.alias:
                held.seen = time.monotonic()
                return self._configure(inside, found.index, endpoint)
        return self.make(endpoint, inner)

    def _routes(self, repair: Repair, endpoint: Endpoint, own: Link) -> None:
        for value in endpoint.addresses:
            prefix = host_prefix(value)
            at = repair.observed.routes.get(host_route_key(value))
            if at is not None and at.device == own.index:
                continue
            failed = self._netlink.transact([m.device_route(own.index, prefix)])
            if failed and observe.route_index(self._netlink, value) != own.index:
                raise ApplyError(endpoint.workload, "add the host route of", failed[0])
            repair.changed += 1


def _ours(inside: Netlink, endpoint: Endpoint, parent: int) -> Shown | None:
    """The workload's slave, perhaps not complete yet, in the namespace of `inside`."""
    for data in inside.dump(m.dump_links()):
        link = slaves.shown(data)
        if link.kind == "ipvlan" and link.group == LINK_GROUP and parent in (0, link.lower):
            if link.alias == endpoint.alias:
                return link
            if not link.alias and link.name == endpoint.if_name:
                return link
    return None


def differences(inside: Netlink, index: int, endpoint: Endpoint) -> list[interior.Step]:
    """What has to be done to make the inside right, in order."""
    held = observe.one_link(inside, index)
    if held is None:
        raise ApplyError(endpoint.workload, f"find {endpoint.if_name} of", errno.ENODEV)
    steps: list[interior.Step] = []
    loopback = observe.one_link(inside, interior.LOOPBACK)
    if loopback is not None and not loopback.up:
        steps.append(("set up lo in", m.link_up(interior.LOOPBACK)))
    if held.mtu != endpoint.mtu:
        steps.append(("set the MTU in", m.set_mtu(index, endpoint.mtu)))
    if not held.up or held.alias != endpoint.alias:
        steps.append(("set up the link in", slaves.up(index, endpoint.alias)))
    present = observe.addresses(inside, {index})
    for value in endpoint.addresses:
        if (index, value) not in present:
            message = m.address(index, value, add=True, length=value.max_prefixlen, scope=0)
            steps.append(("add an address in", message))
    for family, everywhere in _everywhere(endpoint):
        if everywhere not in observe.routes(inside, family, 0).destinations():
            steps.append(("add the default route in", m.default_on_link(index, family)))
    return steps


def _everywhere(endpoint: Endpoint) -> list[tuple[int, bytes]]:
    """The families that it has, with the destination of the default route of each."""
    versions = sorted({value.version for value in endpoint.addresses})
    every = {4: (m.AF_INET, ip_network("0.0.0.0/0")), 6: (m.AF_INET6, ip_network("::/0"))}
    return [(every[version][0], destination(every[version][1])) for version in versions]
