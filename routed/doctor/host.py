"""Checks of the host itself: rights, kernel, sysctls, firewalls, other managers, links."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from api.resources.errors import RoutedError
from policies.marks import TABLE, TABLES
from policies.nft import Nft
from routed.agent.flapping import NETWORK_MANAGER
from routed.doctor.findings import Finding, fail, ok, skipped, warn
from routed.kernel import inspect
from routed.settings import AgentSettings
from routed.state import ForwardRefused

NEEDED = ("network namespaces", "veth", "next hop objects", "nftables")
WISHED = {"ipvlan": "modes ipvlan-l3 and ipvlan-l3s", "vxlan": "encapsulation"}
NETWORKD = ("ManageForeignRoutes=no", "ManageForeignRoutingPolicyRules=no")
KEEP = "KeepConfiguration=yes"
NEXT_HOPS_LEFT = 256  # the first systemd with ManageForeignNextHops=
SAVED_RULES = ("etc/nftables.conf", "etc/nftables*/**/*.nft", "etc/sysconfig/nftables.conf")
LEAST_MTU = 1280  # RFC 8200, section 5
NET_ADMIN = 12  # capabilities(7)


def rights() -> Iterator[Finding]:
    """CAP_NET_ADMIN: everything else depends on it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("CapEff"))
    if int(line.split()[1], 16) >> NET_ADMIN & 1:
        yield ok("rights", f"CAP_NET_ADMIN, uid {os.geteuid()}")
    else:
        yield fail("rights", "no CAP_NET_ADMIN", "run as root")


