"""Building and removing the fabric: namespaces, links, addresses.

Everything is inside namespaces whose names begin with the lab's; nothing of the machine's own is
touched, and removing the namespaces removes everything.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from api.resources.errors import RoutedError
from routed.lab.topology import Topology

FORWARD = {"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"}  # not of hosts
SYSCTLS = {
    "net.ipv4.fib_multipath_hash_policy": "1",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
}


FIRST_INDEX = 1000  # of the links of switches; hosts have fewer


class LabError(RoutedError):
    """A command of the lab failed; the message has it and what it said."""


def command(*words: str, check: bool = True, timeout: float = 30.0) -> str:
    """Run one command; its output. LabError if it fails and `check`."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError as error:
        raise LabError(f"cannot run {words[0]}: it is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"cannot finish {' '.join(words)}: no answer in {timeout:g} s") from error
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise LabError(f"cannot run {' '.join(words)}: {said}")
    return done.stdout


def inside(namespace: str, *words: str, check: bool = True, timeout: float = 30.0) -> str:
    """`command` in the network of `namespace`."""
    return command(*prefix(namespace), *words, check=check, timeout=timeout)


def prefix(namespace: str) -> list[str]:
    """The words that put a command into `namespace`'s network, and nothing else of it."""
    return ["nsenter", f"--net=/run/netns/{namespace}", "--"]


def build(top: Topology) -> None:
    """Make the fabric; a lab of the same name that is still there is an error."""
    present = set(namespaces()) & set(top.namespaces)
    if present:
        raise LabError(
            f"cannot build lab {top.name}: {', '.join(sorted(present))} exist; "
            f"remove it with: routed lab down --name {top.name}"
        )
    for name in top.namespaces:
        command("ip", "netns", "add", name)
        of_host = name in {host.namespace for host in top.hosts}
        settings = SYSCTLS if of_host else SYSCTLS | FORWARD  # a host's agent sets those itself
        inside(name, "sysctl", "-qw", *(f"{key}={value}" for key, value in settings.items()))
        command("ip", "-n", name, "link", "set", "lo", "up")
    for tor in top.tors:
        _bridge(tor.namespace, "hosts")
        _addresses(top, tor.namespace, "hosts", tor.address, tor.address6)
        for host in top.hosts:
            one, other = (tor.namespace, f"h{host.number}"), (host.namespace, f"tor{tor.number}")
            _link(one, other, host.number, "hosts")
            four, six = host.address(tor), host.address6(tor)
            _addresses(top, host.namespace, f"tor{tor.number}", four, six)
        _link((tor.namespace, "client"), (top.client, f"tor{tor.number}"), 0)
        _addresses(top, tor.namespace, "client", tor.client_side, tor.client_side6)
        four, six = top.client_address(tor), top.client_address6(tor)
        _addresses(top, top.client, f"tor{tor.number}", four, six)
    for own in top.client_own.values():
        command("ip", "-n", top.client, "addr", "add", own, "dev", "lo")
    _bridge(top.management, "mgmt")
    _addresses(top, top.management, "mgmt", "172.30.0.1", "fd00:30::1")
    for host in top.hosts:
        one, other = (top.management, f"h{host.number}"), (host.namespace, "mgmt")
        _link(one, other, host.number, "mgmt")
        _addresses(top, host.namespace, "mgmt", host.management, host.management6)


def remove(top_name: str) -> list[str]:
    """Remove every namespace of the lab, workloads' too; what was removed."""
    found = [name for name in namespaces() if name.startswith(f"{top_name}-")]
    for name in found:
        command("ip", "netns", "del", name)
    return found


def namespaces() -> list[str]:
    directory = Path("/run/netns")
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


def routes(namespace: str) -> list[dict[str, object]]:
    """The main IPv4 table of `namespace`, as `ip -j route` has it."""
    found: list[dict[str, object]] = json.loads(command("ip", "-n", namespace, "-j", "route"))
    return found


def _bridge(namespace: str, name: str) -> None:
    command("ip", "-n", namespace, "link", "add", name, "type", "bridge")


def _link(one: tuple[str, str], other: tuple[str, str], number: int, bridge: str = "") -> None:
    """A veth pair of two (namespace, name), up. `number` is its own among the links of the first.

    The ends never have the same index, as they might in two namespaces: the kernel would take them
    for links without a far end, and would act on a lost carrier up to a second late
    (`linkwatch_urgent_event` in net/core/link_watch.c).
    """
    (here, name), (there, far) = one, other
    command("ip", "-n", here, "link", "add", name, "index", str(FIRST_INDEX + number),
            "type", "veth", "peer", "name", far, "netns", there)  # fmt: skip
    if bridge:
        command("ip", "-n", here, "link", "set", name, "master", bridge)
    command("ip", "-n", here, "link", "set", name, "up")
    command("ip", "-n", there, "link", "set", far, "up")


def _addresses(top: Topology, namespace: str, name: str, four: str, six: str) -> None:
    """Those of the lab's families; the link is up then."""
    if 4 in top.versions:
        command("ip", "-n", namespace, "addr", "add", f"{four}/24", "dev", name)
    if 6 in top.versions:
        command("ip", "-n", namespace, "addr", "add", f"{six}/64", "dev", name, "nodad")
    command("ip", "-n", namespace, "link", "set", name, "up")
