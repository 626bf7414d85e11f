"""One sync: what was observed against what is desired, and the messages that close the gap.

Every step goes on past what fails and notes it by key; nothing that is right is touched; nothing
foreign is ever replaced (an exclusive create that finds somebody else's route fails with EEXIST
and is reported). Replacing is used only for a route that was just read back as ours.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

from api.resources.errors import ApplyError, Conflict
from api.resources.net import IPAddress, IPNetwork, host_prefix
from routed.kernel import interior, observe
from routed.kernel import messages as m
from routed.kernel.netlink import Netlink
from routed.kernel.netns import identity
from routed.kernel.observe import Link, Observed, Route
from routed.state import BLACKHOLE_METRIC, Endpoint, HostState, LearnedRoute, Report

FORWARD_V4 = Path("/proc/sys/net/ipv4/ip_forward")
FORWARD_V6 = Path("/proc/sys/net/ipv6/conf/all/forwarding")
RTPROT_RA = 9


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
        self._made: dict[str, Endpoint] = {}
        self._lost: set[str] = set()

    def fail(self, key: str, error: ApplyError | Conflict) -> None:
        self.failed[key] = (
            error if isinstance(error, ApplyError) else ApplyError(key, str(error), errno.EEXIST)
        )

    def sysctls(self) -> None:
        """Forwarding, where we may set it; IPv6's not where it would cost the host its own
        default route, which it has from router advertisements (then `accept_ra` would have to
        be 2, which is not ours to set)."""
        if not self.desired.manage_sysctls:
            return
        versions = {a.version for e in self.desired.endpoints.values() for a in e.addresses}
        self._sysctl(FORWARD_V4)
        if 6 not in versions:
            return
        advertised = observe.routes(self.netlink, m.AF_INET6, RTPROT_RA)
        if any(route.prefix.prefixlen == 0 for route in advertised):
            key = f"sysctl {FORWARD_V6}: the default route comes from router advertisements"
            self.failed[key] = ApplyError(key, "set", errno.EPERM)
            return
        self._sysctl(FORWARD_V6)

    def _sysctl(self, path: Path) -> None:
        try:
            if path.read_text(encoding="ascii").strip() == "0":
                path.write_text("1", encoding="ascii")
                self.changed += 1
        except OSError as error:
            self.failed[str(path)] = ApplyError(str(path), "set", error.errno or errno.EIO)

    # -- links ------------------------------

    def _link(self, endpoint: Endpoint) -> Link | None:
        held = self.observed.links.get(endpoint.host_interface)
        return held if held is not None and held.alias == endpoint.alias else None

    def present(self) -> Iterator[tuple[Endpoint, Link]]:
        for endpoint in self.desired.endpoints.values():
            held = self._link(endpoint)
            if held is not None:
                yield endpoint, held

    def lost(self) -> frozenset[str]:
        """Workloads without a link whose namespace is gone: nothing can be made again."""
        for endpoint in self.desired.endpoints.values():
            if self._link(endpoint) is None and not reachable(endpoint):
                self._lost.add(endpoint.workload)
        return frozenset(self._lost)

    def moved(self) -> None:
        """Host routes of ours that lead to another workload than their address belongs to now:
        they would be in the way of the right one."""
        links = {link.index: link.alias for link in self.observed.links.values()}
        owners = {
            host_prefix(address): endpoint.alias
            for endpoint in self.desired.endpoints.values()
            for address in endpoint.addresses
        }
        stale = [
            (prefix, metric, route.hops[0][1])
            for (prefix, metric), route in self.observed.routes.items()
            if route.kind == m.RTN_UNICAST
            and route.hops[0][0] is None
            and prefix in owners
            and links.get(route.hops[0][1]) != owners[prefix]
        ]
        if not stale:
            return
        batch = [m.device_route(index, prefix, add=False) for prefix, _, index in stale]
        failed = self.netlink.transact(batch)
        self.changed += len(batch) - len(failed)
        for place, (prefix, metric, _) in enumerate(stale):
            if place not in failed:
                del self.observed.routes[(prefix, metric)]

    def missing(self) -> list[Endpoint]:
        return [
            endpoint
            for endpoint in self.desired.endpoints.values()
            if self._link(endpoint) is None and endpoint.workload not in self._lost
        ]

    def made(self, endpoint: Endpoint) -> None:
        self.changed += 1
        self._made[endpoint.workload] = endpoint
        self._ready[endpoint.workload] = endpoint.addresses

    def host_sides(self) -> None:
        """Link up, gateway addresses, neighbours, host routes of every link that is there."""
        for endpoint, link in self.present():
            if endpoint.workload in self._made:
                continue
            changes = self._host_changes(endpoint, link)
            if changes:
                failed = self.netlink.transact(changes)
                self.changed += len(changes) - len(failed)
                for number in failed.values():
                    self.fail(
                        endpoint.workload,
                        ApplyError(endpoint.workload, "configure the host side of", number),
                    )
            if endpoint.workload not in self.failed:
                self._ready[endpoint.workload] = endpoint.addresses

    def _host_changes(self, endpoint: Endpoint, link: Link) -> list[bytearray]:
        index = link.index
        changes = [] if link.up else [m.host_link_up(index, endpoint.alias)]
        for gateway in interior.gateways(endpoint.addresses):
            if (index, gateway) not in self.observed.addresses:
                length = 32 if gateway.version == 4 else 64
                scope = m.RT_SCOPE_LINK
                changes.append(m.address(index, gateway, add=True, length=length, scope=scope))
        for value in endpoint.addresses:
            if self.observed.neighbours.get((index, value)) != endpoint.mac:
                changes.append(m.neighbour(index, value, endpoint.mac))
            if not self._on_device(host_prefix(value), index):
                changes.append(m.device_route(index, host_prefix(value)))
        return changes

    def _on_device(self, prefix: IPNetwork, index: int) -> bool:
        metric = 0 if prefix.version == 4 else 1024
        held = self.observed.routes.get((prefix, metric))
        return held is not None and held.hops == ((None, index),)

    # -- routes ------------------------------

    def blackholes(self) -> None:
        for prefix in self.desired.blackholes:
            held = self.observed.routes.get((prefix, BLACKHOLE_METRIC))
            if held is None or held.kind != m.RTN_BLACKHOLE:
                failed = self.netlink.transact([m.blackhole(prefix)])
                if failed:
                    key = f"blackhole {prefix}"
                    self.failed[key] = ApplyError(key, "add", failed[0])
                    continue
                self.changed += 1
            self._routed.add(prefix)

    def learned(self) -> None:
        """Routes learned by BGP, in batches; one that fails leaves the others."""
        batch: list[bytearray] = []
        keys: list[IPNetwork] = []
        for prefix, route in self.desired.learned.items():
            held = self.observed.routes.get((prefix, route.metric))
            if held is not None and _same(held, route):
                self._routed.add(prefix)
                continue
            hops = [(hop, 0) for hop in route.next_hops]
            batch.append(m.learned_route(prefix, hops, route.metric, replace=held is not None))
            keys.append(prefix)
        if not batch:
            return
        failed = self.netlink.transact(batch)
        self.changed += len(batch) - len(failed)
        for place, prefix in enumerate(keys):
            if place in failed:
                key = f"route {prefix}"
                self.failed[key] = ApplyError(key, "add", failed[place], transient=True)
            else:
                self._routed.add(prefix)

    # -- what nobody wants any more ------------------------------

    def sweep(self) -> int:
        """Remove what is ours and not desired; the number of links on their way out."""
        wanted = {endpoint.host_interface for endpoint in self.desired.endpoints.values()}
        batch = [
            m.to_reap(link.index)
            for name, link in self.observed.links.items()
            if name not in wanted
        ]
        links = len(batch)
        hosts = {host_prefix(a) for e in self.desired.endpoints.values() for a in e.addresses}
        for (prefix, metric), route in self.observed.routes.items():
            if route.kind == m.RTN_BLACKHOLE:
                if prefix not in self.desired.blackholes:
                    batch.append(m.blackhole(prefix, add=False))
            elif any(gateway is not None for gateway, _ in route.hops):
                held = self.desired.learned.get(prefix)
                stale = held is None or held.metric != metric
                if stale and self.desired.sweep_learned:
                    batch.append(m.delete_learned(prefix, metric))
            elif prefix not in hosts:
                batch.append(m.device_route(route.hops[0][1], prefix, add=False))
        if batch:
            failed = self.netlink.transact(batch)
            self.changed += len(batch) - len(failed)
            for number in failed.values():
                if number not in (errno.ENODEV, errno.ESRCH, errno.ENOENT):
                    self.failed["sweep"] = ApplyError("orphans", "sweep", number)
        return links

    # -- the end ------------------------------

    def known(self) -> dict[str, tuple[int, tuple[IPAddress, ...]]]:
        """(index, addresses) of every endpoint whose link is there, for fast detaches."""
        found = {e.workload: (link.index, e.addresses) for e, link in self.present()}
        for workload, endpoint in self._made.items():
            link = observe.one_link(self.netlink, endpoint.host_interface)
            if link is not None:
                found[workload] = (link.index, endpoint.addresses)
        return found

    def report(self, lost: frozenset[str]) -> Report:
        ready = {name: held for name, held in self._ready.items() if name not in self.failed}
        return Report(
            ready=ready,
            routed=frozenset(self._routed),
            failed=self.failed,
            changed=self.changed,
            lost=lost,
        )


def reachable(endpoint: Endpoint) -> bool:
    """Whether the namespace is still where it was: the same one, not another of that name."""
    if endpoint.netns is None:
        return False
    found = identity(endpoint.netns)
    return found is not None and endpoint.netns_id in (None, found)


def _same(held: Route, wanted: LearnedRoute) -> bool:
    return held.kind == m.RTN_UNICAST and [gateway for gateway, _ in held.hops] == [
        hop.gateway for hop in wanted.next_hops
    ]
