"""What the agent asks of a kernel, real or fake.

`sync` takes the whole desired state; `attach` and `detach` are the same for one endpoint, without
the full read. All three are called by the agent's one writer only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from api.resources.net import IPAddress
from routed.state import Endpoint, HostState, Report


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace that was looked at: its path and (st_dev, st_ino)."""

    path: str
    identity: tuple[int, int]


class Kernel(Protocol):
    """A host's network stack, as far as it is ours."""

    async def sync(self, desired: HostState) -> Report:
        """Read back, diff, touch only what differs, go on past failures, read back."""

    async def attach(self, endpoint: Endpoint) -> None:
        """Make one new endpoint whole, or leave nothing: ApplyError, or Conflict if the inner
        interface name is taken. What is already right is left as it is."""

    async def detach(self, workloads: Sequence[str]) -> None:
        """Take away routes and neighbours at once; links are reaped soon, in groups."""

    def forget(self, addresses: Iterable[IPAddress]) -> None:
        """These were released: what the kernel remembers of connections with them is deleted soon,
        and before one of them is attached again."""

    def check_netns(self, name_or_path: str) -> Namespace:
        """A namespace that a workload may be attached into; Invalid says why not."""

    def uplink_mtu(self) -> int:
        """The smallest MTU of the links that lead off this host, in bytes."""

    def watch(self) -> AsyncIterator[None]:
        """One item for every burst of changes that may concern us, our own included."""

    async def close(self) -> None: ...
