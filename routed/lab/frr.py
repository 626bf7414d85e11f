"""FRR 8 as a switch's routing daemon: zebra and bgpd, started by hand.

They run as the user frr, so they get a directory of their own that this user can reach; there they
have their sockets, and `vtysh` asks them there. bgpd tries again only after 10 s when zebra is not
there yet, so it is started when zebra's socket is. Graceful restart: helping is FRR's default.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from routed.lab.fabric import LabError, command, prefix
from routed.lab.processes import Process
from routed.lab.topology import Topology, Tor

PACKAGE = "frr"
_DAEMONS = Path("/usr/lib/frr")
PROGRAMS: tuple[str, ...] = (str(_DAEMONS / "zebra"), str(_DAEMONS / "bgpd"), "vtysh")


def configuration(top: Topology, tor: Tor) -> str:
    """A ToR: hosts by range, each with its own ASN; it keeps their routes over a restart."""
    return f"""frr defaults datacenter
hostname {tor.namespace}
log stdout warnings
router bgp {tor.as_number}
 bgp router-id {tor.address}
 no bgp ebgp-requires-policy
 bgp bestpath as-path multipath-relax
 neighbor hosts peer-group
 neighbor hosts remote-as external
 neighbor hosts timers 3 9
 neighbor hosts passive
 bgp listen range {tor.subnet} peer-group hosts
 neighbor {top.client_address(tor)} remote-as {top.client_as}
 neighbor {top.client_address(tor)} timers connect 1
 address-family ipv4 unicast
  neighbor hosts default-originate
  neighbor hosts next-hop-self
  neighbor {top.client_address(tor)} next-hop-self
  maximum-paths 16
 exit-address-family
"""


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


def prefixes(directory: Path, namespace: str) -> dict[str, list[str]]:
    said = command(
        "vtysh", "--vty_socket", str(_home(directory, namespace)), "-d", "bgpd",
        "-c", "show bgp ipv4 unicast json", check=False,
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
