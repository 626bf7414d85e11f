"""Starts ExaBGP, with some of its functions replaced (`bgp/replacements.py`).

    python -m bgp.launcher server CONFIGURATION     as `python -m exabgp` would

When it is loaded, ExaBGP asks the name service for the whole name of this host, which it then tells
nobody. Where no name server answers, because the rack has just come up, that takes ten seconds and
more, once for a configuration and once for each start.
"""

from __future__ import annotations

import socket
import sys


def main() -> None:
    socket.getfqdn = lambda name="": name or socket.gethostname()
    # loaded only now: it asks while it is
    from exabgp.application.main import main as exabgp_main

    from bgp.replacements import replace

    if reasons := replace():
        print(f"exabgp runs as it is, announces slower: {', '.join(reasons)}", file=sys.stderr)
    sys.argv[0] = "exabgp"
    exabgp_main()


if __name__ == "__main__":
    main()
