"""What the agent asks of a kernel, real or fake.

`sync` takes the whole desired state; `attach` and `detach` are the same for one endpoint, without
the full read. All three are called by the agent's one writer only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from api.resources.errors import Cause, Conflict
from api.resources.net import IPAddress
from routed.kernel.netns import Namespace
from routed.kernel.removals import Removal
from routed.state import Endpoint, HostState, Report

if TYPE_CHECKING:
    from routed.kernel.repair import Repair


def name_taken(endpoint: Endpoint) -> Conflict:
    """The namespace has a link of the name that the endpoint is to have there."""
    return Conflict(
        f"cannot attach {endpoint.workload}: its namespace has a {endpoint.if_name} "
        "already; take another ifName",
        causes=[Cause("spec.ifName", f"{endpoint.if_name} exists in the namespace")],
    )


class Driver(Protocol):
    """How the workloads of some modes are connected, on Linux. veth's, being the hot path, is the
    kernel driver's own (kernel/linux.py)."""

    def make(self, endpoint: Endpoint, inner: int | None) -> int:
        """Make one endpoint whole, or leave nothing: ApplyError, Conflict, Invalid. What is right
        is left as it is; the number of changes. `inner` is a descriptor of its namespace."""

    def sync(self, repair: Repair, spaces: set[int], missed: bool) -> None:
        """Bring all endpoints of these modes to what is desired, and say what was reached. `spaces`
        are the ids of namespaces in which something changed, `missed` says that it may be any."""

    def remove(self, endpoint: Endpoint) -> None:
        """Take away what there is of one; ApplyError."""

    def spaces(self) -> Mapping[str, int]:
        """By workload, the ids here of the namespaces."""

    def space(self, workload: str) -> int | None:
        """That of one, whatever others there are."""


class Kernel(Protocol):
    """A host's network stack, as far as it is ours."""

    @property
    def overflows(self) -> int:
        """How often events were lost and a full read took their place."""

    @property
    def removals(self) -> Sequence[Removal]:
        """Routes and next hops of ours that somebody removed, the last ones."""

    async def sync(self, desired: HostState) -> Report:
        """Read back, diff, touch only what differs, go on past failures, read back."""

    async def attach(self, endpoint: Endpoint) -> None:
        """Make one new endpoint whole, or leave nothing: ApplyError, or Conflict if the inner
        interface name is taken. What is already right is left as it is."""

    async def detach(
        self, workloads: Sequence[str], known: Mapping[str, Endpoint] | None = None
    ) -> None:
        """Take away routes and neighbours at once; links are reaped soon, in groups. `known` are
        those of them that a link on the host does not tell of: all modes but veth."""

    def forget(self, addresses: Iterable[IPAddress]) -> None:
        """These were released: what the kernel remembers of connections with them is deleted soon,
        and before one of them is attached again."""

    def forget_unseen(self, addresses: Iterable[IPAddress]) -> None:
        """The filter table was away, and workloads with these were open: what began meanwhile is
        judged anew."""

    def forget_ports(self, ports: Iterable[int]) -> None:
        """These UDP ports of the host are mapped from now on: also for who is sending to one."""

    def check_netns(self, name_or_path: str) -> Namespace:
        """A namespace that a workload may be attached into; Invalid says why not."""

    def parent(self, asked: str) -> str:
        """The link whose slaves ipvlan workloads get: the one that is `asked` for, or "": the one
        that leads off this host. Invalid if there is none."""

    def space(self, workload: str) -> int | None:
        """The id here of the namespace of an attached workload, if no link on the host goes with
        it (ipvlan, none)."""

    def uplinks(self) -> Sequence[str]:
        """The links that learned routes and the default route use, by name."""

    def listener(self, protocol: str, port: int, host_ip: IPAddress | None) -> IPAddress | None:
        """The address at which the host itself waits for what is sent to `port` of `host_ip`
        (None: of any address), loopback aside; None: it does not. `protocol`: TCP, UDP, SCTP."""

    def uplink_mtu(self) -> int:
        """The smallest MTU of the links that lead off this host, in bytes."""

    def watch(self) -> AsyncIterator[None]:
        """One item for every burst of changes that may concern us, our own included."""

    async def close(self) -> None: ...
