"""Modes without a link to the workload: `none`, whose namespace has its loopback and nothing else,
and `host`, which is in the host's own namespace and may have addresses there.

The addresses of `host` are on a link of their own, marked as every link of ours: so that they go
with it, and its end is heard of by the speaker too. It carries no packet (a dummy, or a bridge
without ports where the kernel has no dummy).
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable

from api.resources.errors import ApplyError
from api.resources.net import IPAddress
from api.resources.workload import Mode
from routed.kernel import interior, netns, observe, slaves, spaces
from routed.kernel import messages as m
from routed.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Netlink,
    attr,
    attr_text,
    message,
    nested,
)
from routed.kernel.repair import Repair, reachable
from routed.state import LINK_GROUP, Endpoint

LOOK_SECONDS = 30.0  # between visits
CARRIERS = (b"dummy", b"bridge")


class Bare:
    """`none`."""

    def __init__(self, netlink: Netlink, home: int) -> None:
        self._netlink = netlink
        self._home = home
        self._seen: dict[str, tuple[float, int | None]] = {}

    def spaces(self) -> dict[str, int]:
        return {name: space for name, (_, space) in self._seen.items() if space is not None}

    def space(self, workload: str) -> int | None:
        _, space = self._seen.get(workload, (0.0, None))
        return space

    def make(self, endpoint: Endpoint, inner: int | None) -> int:
        assert inner is not None  # the request was checked
        with interior.socket_inside(self._home, inner) as inside:
            loopback = observe.one_link(inside, interior.LOOPBACK)
            down = loopback is None or not loopback.up
            failed = inside.transact([m.link_up(interior.LOOPBACK)]) if down else {}
        if failed:
            raise ApplyError(f"{endpoint.workload} ({endpoint.netns})", "set up lo in", failed[0])
        space = spaces.numbered(self._netlink, inner)
        self._seen[endpoint.workload] = (time.monotonic(), space)
        return int(down)

    def sync(self, repair: Repair, spaces: set[int], missed: bool) -> None:
        wanted = _of(repair, Mode.NONE)
        names = {endpoint.workload for endpoint in wanted}
        self._seen = {name: seen for name, seen in self._seen.items() if name in names}
        for endpoint in wanted:
            if not reachable(endpoint):
                repair.lose(endpoint)
                continue
            seen, _ = self._seen.get(endpoint.workload, (0.0, None))
            if missed or not seen or time.monotonic() - seen >= LOOK_SECONDS:
                try:
                    with netns.opened(str(endpoint.netns), endpoint.netns_id) as inner:
                        repair.changed += self.make(endpoint, inner)
                except (ApplyError, OSError) as error:
                    repair.fail(endpoint.workload, error)
                    continue
            repair.reach(endpoint)

    def remove(self, endpoint: Endpoint) -> None:
        self._seen.pop(endpoint.workload, None)


class OnHost:
    """`host`; `index` gives interface indexes that are free."""

    def spaces(self) -> dict[str, int]:
        return {}

    def space(self, workload: str) -> int | None:
        return None

    def __init__(self, netlink: Netlink, index: Callable[[], int]) -> None:
        self._netlink = netlink
        self._index = index

    def make(self, endpoint: Endpoint, inner: int | None) -> int:
        if not endpoint.addresses:
            return 0
        name = endpoint.host_interface
        held = observe.one_link(self._netlink, name)
        ours = held is not None and held.group in observe.OUR_GROUPS
        if held is not None and not ours:
            raise observe.not_ours(endpoint.workload, name)
        if held is not None and (held.group, held.alias) != (LINK_GROUP, endpoint.alias):
            self._netlink.transact([m.delete_link(held.index)])  # on its way out, or incomplete
            held = None
        index = held.index if held is not None else self._create(endpoint)
        try:
            return self._complete(endpoint, index, made=held is None)
        except BaseException:
            if held is None:
                self._netlink.transact([m.delete_link(index)])
            raise

    def _create(self, endpoint: Endpoint) -> int:
        number = errno.EOPNOTSUPP
        for kind in CARRIERS:
            index = self._index()
            body = m.IFINFO.pack(0, 0, index, 0, 0) + m.GROUP
            body += attr_text(m.IFLA_IFNAME, endpoint.host_interface)
            body += nested(m.IFLA_LINKINFO, attr(m.IFLA_INFO_KIND, kind))
            request = message(m.RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)
            failed = self._netlink.transact([request])
            if not failed:
                return index
            number = failed[0]
            if number != errno.EOPNOTSUPP:
                break
        raise ApplyError(endpoint.workload, "make the link of", number)

    def _complete(self, endpoint: Endpoint, index: int, *, made: bool) -> int:
        held = observe.addresses(self._netlink, {index})
        link = observe.one_link(self._netlink, index)
        batch = [m.no_link_local(index)] if made else []
        optional = len(batch)  # refused where there is no IPv6
        if link is None or not link.up or link.alias != endpoint.alias:
            batch.append(slaves.up(index, endpoint.alias))
        batch += [_put(index, a) for a in endpoint.addresses if (index, a) not in held]
        for _, stray in held - {(index, address) for address in endpoint.addresses}:
            batch.append(m.address(index, stray, add=False, length=stray.max_prefixlen, scope=0))
        for place, number in self._netlink.transact(batch).items():
            if place >= optional:
                raise ApplyError(endpoint.workload, "configure the link of", number)
        held = observe.addresses(self._netlink, {index})
        for address in endpoint.addresses:
            if (index, address) not in held:
                raise ApplyError(f"{endpoint.workload} {address}", "read back", errno.ENODEV)
        return len(batch)

    def sync(self, repair: Repair, spaces: set[int], missed: bool) -> None:
        for endpoint in _of(repair, Mode.HOST):
            link = repair.observed.links.get(endpoint.host_interface)
            if link is not None and link.alias == endpoint.alias and link.up:
                held = {a for index, a in repair.observed.addresses if index == link.index}
                if held == set(endpoint.addresses):
                    repair.reach(endpoint)
                    continue
            try:
                repair.changed += self.make(endpoint, None)
            except (ApplyError, OSError) as error:
                repair.fail(endpoint.workload, error)
            else:
                repair.reach(endpoint)

    def remove(self, endpoint: Endpoint) -> None:
        held = observe.one_link(self._netlink, endpoint.host_interface)
        if held is None or (held.group, held.alias) != (LINK_GROUP, endpoint.alias):
            return
        for number in self._netlink.transact([m.delete_link(held.index)]).values():
            if number != errno.ENODEV:
                raise ApplyError(endpoint.workload, "detach", number)


def _put(index: int, address: IPAddress) -> bytearray:
    return m.address(index, address, add=True, length=address.max_prefixlen, scope=0)


def _of(repair: Repair, mode: Mode) -> list[Endpoint]:
    return [one for one in repair.desired.endpoints.values() if one.mode is mode]
