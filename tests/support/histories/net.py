"""A network for the programs of a history: a host each, any two of which can be cut apart.

A bridge in a namespace of its own, in which the test is as well (`inside`), and a namespace for
each host, with a set of addresses from which it hears nothing.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from routed.kernel import netns
from support.netns import run

RULES = """
table inet cut {
  set from { type ipv4_addr; }
  chain input { type filter hook input priority 0; ip saddr @from drop; }
}
"""


@dataclass(frozen=True)
class Host:
    namespace: str
    address: str

    @property
    def words(self) -> list[str]:
        """What a command begins with to be run there."""
        return ["ip", "netns", "exec", self.namespace]

    def deaf_to(self, others: Iterable[str]) -> None:
        listed = ", ".join(others)
        run(*self.words, "nft", "add", "element", "inet", "cut", "from", f"{{ {listed} }}")

    def hear(self) -> None:
        run(*self.words, "nft", "flush", "set", "inet", "cut", "from")


@dataclass
class Net:
    hub: Host
    hosts: list[Host] = field(default_factory=list)

    def add(self) -> Host:
        number = len(self.hosts) + 2
        host = Host(f"{self.hub.namespace}-{number}", f"10.99.0.{number}")
        self.hosts.append(host)
        run("ip", "netns", "add", host.namespace)
        run("ip", "-n", self.hub.namespace, "link", "add", f"h{number}", "type", "veth",
            "peer", "name", "eth0", "netns", host.namespace)  # fmt: skip
        run("ip", "-n", self.hub.namespace, "link", "set", f"h{number}", "up", "master", "br0")
        _up(host, "eth0")
        return host

    def cut(self, some: Iterable[Host], others: Iterable[Host], *, both: bool = True) -> None:
        """The one do not hear the others, nor, with `both`, the other way round."""
        some, others = list(some), list(others)
        for host in some:
            host.deaf_to(other.address for other in others)
        for host in others if both else ():
            host.deaf_to(one.address for one in some)

    def heal(self) -> None:
        for host in (self.hub, *self.hosts):
            host.hear()


@contextlib.contextmanager
def inside() -> Iterator[Net]:
    """A net without hosts; this thread is in its hub until the block ends."""
    hub = Host(f"rt-h-{uuid.uuid4().hex[:8]}", "10.99.0.1")
    net, home = Net(hub), netns.open_own()
    try:
        run("ip", "netns", "add", hub.namespace)
        run("ip", "-n", hub.namespace, "link", "add", "br0", "type", "bridge")
        _up(hub, "br0")
        with (
            Path(f"/run/netns/{hub.namespace}").open("rb") as target,
            netns.entered(home, target.fileno()),
        ):
            yield net
    finally:
        os.close(home)
        for host in (*net.hosts, hub):
            done = ["ip", "netns", "del", host.namespace]
            subprocess.run(done, check=False, capture_output=True)


def _up(host: Host, link: str) -> None:
    for name in ("lo", link):
        run("ip", "-n", host.namespace, "link", "set", name, "up")
    run("ip", "-n", host.namespace, "address", "add", f"{host.address}/24", "dev", link)
    run(*host.words, "nft", "-f", "-", input=RULES)
