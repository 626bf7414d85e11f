"""FRR 8 as a switch's routing daemon: zebra and bgpd, started by hand.

They run as the user frr, so they get a directory of their own that this user can reach; there they
have their sockets, and `vtysh` asks them there. bgpd tries again only after 10 s when zebra is not
there yet, so it is started when zebra's socket is. Graceful restart: helping is FRR's default.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from routed.lab.fabric import LabError, command, prefix
from routed.lab.processes import Process
from routed.lab.topology import BOTH, Topology, Tor

PACKAGE = "frr"
_DAEMONS = Path("/usr/lib/frr")
PROGRAMS: tuple[str, ...] = (str(_DAEMONS / "zebra"), str(_DAEMONS / "bgpd"), "vtysh")


def configuration(top: Topology, tor: Tor) -> str:
    """A ToR: hosts by range, each with its own ASN; it keeps their routes over a restart. Every
    session carries both families, over IPv6 with IPv6 next hops for both (RFC 8950)."""
    groups = [("hosts", tor.subnet, False)] if 4 in top.versions else []
    if 6 in top.versions:
        groups.append(("hosts6", tor.subnet6, True))
    client = top.client_address(tor) if 4 in top.versions else top.client_address6(tor)
    sessions = "".join(
        f" neighbor {name} peer-group\n neighbor {name} remote-as external\n"
        f" neighbor {name} timers 3 9\n neighbor {name} passive\n"
        + (f" neighbor {name} capability extended-nexthop\n" if over_six else "")
        + f" bgp listen range {subnet} peer-group {name}\n"
        for name, subnet, over_six in groups
    )
    sessions += f" neighbor {client} remote-as {top.client_as}\n"
    sessions += f" neighbor {client} timers connect 1\n"
    if ":" in client:
        sessions += f" neighbor {client} capability extended-nexthop\n"
    families = "".join(
        f" address-family ipv{version} unicast\n"
        + "".join(
            f"  neighbor {name} activate\n  neighbor {name} default-originate\n"
            f"  neighbor {name} next-hop-self\n"
            for name, _, _ in groups
        )
        + f"  neighbor {client} activate\n  neighbor {client} next-hop-self\n"
        + "  maximum-paths 16\n exit-address-family\n"
        for version in (4, 6)
    )
    return f"""frr defaults datacenter
hostname {tor.namespace}
log stdout warnings
router bgp {tor.as_number}
 bgp router-id {tor.address}
 no bgp ebgp-requires-policy
 bgp bestpath as-path multipath-relax
{sessions}{families}"""


def processes(top: Topology, tor: Tor, directory: Path) -> list[Process]:
    """zebra, then bgpd."""
    home = _home(directory, tor.namespace)
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    directory.chmod(0o755)
    path = home / "frr.conf"
    path.write_text(configuration(top, tor), encoding="ascii")
    path.chmod(0o644)
    try:
        shutil.chown(home, "frr", "frr")
    except LookupError as error:
        raise LabError(f"cannot run FRR as a ToR: {error}") from error
    zebra, bgpd = (_process(tor.namespace, name, home, directory) for name in ("zebra", "bgpd"))
    zebra.ready = home / "zserv.api"
    bgpd.ready = home / "bgpd.vty"
    return [zebra, bgpd]


def prefixes(
    directory: Path, namespace: str, versions: Sequence[int] = BOTH
) -> dict[str, list[str]]:
    return {
        text: hops
        for version in versions
        for text, hops in _prefixes(directory, namespace, version).items()
    }


def _prefixes(directory: Path, namespace: str, version: int) -> dict[str, list[str]]:
    said = command(
        "vtysh", "--vty_socket", str(_home(directory, namespace)), "-d", "bgpd",
        "-c", f"show bgp ipv{version} unicast json", check=False,
    )  # fmt: skip
    try:
        routes = json.loads(said)["routes"]
    except (ValueError, KeyError) as error:
        raise LabError(f"cannot read the table of {namespace}: {said.strip()}") from error
    found: dict[str, list[str]] = {}
    for prefix_text, paths in routes.items():
        hops = [
            hop["ip"]
            for path in paths
            if path.get("peerId") != "(unspec)"  # originated by the ToR itself
            for hop in path.get("nexthops", [])
            if hop.get("scope") != "link-local" or len(path["nexthops"]) == 1
        ]
        if hops:
            found[prefix_text] = hops
    return found


def _process(namespace: str, name: str, home: Path, directory: Path) -> Process:
    words = [str(_DAEMONS / name), "-f", str(home / "frr.conf"), "-z", str(home / "zserv.api")]
    words += ["--vty_socket", str(home), "-i", str(home / f"{name}.pid"), "-P", "0"]
    words += ["-u", "frr", "-g", "frr"]
    return Process(f"{namespace}-{name}", [*prefix(namespace), *words], directory)


def _home(directory: Path, namespace: str) -> Path:
    return directory / f"{namespace}-frr"
