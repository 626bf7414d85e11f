"""What an attach with IPv6 asks of the kernel: as few changes of a link that is up as can be, since
IPv6 goes through all its routes for each (docs/performance.md), and the gateway that answers."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.kernels import endpoint
from support.netns import in_fresh_namespace, run

from routed.kernel import messages as m
from routed.kernel import observe
from routed.kernel.linux import LinuxKernel
from routed.kernel.netlink import NETLINK_ADD_MEMBERSHIP, SOL_NETLINK, walk
from routed.state import HostState

pytestmark = pytest.mark.root
Make = Callable[[str], str]
LINKS = 1  # RTNLGRP_LINK
RUNNING = 1 << 6  # IFF_RUNNING: linkwatch has seen the carrier


def hearing() -> socket.socket:
    """What the kernel tells of links from now on."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    made.bind((0, 0))
    made.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, LINKS)
    made.settimeout(5)
    return made


def told(heard: socket.socket, name: str) -> Iterator[tuple[int, str]]:
    """(flags, alias) of each message about the link `name`, as long as they come."""
    while True:
        data = heard.recv(1 << 16)
        for kind, _, _, start, end in walk(data):
            if kind == m.RTM_NEWLINK and (link := observe.link_of(data[start:end])).name == name:
                yield struct.unpack_from("=I", data, start + 8)[0], link.alias


def test_the_link_is_complete_before_it_comes_up_and_changes_no_more(namespaces: Make) -> None:
    one = namespaces("a")

    async def body() -> None:
        kernel = LinuxKernel()
        a = endpoint("a.h", one, "fd00:65::1")
        with hearing() as heard:
            await kernel.attach(a)
            changes = 0
            for flags, alias in told(heard, a.host_interface):
                if flags & m.IFF_UP:
                    changes += 1
                    assert alias == a.alias
                if flags & RUNNING:
                    break
        assert changes == 2, "that it is up, and that it has a carrier"
        await kernel.close()

    in_fresh_namespace(body)


@pytest.mark.parametrize("disabled", ["0", "1"])
def test_the_gateway_is_the_only_link_local_address_and_answers_without_a_permanent_neighbour(
    disabled: str, namespaces: Make
) -> None:
    """Also where new links begin without IPv6."""
    one = namespaces("a")

    async def body() -> None:
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text(disabled)
        kernel = LinuxKernel()
        a = endpoint("a.h", one, "fd00:65::1")
        await kernel.sync(HostState(endpoints={"a.h": a}))
        shown = json.loads(run("ip", "-j", "-6", "addr", "show", "dev", a.host_interface))
        assert [(held["local"], held["prefixlen"]) for held in shown[0]["addr_info"]] == [
            ("fe80::1", 64)
        ]
        for _ in range(2):
            # the first may come before the kernel has seen the carrier
            run("ip", "netns", "exec", one, "ping", "-nc3", "-i0.2", "-W5", "fe80::1%eth0")
            run("ip", "-n", one, "-6", "neigh", "flush", "dev", "eth0", "nud", "permanent")
        await kernel.close()

    in_fresh_namespace(body)
