"""A kernel that is only text: the same `Kernel`, for tests of everything above it.

Its whole state is lines such as `ip` would print, of the host (`host`) and of each namespace
(`inside`), so that expectations read like shell. It keeps what callers may rely on, and the suite
that checks it (tests/kernel/test_kernel_contract.py) runs against the real kernel too:

- a link that goes takes along what is on it; one set down loses its routes and neighbours;
- a link that loses its carrier leaves the learned routes, which go with their last next hop;
- a foreign route of the same prefix and metric is refused with EEXIST, never replaced;
- an attach is whole or leaves nothing; a namespace that vanishes takes its links along.

What tests do to it besides `Kernel` are the methods from `add_namespace` on, and `refuse`.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network

from api.resources.errors import ApplyError, Cause, Conflict, IntentError, Invalid
from api.resources.net import IPAddress, IPNetwork, host_prefix
from api.resources.workload import OUTSIDE, Mode
from routed.kernel import fake_ipvlan as ipvlan
from routed.kernel import fake_modes, fake_reach, lines
from routed.kernel.netns import Namespace
from routed.kernel.removals import Removal
from routed.kernel.seam import name_taken
from routed.state import (
    ALIAS_PREFIX,
    LINK_GROUP,
    SLAVE_GROUP,
    Endpoint,
    HostState,
    Report,
    host_interface_name,
)


class FakeKernel:
    """`refuse` maps a key (a workload, ``route P``, ``blackhole P``) to the errno it fails with."""

    overflows = 0
    removals: Sequence[Removal] = ()

    def __init__(self) -> None:
        self.host: set[str] = {
            "link lo up",
            "link up0 mtu 1500 up",
            "address 192.0.2.1/24 dev up0",
            "address 2001:db8:1::1/64 dev up0",
            "link up1 mtu 1500 up",
            "address 198.51.100.1/24 dev up1",
            "address 2001:db8:2::1/64 dev up1",
        }
        self.inside: dict[str, set[str]] = {}
        self.refuse: dict[str, int] = {}
        self._identities: dict[str, tuple[int, int]] = {}
        self._made = 0
        self._woken = asyncio.Event()

    def __str__(self) -> str:
        lines = sorted(self.host)
        for name, held in sorted(self.inside.items()):
            lines += [f"netns {name}: {line}" for line in sorted(held)]
        return "\n".join(lines)

    # -- Kernel --------------------------------------------------------------------------------

    async def sync(self, desired: HostState) -> Report:
        changed = 0
        failed: dict[str, ApplyError] = {}
        lost: set[str] = set()
        ready: dict[str, tuple[IPAddress, ...]] = {}
        restored: dict[str, str] = {}
        if desired.sweep:
            changed += self._sweep(desired)
        for endpoint in desired.endpoints.values():
            key = endpoint.workload
            held = lines.link(endpoint) in {lines.as_up(line) for line in self.host}
            if not held and not self.there(endpoint) and endpoint.mode not in OUTSIDE:
                lost.add(key)
                if endpoint.parent:
                    fake_modes.drop_slave(self, endpoint)
                continue
            try:
                if endpoint.parent:
                    restored |= fake_modes.restore(self, endpoint)
                changed += self._put(endpoint)
                ready[key] = endpoint.addresses
            except ApplyError as error:
                failed[key] = error
            except IntentError as error:
                failed[key] = ApplyError(key, str(error), errno.EEXIST)
        routed: set[IPNetwork] = set()
        wanted = {f"blackhole {prefix}": lines.blackhole(prefix) for prefix in desired.blackholes}
        routes, unusable = lines.routes(self.host, desired.learned.values())
        wanted |= routes
        for hop, why in unusable.items():
            failed[f"next hop {hop}"] = ApplyError(f"next hop {hop}", "use", why, transient=True)
        for key, line in wanted.items():
            try:
                changed += self.add_route(key, line)
                routed.add(ip_network(key.split()[1]))
            except ApplyError as error:
                failed[key] = error
        changed += len(restored)
        if changed:
            self._woken.set()
        spaces = {name: space for name in ready if (space := self.space(name)) is not None}
        return Report(ready, frozenset(routed), failed, changed, frozenset(lost), restored, spaces)

    async def attach(self, endpoint: Endpoint) -> None:
        host = set(self.host)
        inside = {name: set(held) for name, held in self.inside.items()}
        try:
            if not self.there(endpoint) and endpoint.netns is not None:
                raise ApplyError(endpoint.workload, "open the namespace of", errno.ENOENT)
            self._put(endpoint)
        except (ApplyError, IntentError):
            self.host, self.inside = host, inside
            raise
        self._woken.set()

    async def detach(
        self, workloads: Sequence[str], known: Mapping[str, Endpoint] | None = None
    ) -> None:
        for workload in workloads:
            endpoint = (known or {}).get(workload)
            if endpoint is not None and endpoint.parent:
                fake_modes.drop_slave(self, endpoint)
                continue
            name = host_interface_name(workload)
            if any(f"alias {ALIAS_PREFIX}{workload} " in line for line in self.host):
                self._drop_link(name)
            if endpoint is not None and endpoint.netns is not None:
                held = self.inside.get(lines.netns_name(endpoint.netns), set())
                held -= {line for line in lines.interior(endpoint) if line.startswith("rule ")}

    def space(self, workload: str) -> int | None:
        """The number of its namespace, in the order in which they were made."""
        mine = f" alias {ALIAS_PREFIX}{workload} "
        for name, held in self.inside.items():
            if any(" ipvlan on " in line and mine in line for line in held):
                return self._identities[name][1] - 1000
        return None

    def forget(self, addresses: Iterable[IPAddress]) -> None:
        """At once: nobody can tell the difference."""
        named = {str(address) for address in addresses}
        self.host = {
            line
            for line in self.host
            if not line.startswith("flow ") or named.isdisjoint(line.split()[1:])
        }

    def forget_unseen(self, addresses: Iterable[IPAddress]) -> None:
        """It filters nothing, so nothing was ever open."""

    def forget_ports(self, ports: Iterable[int]) -> None:
        """It does not translate, so nothing is in the way."""

    def check_netns(self, name_or_path: str) -> Namespace:
        name = name_or_path.removeprefix("/run/netns/")
        if name not in self.inside:
            why = f"{name_or_path!r} is no network namespace"
            raise Invalid(f"cannot use netns {why}", causes=[Cause("spec.netns", why)])
        return Namespace(f"/run/netns/{name}", self._identities[name])

    def parent(self, asked: str) -> str:
        return asked or "up0"

    def uplinks(self) -> Sequence[str]:
        return ("up0", "up1")

    def listener(self, protocol: str, port: int, host_ip: IPAddress | None) -> IPAddress | None:
        for line in self.host:
            if line.startswith(f"socket {protocol} "):
                address, number = line.split()[2:]
                bound = ip_address(address)
                near = host_ip is None or bound.is_unspecified or bound == host_ip
                if int(number) == port and near and not bound.is_loopback:
                    return bound
        return None

    def uplink_mtu(self) -> int:
        return 1500

    async def watch(self) -> AsyncIterator[None]:
        while True:
            await self._woken.wait()
            self._woken.clear()
            yield

    async def close(self) -> None:
        pass

    # -- what tests do to it -------------------------------------------------------------------

    def add_namespace(self, name: str) -> None:
        self._made += 1
        self.inside[name] = set()
        self._identities[name] = (4, 1000 + self._made)

    def delete_namespace(self, name: str) -> None:
        for line in self.inside.pop(name):
            if line.startswith("link ") and " peer " in line:
                self._drop_link(line.partition(" peer ")[2].split()[0])
        self._woken.set()

    def remove(self, part: str, netns: str | None = None) -> None:
        """Take away every line that contains `part`."""
        held = self.host if netns is None else self.inside[netns]
        gone = {line for line in held if part in line}
        assert gone, f"there is no {part!r} in:\n{self}"
        held -= gone
        self._woken.set()

    def add(self, line: str, netns: str | None = None) -> None:
        """Somebody else's link or route."""
        (self.host if netns is None else self.inside[netns]).add(line)
        self._woken.set()

    def set_carrier(self, name: str, *, on: bool) -> None:
        """The far end of an uplink goes, or comes back."""
        for line in list(self.host):
            if line.startswith(f"link {name} "):
                self.host.discard(line)
                self.host.add(" ".join([*line.split()[:-1], "up" if on else "no-carrier"]))
        if not on:
            self.host = lines.without_hops(self.host, name)
        self._woken.set()

    def flush_next_hops(self) -> None:
        """Somebody deletes our next hop objects, and with them the routes over them."""
        self.remove(" nexthop via ")

    def set_down(self, name: str, netns: str | None = None) -> None:
        """Set a link down: routes and permanent neighbours on it vanish, addresses stay."""
        self.host = lines.without_hops(self.host, name) if netns is None else self.host
        held = self.host if netns is None else self.inside[netns]
        for line in list(held):
            if line.startswith(f"link {name} ") and line.endswith(" up"):
                held.discard(line)
                held.add(line.removesuffix(" up") + " down")
            elif not line.startswith(("address ", "limit ")) and lines.is_on(line, name):
                held.discard(line)
        self._woken.set()

    def delete_link(self, name: str) -> None:
        self._drop_link(name)
        self._woken.set()

    def flip(self, parent: str, mode: str) -> None:
        """Somebody's slave puts an ipvlan parent into another mode."""
        self.host = ipvlan.flipped(self.host, parent, mode)
        self._woken.set()

    def mode(self, parent: str) -> str:
        """The mode that an ipvlan parent is in."""
        return ipvlan.mode_of(ipvlan.own_slave(self.host, parent))

    def host_reaches(self, address: str) -> bool:
        """Whether a ping from the host itself would be answered."""
        return fake_reach.from_host(self.host, self.inside, address)

    def reaches(self, netns: str, address: str) -> bool:
        """Whether a ping from inside `netns` would be answered."""
        return fake_reach.from_inside(self.host, self.inside, netns, address)

    # -- the parts of a workload ---------------------------------------------------------------

    def _put(self, endpoint: Endpoint) -> int:
        """Add what is missing; the number of changes."""
        if endpoint.workload in self.refuse:
            raise ApplyError(endpoint.workload, "make the link of", self.refuse[endpoint.workload])
        if endpoint.parent:
            return fake_modes.put_slave(self, endpoint)
        if endpoint.mode is Mode.NONE:
            held = self.inside[lines.netns_name(str(endpoint.netns))]
            count = int("link lo up" not in held)
            held.add("link lo up")
            return count
        if endpoint.mode is Mode.HOST:
            return fake_modes.put_on_host(self, endpoint)
        before = set(self.host)
        count = 0
        name = endpoint.host_interface
        made = lines.link(endpoint) not in {lines.as_up(line) for line in self.host}
        if made and endpoint.netns is not None:
            held = self.inside[lines.netns_name(endpoint.netns)]
            if any(line.startswith(f"link {endpoint.if_name} ") for line in held):
                raise name_taken(endpoint)
            if said := lines.taken(endpoint, held):
                raise Conflict(
                    f"cannot attach {endpoint.workload}: {said}", causes=[Cause("netns", said)]
                )
        if made and any(line.startswith(f"link {name} ") for line in self.host):
            raise ApplyError(endpoint.workload, f"make {name} of", errno.EEXIST)
        self.host.discard(lines.link(endpoint).removesuffix(" up") + " down")
        self.host.add(lines.link(endpoint))
        self.host |= {*lines.addresses_and_neighbours(endpoint), *lines.limits(endpoint)}
        for value in endpoint.addresses:
            line = f"route {host_prefix(value)} dev {name}{lines.OURS} scope link"
            try:
                count += self.add_route(endpoint.workload, line)
            except ApplyError:
                if made:
                    self.host = before
                raise
        if endpoint.netns is not None and lines.netns_name(endpoint.netns) in self.inside:
            held = self.inside[lines.netns_name(endpoint.netns)]
            held.discard(f"link {endpoint.if_name} peer {name} down")
            wanted = set(lines.interior(endpoint))
            count += len(wanted - held)
            held |= wanted
        elif made and endpoint.mode is not Mode.TAP:
            self.host.add(f"link {endpoint.if_name} peer {name} down")
        return count + len(self.host - before)

    def _sweep(self, desired: HostState) -> int:
        links = {endpoint.host_interface for endpoint in desired.endpoints.values()}
        before = len(self.host)
        for line in list(self.host):
            ours = f"group {LINK_GROUP} " in line or f"group {SLAVE_GROUP} " in line
            if ours and line.split()[1] not in links:
                self._drop_link(line.split()[1])
        wanted = {
            f"route {host_prefix(a)} dev {e.host_interface} "
            for e in desired.endpoints.values()
            for a in e.addresses
        }
        for line in list(self.host):
            if not line.startswith("route ") or lines.OURS not in line:
                continue
            prefix = lines.route_key(line)[0]
            if line.startswith("route blackhole "):
                keep = prefix in desired.blackholes
            elif " dev rt" in line:
                keep = line.partition(lines.OURS)[0] + " " in wanted
            else:
                route = desired.learned.get(prefix)
                keep = not desired.sweep_learned or (
                    route is not None
                    and lines.route_key(lines.learned(route, [])) == lines.route_key(line)
                )
            if not keep:
                self.host.discard(line)
        return before - len(self.host)

    def add_route(self, key: str, line: str) -> int:
        if key in self.refuse:
            raise ApplyError(key, "add", self.refuse[key])
        if line in self.host:
            return 0
        for other in list(self.host):
            if other.startswith("route ") and lines.route_key(other) == lines.route_key(line):
                if lines.OURS not in other:
                    raise ApplyError(key, "add", errno.EEXIST)
                self.host.discard(other)
        self.host.add(line)
        return 1

    def _drop_link(self, name: str) -> None:
        self.host = {
            line
            for line in lines.without_hops(self.host, name)
            if not line.startswith(f"link {name} ")
            and not lines.is_on(line, name)
            and f" peer {name} " not in line
        }
        for held in self.inside.values():
            for line in list(held):
                if f" peer {name} " in line:
                    inner = line.split()[1]
                    gone = {other for other in held if lines.is_on(other, inner)}
                    held.difference_update(gone | {line})

    def there(self, endpoint: Endpoint) -> bool:
        if endpoint.netns is None or lines.netns_name(endpoint.netns) not in self.inside:
            return False
        return endpoint.netns_id in (None, self._identities[lines.netns_name(endpoint.netns)])
