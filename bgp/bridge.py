"""The helper that ExaBGP starts: between its pipes and the speaker's socket, nothing else.

It always drains both sides: a helper that does not read freezes ExaBGP, and one that dies while
updates flow takes the sessions with it. So it holds what the other side is not ready for, and
ends only when ExaBGP does. It imports little, so as to be there at once.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys


def main(path: str) -> None:
    """Copy stdin to the socket and the socket to stdout until stdin ends."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.connect(path)
    link.setblocking(False)
    for descriptor in (0, 1):
        os.set_blocking(descriptor, False)
    to_link, to_exabgp = bytearray(), bytearray()
    selector = selectors.PollSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(link, selectors.EVENT_READ)
    writing_out = False
    while True:
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if to_link else 0)
        selector.modify(link, wanted)
        if bool(to_exabgp) != writing_out:
            writing_out = bool(to_exabgp)
            if writing_out:
                selector.register(1, selectors.EVENT_WRITE)
            else:
                selector.unregister(1)
        for key, events in selector.select():
            if key.fd == 0:
                data = os.read(0, 1 << 16)
                if not data:
                    return
                to_link += data
            elif key.fd == 1:
                del to_exabgp[: os.write(1, to_exabgp)]
            else:
                if events & selectors.EVENT_READ:
                    data = link.recv(1 << 16)
                    if not data:
                        return
                    to_exabgp += data
                if events & selectors.EVENT_WRITE:
                    del to_link[: link.send(to_link)]


if __name__ == "__main__":
    main(sys.argv[1])
