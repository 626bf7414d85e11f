"""A host that is none: what an agent asks of kernel, filter and speaker is always already so.

Everything above these three seams is the agent as it is: its watches, its claims, its reports, its
heartbeats, its files. So what the control plane is asked is what real hosts ask.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path

from api.resources.net import IPAddress, IPNetwork
from bgp.seam import Advertisement, Peer
from policies.compile.ruleset import Ruleset
from policies.counters import Reading
from policies.firewall import Blocking
from policies.nat import Nat, PortMapping
from policies.slaves import Slaves
from routed.agent.speech import Speech
from routed.kernel.netns import Namespace
from routed.kernel.removals import Removal
from routed.state import Endpoint, HostState, Report

MTU = 1500


class HollowKernel:
    """`Kernel`: whatever is desired is read back."""

    overflows = 0
    removals: Sequence[Removal] = ()

    async def sync(self, desired: HostState) -> Report:
        ready = {name: one.addresses for name, one in desired.endpoints.items()}
        return Report(ready=ready, routed=desired.blackholes)

    async def attach(self, endpoint: Endpoint) -> None:
        pass

    async def detach(
        self, workloads: Sequence[str], known: Mapping[str, Endpoint] | None = None
    ) -> None:
        pass

    def space(self, workload: str) -> int | None:
        return None

    def forget(self, addresses: Iterable[IPAddress]) -> None:
        pass

    def forget_unseen(self, addresses: Iterable[IPAddress]) -> None:
        pass

    def forget_ports(self, ports: Iterable[int]) -> None:
        pass

    def check_netns(self, name_or_path: str) -> Namespace:
        digest = hashlib.blake2s(name_or_path.encode(), digest_size=6).digest()
        return Namespace(f"/run/netns/{name_or_path}", (4, int.from_bytes(digest, "big")))

    def parent(self, asked: str) -> str:
        return asked or "eth0"

    def uplinks(self) -> Sequence[str]:
        return ("eth0",)

    def listener(self, protocol: str, port: int, host_ip: IPAddress | None) -> IPAddress | None:
        return None

    def uplink_mtu(self) -> int:
        return MTU

    async def watch(self) -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield

    async def close(self) -> None:
        pass


class HollowFilter:
    """`Filter`: in place, and nobody else has one."""

    def sync(self, nat: Nat | None, rules: Ruleset | None = None, *, trusted: bool = False) -> bool:
        return False

    def policed(self) -> bool:
        return True

    def stand_by(self) -> None:
        pass

    def opened(self) -> bool:
        return False

    def check(self, rules: Ruleset) -> None:
        pass

    def map_ports(self, ports: Iterable[PortMapping], *, add: bool) -> None:
        pass

    def open_docker(self) -> bool:
        return False

    def blocking(self, slaves: Slaves) -> list[Blocking]:
        return []

    def counted(self) -> Reading:
        return Reading()

    async def watch(self) -> AsyncIterator[bool]:
        await asyncio.Event().wait()
        yield False


class HollowSpeech(Speech):
    """A speaker with no switch: it takes what it is told, and hears nothing."""

    def __init__(self) -> None:
        super().__init__(Path("none"))
        self.connected = True
        self.received_whole = True
        self._told: set[IPNetwork] = set()

    @property
    def advertised(self) -> int:
        return len(self._told)

    def prefixes(self) -> Iterable[IPNetwork]:
        return self._told

    def set(self, peers: Mapping[str, Peer], wanted: Mapping[IPNetwork, Advertisement]) -> None:
        self._told = {*wanted}

    def advertise(self, wanted: Iterable[Advertisement]) -> None:
        self._told.update(one.prefix for one in wanted)

    def withdraw(self, prefixes: Iterable[IPNetwork]) -> None:
        self._told.difference_update(prefixes)

    async def settled(self) -> None:
        pass

    async def serve(self, wake: object, lost: object) -> None:
        await asyncio.Event().wait()
