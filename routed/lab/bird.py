"""BIRD 2 as the switches' and the client's routing daemon."""

from __future__ import annotations

import re
from pathlib import Path

from routed.lab.fabric import inside, prefix
from routed.lab.processes import Process
from routed.lab.topology import Topology, Tor

PACKAGE = "bird2"
PROGRAMS: tuple[str, ...] = ("bird", "birdc")
_KERNEL = """
protocol device { scan time 2; }
protocol direct { ipv4; interface "client", "tor*", "lo"; }
protocol kernel { merge paths on limit 16; ipv4 { import none; export where source = RTS_BGP; }; }
"""


def tor_configuration(top: Topology, tor: Tor) -> str:
    """A ToR: hosts by range, each with its own ASN; it keeps their routes over a restart."""
    return f"""log stderr {{ warning, error, fatal, bug }};
router id {tor.address};
{_KERNEL}
protocol static originated {{ ipv4; route 0.0.0.0/0 unreachable; }}
filter to_hosts {{
  if net = 0.0.0.0/0 then accept;
  if source = RTS_BGP then accept;
  reject;
}}
protocol bgp hosts {{
  local {tor.address} as {tor.as_number};
  neighbor range {tor.subnet} external;
  dynamic name "host";
  graceful restart aware;
  hold time 9;
  error wait time 1, 5;
  ipv4 {{ import all; export filter to_hosts; next hop self; }};
}}
protocol bgp outside {{
  local {tor.client_side} as {tor.as_number};
  neighbor {top.client_address(tor)} as {top.client_as};
  connect delay time 1;
  hold time 9;
  error wait time 1, 5;
  ipv4 {{ import all; export where source = RTS_BGP; next hop self; }};
}}
"""


def client_configuration(top: Topology) -> str:
    """The client behind the ToRs: it takes every route from every ToR, as ECMP."""
    peers = "".join(
        f"protocol bgp tor{tor.number} {{\n"
        f"  local {top.client_address(tor)} as {top.client_as};\n"
        f"  neighbor {tor.client_side} as {tor.as_number};\n"
        "  connect delay time 1;\n"
        "  hold time 9;\n  error wait time 1, 5;\n"
        "  ipv4 { import all; export where source = RTS_DEVICE; };\n}\n"
        for tor in top.tors
    )
    return (
        "log stderr { warning, error, fatal, bug };\n"
        f"router id {top.client_address(top.tors[0])};\n{_KERNEL}{peers}"
    )


def processes(top: Topology, tor: Tor, directory: Path) -> list[Process]:
    """BIRD alone."""
    return [daemon(tor.namespace, tor_configuration(top, tor), directory)]


def daemon(namespace: str, configuration: str, directory: Path) -> Process:
    """BIRD in `namespace`, not started yet."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = directory / f"{namespace}.conf"
    path.write_text(configuration, encoding="ascii")
    words = ["bird", "-f", "-c", str(path), "-s", str(control(directory, namespace))]
    return Process(namespace, [*prefix(namespace), *words], directory)


def control(directory: Path, namespace: str) -> Path:
    return directory / f"{namespace}.ctl"


def ask(directory: Path, namespace: str, *words: str) -> str:
    """What `birdc` answers."""
    return inside(namespace, "birdc", "-s", str(control(directory, namespace)), *words)


def prefixes(directory: Path, namespace: str) -> dict[str, list[str]]:
    """The BGP routes of a table: prefix to the next hops of every path in it."""
    found: dict[str, list[str]] = {}
    current = ""
    for line in ask(directory, namespace, "show", "route").splitlines():
        match = re.match(r"(\d+\.\d+\.\d+\.\d+/\d+)?\s+unicast|(\d+\.\d+\.\d+\.\d+/\d+)\s", line)
        if match:
            current = match[1] or match[2] or current
        via = re.search(r"via (\S+) on", line)
        if via and current:
            found.setdefault(current, []).append(via[1])
    return found
