"""Who removed routes of ours, told by the kernel and found in /proc."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path

import pytest
from support.netns import in_fresh_namespace, run

from routed.kernel.linux import LinuxKernel
from routed.kernel.removals import BURST_SECONDS, UNKNOWN, WALK_SECONDS, Removal, Removals
from routed.state import HostState

pytestmark = pytest.mark.root
HOLES = [ip_network("10.65.0.0/26"), ip_network("10.65.0.64/26")]
SECOND_SOCKET = """
import socket, sys
from pyroute2 import IPRoute
first = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
first.bind((0, 0))
with IPRoute() as route:
    print("ready", flush=True)
    for line in sys.stdin:
        route.route("del", dst=line.strip(), type="blackhole", proto=82)
        print("done", flush=True)
"""


def long_lived(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(words, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def until_removals(kernel: LinuxKernel, count: int) -> list[Removal]:
    async with asyncio.timeout(5):
        while sum(one.count for one in kernel.removals) < count:
            await asyncio.sleep(0.01)
    return list(kernel.removals)


def test_a_program_that_runs_is_named_and_one_that_ended_is_not() -> None:
    async def body() -> None:
        kernel = LinuxKernel()
        desired = HostState(blackholes=frozenset(HOLES))
        await kernel.sync(desired)
        await kernel.sync(HostState(blackholes=frozenset(HOLES[:1]), sweep=True))
        await kernel.sync(desired)
        assert not kernel.removals, "what we do ourselves is nobody's"
        with long_lived("ip", "-batch", "-") as child:
            assert child.stdin is not None
            for prefix in HOLES:
                child.stdin.write(f"route del blackhole {prefix}\n")
            child.stdin.flush()
            found = await until_removals(kernel, 2)
            child.stdin.close()
        assert [(one.program, one.pid, one.count) for one in found] == [("ip", child.pid, 2)]
        assert (await kernel.sync(desired)).changed == 2
        run("ip", "route", "del", "blackhole", str(HOLES[0]))
        found = await until_removals(kernel, 3)
        assert (found[-1].program, found[-1].pid) == (UNKNOWN, 0)
        await kernel.close()

    in_fresh_namespace(body)


def test_a_socket_that_is_not_the_first_of_its_program() -> None:
    async def body() -> None:
        kernel = LinuxKernel()
        await kernel.sync(HostState(blackholes=frozenset(HOLES)))
        with long_lived(sys.executable, "-c", SECOND_SOCKET) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            child.stdin.write(f"{HOLES[0]}\n")
            child.stdin.flush()
            assert child.stdout.readline() == "done\n"
            found = await until_removals(kernel, 1)
            child.stdin.close()
        assert found[0].pid == child.pid
        assert found[0].program.startswith("python")
        await kernel.close()

    in_fresh_namespace(body)


NAMED_BY_BYTES = """
import socket, sys
from pyroute2 import IPRoute
open("/proc/self/comm", "wb").write(b"caf\\xe9")
with IPRoute() as route:
    route.route("del", dst=sys.argv[1], type="blackhole", proto=82)
    print("done", flush=True)
    sys.stdin.read()
"""


def test_the_name_of_a_program_may_be_any_bytes() -> None:
    async def body() -> None:
        kernel = LinuxKernel()
        await kernel.sync(HostState(blackholes=frozenset(HOLES)))
        with long_lived(sys.executable, "-c", NAMED_BY_BYTES, str(HOLES[0])) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "done\n"
            (found,) = await until_removals(kernel, 1)
            child.communicate()
        assert (found.program, found.pid) == ("caf\ufffd", child.pid)
        await kernel.close()

    in_fresh_namespace(body)


def test_what_is_not_understood_does_not_make_it_deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bool:
        raise ValueError("no such thing was thought of")

    async def body() -> None:
        kernel = LinuxKernel()
        await kernel.sync(HostState(blackholes=frozenset(HOLES)))
        with monkeypatch.context() as patched:
            patched.setattr(Removals, "note", fail)
            run("ip", "route", "del", "blackhole", str(HOLES[0]))
            async with asyncio.timeout(5):
                while not kernel.overflows:
                    await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            await anext(aiter(kernel.watch()))
        run("ip", "route", "del", "blackhole", str(HOLES[1]))
        await until_removals(kernel, 1)
        await kernel.close()

    in_fresh_namespace(body)


def test_every_process_is_looked_at_once_a_second_at_most(tmp_path: Path) -> None:
    """Ports 1 and 5 are of process 1, ports 2 and 6 of process 2, of two programs that take turns;
    nobody is seen to have port 9."""
    (tmp_path / "net").mkdir()
    rows = [f"x 0 {port} 0 0 0 0 2 0 {10 * port}\n" for port in (1, 2, 5, 6, 9)]
    (tmp_path / "net/netlink").write_text("head\n" + "".join(rows))
    for pid, inodes in ((1, (10, 50)), (2, (20, 60))):
        (tmp_path / f"{pid}/fd").mkdir(parents=True)
        (tmp_path / f"{pid}/comm").write_text(f"p{pid}\n")
        for inode in inodes:
            (tmp_path / f"{pid}/fd/{inode}").symlink_to(f"socket:[{inode}]")
    walks = 0

    class Counted(Removals):
        def _pids(self) -> list[int]:
            nonlocal walks
            walks += 1
            return super()._pids()

    found = Counted(tmp_path)
    for n in range(6):
        found.note((1, 2)[n % 2], 10 + n / 100)
    assert [one.program for one in found.recent] == ["p1", "p2"] * 3
    assert walks == 0, "the port is the process's id"
    for n in range(6):
        found.note((5, 6, 9)[n % 3], 20 + n / 100)
    assert [one.program for one in found.recent][6:] == ["p1", "p2", UNKNOWN] * 2
    assert walks == 1
    found.note(9, 20 + 2 * WALK_SECONDS)
    assert walks == 2


def test_a_link_that_goes_down_is_nobodys_doing() -> None:
    async def body() -> None:
        run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up0p")
        for name in ("up0", "up0p"):
            run("ip", "link", "set", name, "up")
        run("ip", "addr", "add", "192.0.2.1/24", "dev", "up0")
        kernel = LinuxKernel()
        await kernel.sync(HostState(blackholes=frozenset(HOLES)))
        for route in ("198.51.100.0/24", "2001:db8::/64"):
            run("ip", "route", "add", route, "dev", "up0", "proto", "82")
        run("ip", "link", "set", "up0", "down")
        run("ip", "route", "del", "blackhole", str(HOLES[0]))
        found = await until_removals(kernel, 1)
        assert sum(one.count for one in found) == 1
        await kernel.close()

    in_fresh_namespace(body)


def test_removals_in_one_moment_are_once() -> None:
    found = Removals()
    assert found.note(1, 10.0)
    assert not found.note(1, 10.0 + BURST_SECONDS / 2)
    assert not found.note(1, 10.0 + BURST_SECONDS)
    assert found.note(1, 20.0)
    assert found.note(2, 20.0)
    assert [one.count for one in found.recent] == [3, 1, 1]
    assert found.recent[0].last == 10.0 + BURST_SECONDS
