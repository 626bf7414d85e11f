"""Run as a process of its own, in a network namespace of its own: prints what the kernel can.

`python -m routed.doctor.trial` under `unshare --net`; one line of JSON, feature to reason.
"""

from __future__ import annotations

import json

from api.resources.errors import RoutedError
from policies.nft import Nft
from routed.kernel import inspect


def main() -> None:
    found = inspect.features()
    try:
        Nft().sync()
    except RoutedError as error:
        found["nftables"] = str(error)
    else:
        found["nftables"] = ""
    print(json.dumps(found))


if __name__ == "__main__":
    main()
