"""Learned routes: what one sync does about them and about the next hop objects they use.

Two steps. `leave` is the first of a sync, before anything is read but a few next hop objects: a
gateway that no desired route uses any more goes, out of all routes at once (failover). `Learned`
comes last and makes the rest right: it says which gateways are usable, lets `nexthops.arrange`
decide, and does what that says, going on past what fails.

A gateway without a link in intent is looked up: only one that is a neighbour can be a next hop. One
that is no neighbour any more stays in use if it has an object, as it would stay in a route. A next
hop over a link without carrier is not there at all: the kernel has deleted it, with the routes that
had no other, and brings nothing back when the carrier returns. We do: the link's event wakes us.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import chain

from api.resources.errors import ApplyError
from api.resources.net import IPNetwork
from routed.kernel import batches, fib, nexthops, observe
from routed.kernel import messages as m
from routed.kernel.netlink import Netlink
from routed.kernel.observe import Observed
from routed.state import ROUTE_PROTOCOL, HostState, NextHop

BULK = 1000  # routes; more are changed without hearing of each

Quiet = Callable[[], AbstractContextManager[None]]


def leave(netlink: Netlink, desired: HostState) -> int:
    """Stop using the gateways that no desired route uses; the number of changes made."""
    if not (desired.sweep and desired.sweep_learned):
        return 0
    gone = nexthops.unwanted(observe.next_hops(netlink), desired.learned.values())
    refused = netlink.transact([m.delete_next_hop(number) for number in gone])
    return len(gone) - len(refused)


class Learned:
    """One sync of the learned routes; `routed`, `failed` and `changed` as in a Report."""

    def __init__(self, netlink: Netlink, observed: Observed, desired: HostState) -> None:
        self.netlink = netlink
        self.observed = observed
        self.desired = desired
        self.sweep = desired.sweep and desired.sweep_learned
        self.changed = 0
        self.failed: dict[str, ApplyError] = {}
        self._missing: set[fib.Key] = set()  # of desired routes: those not in the kernel
        self._unusable: dict[NextHop, int] = {}

    def sync(self, quiet: Quiet) -> None:
        """`quiet` is where many changes are made without hearing of them."""
        held = self.observed.learned
        cells = fib.cells(self.desired.learned.values(), held)
        surplus = fib.surplus(cells, held)
        shapes = (held[level][one] for level, some in surplus.items() for one in some)
        kept = set() if self.sweep else {shape.group for shape in shapes}
        todo = self._arranged(cells, kept)
        if self.sweep:
            for cell in todo.nowhere:
                if cell.shape is not None:
                    surplus.setdefault(cell.level, []).extend(cell.addresses)
        else:
            surplus, todo.idle_groups, todo.idle_hops = {}, [], []
        touched = {cell for _, cell in chain(todo.move, todo.add)}
        touched |= {cell for cell in cells if cell.shape and cell.shape.group in todo.change}
        many = sum(len(cell.addresses) for cell in touched) + sum(map(len, surplus.values()))
        with quiet() if many > BULK else contextlib.nullcontext():
            self._write(todo, surplus)
        for cell in todo.nowhere:
            self._missing.update((cell.level, address) for address in cell.addresses)
        self._tell_unusable(todo)

    @property
    def routed(self) -> set[IPNetwork]:
        """The desired prefixes that are in the kernel."""
        learned = self.desired.learned
        if not self._missing:
            return set(learned)
        return {
            prefix
            for prefix, one in learned.items()
            if (one.level, one.address) not in self._missing
        }

    # -- next hops ------------------------------

    def _arranged(self, cells: list[fib.Cell], kept: set[int]) -> nexthops.Arrangement:
        """What to do, once every next hop object that it takes is there."""
        usable = self._usable({hop for cell in cells for hop in cell.hops})
        objects = self.observed.objects
        while True:
            todo = nexthops.arrange(cells, objects, usable, kept, sweep=self.sweep)
            wanted = list(todo.hops.items())
            refused = self.netlink.transact([m.next_hop(number, *hop) for number, hop in wanted])
            for place, (number, hop) in enumerate(wanted):
                why = refused.get(place)
                objects.taken.add(number)
                if why is None:
                    objects.hops[number] = hop
                    self.changed += 1
                elif why != errno.EEXIST:  # else somebody has just taken the id
                    for known in [known for known, way in usable.items() if way == hop]:
                        self._unusable[known] = why
                        del usable[known]
            if not refused:
                return todo

    def _usable(self, hops: Iterable[NextHop]) -> dict[NextHop, fib.Hop]:
        links = self.observed.links_by_index()
        names = {link.name: link.index for link in links.values()}
        found = {}
        for hop in hops:
            try:
                index = self._link_to(hop, names)
            except OSError as error:
                self._unusable[hop] = error.errno or errno.EIO
                continue
            link = links.get(index)
            if link is None or not link.up or not link.carrier:
                self._unusable[hop] = errno.ENODEV if link is None else errno.ENETDOWN
                continue
            found[hop] = (hop.gateway.packed, index)
        return found

    def _link_to(self, hop: NextHop, names: dict[str, int]) -> int:
        if hop.interface is not None:
            if hop.interface not in names:
                raise OSError(errno.ENODEV, hop.interface)
            return names[hop.interface]
        try:
            return observe.on_link(self.netlink, hop.gateway)
        except OSError:
            held = self.observed.objects.hops.values()
            for gateway, index in sorted(held):
                if gateway == hop.gateway.packed:
                    return index
            raise

    def _tell_unusable(self, todo: nexthops.Arrangement) -> None:
        """A next hop behind a link without carrier is no failure while all its routes have
        another: the link's event will bring it back."""
        alone = {hop for cell in todo.nowhere for hop in cell.hops}
        for hop, why in self._unusable.items():
            if why != errno.ENETDOWN or hop in alone:
                key = f"next hop {hop}"
                self.failed[key] = ApplyError(key, "use", why, transient=True)

    # -- routes ------------------------------

    def _write(self, todo: nexthops.Arrangement, surplus: dict[bytes, list[bytes]]) -> None:
        self._groups(todo.groups, replace=False)
        twins = self._foreign_twins() if todo.move else frozenset()
        whole = True
        for group, cell in todo.move:
            moved = cell.addresses
            clashing = [one for one in moved if (cell.level, one) in twins] if twins else []
            if clashing:  # a replacing request might hit the foreign one
                whole = False
                surplus.setdefault(cell.level, []).extend(clashing)
                moved = [one for one in moved if (cell.level, one) not in twins]
                for one in clashing:
                    self._refused(cell.level, one, errno.EEXIST)
            asked = batches.over_group(group, cell.level, moved, replace=True)
            whole &= self._routes(group, asked)
        whole &= self._groups(todo.change, replace=True)
        for group, cell in todo.add:
            asked = batches.over_group(group, cell.level, cell.addresses, replace=False)
            self._routes(group, asked)
        if not whole:  # something may still use them
            todo.idle_groups, todo.idle_hops = [], []
        for level, some in surplus.items():
            self._remove(level, some, frozenset(todo.idle_groups))
        idle = todo.idle_groups + todo.idle_hops
        refused = self.netlink.transact([m.delete_next_hop(number) for number in idle])
        self.changed += len(idle) - len(refused)

    def _groups(self, groups: dict[int, tuple[int, ...]], *, replace: bool) -> bool:
        """Whether all are as they should be."""
        asked = list(groups.items())
        refused = self.netlink.transact(
            [m.next_hop_group(number, members, replace=replace) for number, members in asked]
        )
        self.changed += len(asked) - len(refused)
        for place, why in refused.items():
            key = f"next hop group {asked[place][0]}"
            self.failed[key] = ApplyError(key, "change" if replace else "make", why, transient=True)
        return not refused

    def _routes(self, group: int, asked: Iterator[batches.Batch]) -> bool:
        """Whether none was refused."""
        whole = True
        for batch in asked:
            refused = self.netlink.transact_numbered(batch.requests)
            self.changed += len(batch.addresses) - len(refused)
            whole &= not refused
            for place, why in refused.items():
                if why != errno.EINVAL:
                    self._refused(batch.level, batch.addresses[place], why)
                    continue
                self._missing.add((batch.level, batch.addresses[place]))
                key = f"next hop group {group}"  # it has gone meanwhile, perhaps with its last link
                self.failed[key] = ApplyError(key, "use", why, transient=True)
        return whole

    def _refused(self, level: bytes, address: bytes, why: int) -> None:
        self._missing.add((level, address))
        key = f"route {fib.network(level, address)}"
        self.failed[key] = ApplyError(key, "add", why, transient=True)

    def _remove(self, level: bytes, addresses: list[bytes], idle: frozenset[int]) -> None:
        """One by one, but for those of groups that will be deleted and take theirs along."""
        held = self.observed.learned[level]
        left = [one for one in addresses if held[one].group not in idle]
        for batch in batches.without(level, left):
            refused = self.netlink.transact_numbered(batch.requests)
            self.changed += len(batch.addresses) - len(refused)
            for why in refused.values():
                if why not in (errno.ESRCH, errno.ENOENT):
                    key = "sweep of learned routes"
                    self.failed[key] = ApplyError(key, "finish the", why)

    def _foreign_twins(self) -> set[fib.Key] | frozenset[fib.Key]:
        """The keys of foreign routes."""
        found: set[fib.Key] = set()
        for family in (m.AF_INET, m.AF_INET6):
            dumped = self.netlink.dump(m.dump_routes(family, 0))
            found.update(fib.key_of(data) for data in dumped if data[5] != ROUTE_PROTOCOL)
        return found