def tried() -> dict[str, str]:
    """What the kernel can, tried in a namespace that is thrown away: feature to why it is not
    there. Untried says why that could not be done."""
    words = ["unshare", "--net", sys.executable, "-m", "routed.doctor.trial"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Untried(f"cannot try it: {error}", "install util-linux (unshare)") from error
    if done.returncode != 0:
        why = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise Untried(f"cannot make a network namespace: {why[0]}", "run as root")
    features: dict[str, str] = json.loads(done.stdout)
    return features


class Untried(RoutedError):
    """The kernel could not be tried; `remedy` is what to do."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.remedy = remedy


def kernel() -> Iterator[Finding]:
    """What the kernel can."""
    try:
        features = tried()
    except Untried as error:
        yield fail("kernel", str(error), error.remedy)
        return
    for name in NEEDED:
        if features[name]:
            yield fail(f"kernel: {name}", features[name], f"a kernel with {name} is needed")
        else:
            yield ok(f"kernel: {name}", "there")
    for name, purpose in WISHED.items():
        if features.get(name, "not tried"):
            yield warn(f"kernel: {name}", features.get(name, "not tried"), f"no {purpose} here")
        else:
            yield ok(f"kernel: {name}", "there")


def sysctls(settings: AgentSettings) -> Iterator[Finding]:
    """Forwarding, which the agent sets if it may; reverse path filters, which are not ours."""
    path = Path("/proc/sys/net/ipv4")
    if _number(path / "ip_forward") == 1:
        yield ok("sysctl: ip_forward", "1")
    elif settings.manage_sysctls:
        yield ok("sysctl: ip_forward", "0; the agent sets it (manageSysctls)")
    else:
        yield fail("sysctl: ip_forward", "0", "sysctl -w net.ipv4.ip_forward=1")
    if links := inspect.v6_defaults_at_risk():
        refused = ForwardRefused(links)
        said = f"the default route over {', '.join(links)} comes from router advertisements: "
        yield warn(
            "sysctl: IPv6 forwarding",
            f"{said}the agent does not forward IPv6, no workload can have an IPv6 address",
            refused.remedy,
        )
    strict = [
        name.parent.name
        for name in sorted((path / "conf").glob("*/rp_filter"))
        if _number(name) == 1 and name.parent.name not in ("default", "lo")
    ]
    every = "all" in strict
    if strict:
        yield warn(
            "sysctl: rp_filter",
            f"strict on {', '.join(strict)}",
            "packets that come back by another uplink are dropped: "
            f"sysctl -w net.ipv4.conf.{'all' if every else strict[0]}.rp_filter=2",
        )
    else:
        yield ok("sysctl: rp_filter", "not strict")


def firewalls() -> Iterator[Finding]:
    """Base chains of others at the forward hook that drop what no rule of theirs accepts."""
    try:
        found = Nft().blocking()
    except (RoutedError, ValueError) as error:
        yield fail("firewall", f"cannot read nftables: {error}", "install nftables; be root")
        return
    if not found:
        yield ok("firewall", "nobody drops what workloads send through this host")
    for one in found:
        check, said = f"firewall: {one.family} {one.table}", f"chain {one.chain} drops in the end"
        if one.docker:
            said += ": an agent that runs lets workloads pass, by its rules in DOCKER-USER"
            yield warn(check, said, f"start the agent, or: {one.remedy}")
            continue
        said += ": workloads are cut off"
        if one.lasting:
            said += f"; what keeps the remedy when its owner writes its rules anew: {one.lasting}"
        yield fail(check, said, one.remedy)


def saved_rules(root: Path = Path("/")) -> Iterator[Finding]:
    """Our tables among rules that somebody has saved: what loads these brings old ones back, and is
    refused as a whole where an agent owns one of the tables."""
    found = []
    for place in SAVED_RULES:
        for path in sorted(root.glob(place)):
            try:
                ours = f"table inet {TABLE}" in path.read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            found += [str(path)] * ours
    if found:
        names = ", ".join(found)
        said = f"{names} has our tables: it brings old rules back, or is refused as a whole"
        yield warn("saved rules", said, f"take out: {', '.join(f'table inet {t}' for t in TABLES)}")


def managers() -> Iterator[Finding]:
    """Programs that remove routes or take over links which they did not make."""
    if not Path("/run/systemd/netif/state").exists():
        yield skipped("systemd-networkd", "does not run here")
    else:
        text = _texts("systemd", "networkd.conf", "networkd.conf.d/*.conf")
        missing = [word for word in NETWORKD if word not in text]
        if missing:
            yield warn(
                "systemd-networkd",
                "removes routes that it did not make",
                f"put {' and '.join(missing)} under [Network] in "
                "/etc/systemd/networkd.conf.d/routed.conf",
            )
        elif 0 < _networkd_version() < NEXT_HOPS_LEFT and KEEP not in _texts(
            "systemd/network", "*.network"
        ):
            yield warn(
                "systemd-networkd",
                "leaves foreign routes alone, but not next hops, which take routes along",
                f"put {KEEP} under [Network] in the .network files of the uplinks",
            )
        else:
            yield ok("systemd-networkd", "leaves foreign routes alone")
    if not Path("/run/NetworkManager").exists():
        yield skipped("NetworkManager", "does not run here")
    elif "interface-name:rt" in _texts("NetworkManager", "NetworkManager.conf", "conf.d/*.conf"):
        yield ok("NetworkManager", "leaves our links alone")
    else:
        yield warn(
            "NetworkManager",
            "may take over our links",
            NETWORK_MANAGER,
        )


def links(settings: AgentSettings) -> Iterator[Finding]:
    """Uplinks, their MTU, other people's routing rules."""
    found = inspect.uplinks()
    running = [one for one in found if one.running and one.addresses]
    if running:
        said = ", ".join(f"{one.name} mtu {one.mtu}" for one in running)
        least = min(one.mtu for one in running)
        if least < LEAST_MTU:
            yield warn("uplinks", said, f"an MTU of at least {LEAST_MTU} is needed for IPv6")
        elif settings.mtu is not None and settings.mtu > least:
            remedy = f"large packets of workloads do not fit: set mtu to {least} at most, or none"
            yield warn("uplinks", f"{said}; workloads' links are made with {settings.mtu}", remedy)
        else:
            yield ok("uplinks", said)
    else:
        yield warn("uplinks", "no link with an address is up", "connect this host to its switches")
    rules = inspect.foreign_rules()
    if rules:
        remedy = "check that they do not lead past the main table for workloads' addresses"
        yield warn("routing rules", "; ".join(rules), remedy)
    else:
        yield ok("routing rules", "none but the kernel's")


def _networkd_version() -> int:
    """Of systemd; 0 where it does not say."""
    try:
        words = ["networkctl", "--version"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
        return int(done.stdout.split()[1])
    except (OSError, subprocess.TimeoutExpired, IndexError, ValueError):
        return 0


def _number(path: Path) -> int:
    try:
        return int(_text(path))
    except ValueError:
        return -1


def _texts(name: str, *patterns: str) -> str:
    """What the administrator, the running system and packages set, one after the other."""
    places = [Path(top) / name for top in ("/etc", "/run", "/usr/lib")]
    paths = [path for place in places for one in patterns for path in sorted(place.glob(one))]
    return "\n".join(_text(path) for path in paths)


def _text(path: Path) -> str:
    """What is in the file; nothing if it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
