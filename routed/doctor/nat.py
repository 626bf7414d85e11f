"""Whether what pools with natOutgoing are to hide behind is there."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from api.resources.net import IPAddress
from routed.doctor.findings import Finding, ok, warn
from routed.settings import AgentSettings


def addresses(settings: AgentSettings) -> Iterator[Finding]:
    """Of `natAddresses`, where they are set."""
    lost = [str(one) for one in settings.nat_addresses if not _is_here(one)]
    if lost:
        said = f"no interface has {', '.join(lost)}: what hides behind it gets no answer"
        yield warn("natAddresses", said, "add it to an interface (lo will do), or correct it")
    elif settings.nat_addresses:
        yield ok("natAddresses", ", ".join(map(str, settings.nat_addresses)))


def _is_here(address: IPAddress) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))  # nothing is sent
        except OSError:
            return False
    return True
