"""The parents of ipvlan slaves: the host's own slave on each, its mode, and who is in the way."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable

from api.resources.errors import ApplyError, Cause, Conflict, IntentError, Invalid
from routed.kernel import messages as m
from routed.kernel import observe, slaves
from routed.kernel.netlink import Netlink
from routed.kernel.observe import Link
from routed.kernel.repair import Repair
from routed.kernel.slaves import Shown
from routed.state import (
    ALIAS_PREFIX,
    REAP_GROUP,
    REAPING_GROUP,
    SLAVE_GROUP,
    Endpoint,
    slave_name,
)


class Parents:
    """`index` gives interface indexes that are free on the host."""

    def __init__(self, netlink: Netlink, index: Callable[[], int]) -> None:
        self._netlink = netlink
        self._index = index

    def own_slave(self, endpoint: Endpoint, *, carries: bool) -> tuple[Link, bool]:
        """The host's slave of the endpoint's parent, and whether it was made just now. `carries`:
        it has slaves of workloads of another mode, whatever routes lead to them."""
        parent = self._parent(endpoint)
        name = slave_name(parent.name)
        held = observe.one_link(self._netlink, name)
        if held is not None and held.group in (REAP_GROUP, REAPING_GROUP):  # swept just now
            self._netlink.transact([m.delete_link(held.index)])
            held = None
        if held is not None and held.group != SLAVE_GROUP:
            raise observe.not_ours(endpoint.workload, name)
        if held is not None and held.alias != endpoint.route_alias:
            if carries or self._used(held):
                has = held.alias.removeprefix(ALIAS_PREFIX).split(" ")[0]
                said = f"{parent.name} carries workloads of mode {has or 'another mode'}"
                raise self._refused(
                    endpoint, said, f"{has}, another link as ipvlanParent, or mode veth"
                )
            self._netlink.transact([m.delete_link(held.index)])
            held = None
        if held is not None:
            if not held.up:
                failed = self._netlink.transact([slaves.up(held.index, endpoint.route_alias)])
                if failed:
                    raise ApplyError(endpoint.workload, f"set up {name} for", failed[0])
            return held, False
        links = [slaves.shown(data) for data in self._netlink.dump(m.dump_links())]
        said, remedy = slaves.why_not(parent, endpoint.mode, 0, links)
        if said:
            raise self._refused(endpoint, said, remedy)
        index = self._index()
        made = slaves.make_own(parent.name, parent.index, index, endpoint.mode)
        failed = self._netlink.transact([made])
        if failed:
            said, remedy = slaves.why_not(parent, endpoint.mode, failed[0], links)
            if not said:
                raise ApplyError(endpoint.workload, f"make {name}, a slave of {parent.name}, for",
                                 failed[0])  # fmt: skip
            raise self._refused(endpoint, said, remedy, lacking=failed[0] == errno.EOPNOTSUPP)
        self._netlink.transact([m.no_link_local(index)])  # refused where there is no IPv6
        failed = self._netlink.transact([slaves.up(index, endpoint.route_alias)])
        found = observe.one_link(self._netlink, name)
        if failed or found is None:
            self._netlink.transact([m.delete_link(index)])
            number = failed.get(0, errno.ENODEV)
            raise ApplyError(endpoint.workload, f"set up {name}, a slave of {parent.name}, for",
                             number)  # fmt: skip
        return found, True

    def _parent(self, endpoint: Endpoint) -> Shown:
        try:
            data = self._netlink.get(m.get_link(endpoint.parent))
        except OSError:
            data = None
        if data is None:
            said = f"there is no link {endpoint.parent} on this host"
            raise self._refused(endpoint, said, "another link as ipvlanParent", lacking=True)
        return slaves.shown(data)

    def _refused(
        self, endpoint: Endpoint, said: str, remedy: str, *, lacking: bool = False
    ) -> IntentError:
        """`lacking`: the host does not have what is asked for, else somebody is in the way."""
        kind = Invalid if lacking else Conflict
        return kind(
            f"cannot attach {endpoint.workload} by {endpoint.mode}: {said}; use {remedy}",
            causes=[Cause("mode", said)],
        )

    def _used(self, own: Link) -> bool:
        """Whether a host route of ours leads over it."""
        return any(
            shape.device == own.index
            for family in (m.AF_INET, m.AF_INET6)
            for shape in observe.routes(self._netlink, family).local.values()
        )

    def restore(self, repair: Repair, wanted: Iterable[Endpoint]) -> None:
        """The mode and flags that somebody else has changed."""
        modes = {endpoint.parent: endpoint.mode for endpoint in wanted}
        for parent, mode in modes.items():
            own = repair.observed.slaves.get(slave_name(parent))
            if own is None:
                continue
            _, has, flags = slaves.kind_of(own.info)
            if (has, flags) == (slaves.IPVLAN_MODES[mode], 0):
                continue
            failed = self._netlink.transact([slaves.set_mode(own.index, mode)])
            if failed:
                key = f"parent {parent}"
                repair.fail(key, ApplyError(key, f"restore mode {mode} of", failed[0]))
            else:
                said = slaves.MODE_NAMES.get(has, str(has)) + (f" flags {flags}" if flags else "")
                repair.restored[parent] = said
                repair.changed += 1
