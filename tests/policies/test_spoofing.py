"""No frame of a workload gets anywhere in somebody else's name, whoever it is that makes it.

The workload has all rights on its link: it writes frames as they are, into its end of a veth pair
or into a tap. Whoever else could hear of it listens: another workload, whoever is behind the
uplink, and the host's own processes. The kernel's reverse path filter is off: what is tried is the
table.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import pytest
from support.flows import entered
from support.kernels import endpoint
from support.netns import in_fresh_namespace, run
from support.spoofs import OWN, SIX, TAG, WEB, WEB_SIX, datagram, spoofs
from support.taps import Machine, check_taps
from support.wires import HOST, MARKER, QUIET, UPLINK, Wire, listening, uplink

from api.resources.workload import Mode
from policies.nft import Nft
from routed.kernel.linux import LinuxKernel
from routed.state import HOST_MAC, Endpoint, HostState, host_interface_name

pytestmark = pytest.mark.root
Make = Callable[[str], str]
FRAMES = 1_000  # of each kind
LINK = host_interface_name("w.h")
SO_RCVBUFFORCE = 33
MAC = bytes.fromhex("02aabbccdd09")  # of the machine behind the tap
FOUR_KIND, SIX_KIND, ARP_KIND = b"\x08\x00", b"\x86\xdd", b"\x08\x06"


class Around:
    """The workload's way to send, and those who listen."""

    def __init__(self, send: Callable[[bytes], object], web: str, outside: str) -> None:
        self._send = send
        self._sent = Wire(LINK)
        with entered(web):
            hears = Wire("eth0")
        with entered(outside):
            far = Wire("far0")
        self._others = {
            "another workload": (Wire(host_interface_name("web.h")), hears),
            "outside": (Wire(UPLINK), far),
        }
        self._host = [*listening(socket.AF_INET), *listening(socket.AF_INET6)]
        for one in (self._sent.socket, hears.socket, far.socket, *self._host):
            one.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        self._number = 0

    def escaped(self, frames: Sequence[bytes], times: int) -> dict[str, int]:
        """How many frames with the tag came to whom, when `frames` were sent that often."""
        for _ in range(times):
            for frame in frames:
                self._send(frame)
        self._number += 1
        marker = struct.pack("!HQ", MARKER, self._number) + bytes(40)
        self._send(marker)
        self._sent.frames(self._number)
        found = {"the host": sum(TAG in data for data in self._come())}
        for who, (near, far) in self._others.items():
            near.mark(self._number)
            found[who] = sum(TAG in frame for frame in far.frames(self._number))
        return {who: count for who, count in found.items() if count}

    def _come(self) -> Iterator[bytes]:
        """What has come to the host itself, past its filters."""
        for one in self._host:
            with suppress(BlockingIOError):
                while True:
                    yield one.recv(65_536)


def _sender(mode: Mode, netns: str) -> Callable[[bytes], object]:
    """What sends a frame that is whole but for its MACs."""
    if mode == Mode.TAP:
        machine = Machine(LINK, MAC, ip_address(OWN), ip_address(SIX))
        return lambda frame: os.write(machine.descriptor, _to(frame) + MAC + frame)
    with entered(netns):
        wire = Wire("eth0")
    return lambda frame: wire.socket.send(_to(frame) + wire.mac + frame)


def _to(frame: bytes) -> bytes:
    """The MAC that such a frame goes to (RFC 894, 2464)."""
    if frame[:2] == SIX_KIND and frame[26] == 0xFF:
        return b"\x33\x33" + frame[38:42]
    everybody = frame[:2] == FOUR_KIND and frame[18:22] == b"\xff" * 4
    return b"\xff" * 6 if everybody or frame[:2] == ARP_KIND else HOST_MAC


@pytest.mark.parametrize("mode", [Mode.VETH, Mode.TAP])
def test_nothing_gets_anywhere_in_somebody_elses_name(namespaces: Make, mode: Mode) -> None:
    if mode == Mode.TAP:
        check_taps()
    spaces = {name: namespaces(name) for name in ("w", "web", "out")}

    async def body() -> None:
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])  # frames come in their order
        for key, value in QUIET.items():
            Path("/proc/sys", *key.split(".")).write_text(value, encoding="ascii")
        table, kernel = Nft(), LinuxKernel()
        table.sync()
        mine = endpoint("w.h", spaces["w"], OWN, SIX)
        if mode == Mode.TAP:
            mine = Endpoint("w.h", "eth0", mine.addresses, None, mode=mode)
        web = endpoint("web.h", spaces["web"], WEB, WEB_SIX)
        await kernel.sync(HostState(endpoints={"w.h": mine, "web.h": web}))
        Path(f"/proc/sys/net/ipv4/conf/{LINK}/rp_filter").write_text("0", encoding="ascii")
        uplink(spaces["out"])
        around = Around(_sender(mode, spaces["w"]), spaces["web"], spaces["out"])
        routes = run("ip", "-6", "route", "show", "default")

        kinds = list(spoofs(*HOST))
        assert len({kind.name for kind in kinds}) == len(kinds) >= 20
        for kind in kinds:
            found = around.escaped(kind.frames, FRAMES)
            assert not found, f"{kind.name}: {found}"
        for to, who in ((WEB, "another workload"), (WEB_SIX, "another workload")):
            own = SIX if ":" in to else OWN
            assert around.escaped([datagram(own, to)], FRAMES) == {who: FRAMES}
        assert run("ip", "-6", "route", "show", "default") == routes
        assert "02:00:00:00:00:66" not in run("ip", "neigh")

        run("nft", "flush", "chain", "inet", "routed", "antispoof")
        run("nft", "flush", "chain", "inet", "routed", "tohost")
        loose = {kind.name for kind in kinds if around.escaped(kind.frames, 1)}
        assert loose == {kind.name for kind in kinds if kind.loose}

    in_fresh_namespace(body)
