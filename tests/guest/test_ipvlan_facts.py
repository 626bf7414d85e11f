"""What the kernel does with ipvlan, as far as the drivers and docs/modes.md rely on it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest
from support.netns import in_fresh_namespace, run

Make = Callable[[str], str]


def ip(*words: str) -> str:
    """What `ip` says, or why it cannot."""
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else f"refused: {done.stderr.strip()}"


def uplink() -> None:
    run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "far0")
    for name in ("up0", "far0"):
        run("ip", "link", "set", name, "up")


def slave(name: str, mode: str, netns: str | None = None, parent: str = "up0") -> str:
    where = ("netns", netns) if netns else ()
    return ip("link", "add", "link", parent, "name", name, *where, "type", "ipvlan", "mode", mode)


def mode_of(netns: str, name: str) -> str:
    shown = json.loads(run("ip", "-n", netns, "-d", "-j", "link", "show", "dev", name))[0]
    return str(shown["linkinfo"]["info_data"]["mode"])


def test_the_last_slave_made_decides_on_the_mode_of_all(namespaces: Make) -> None:
    one, other = namespaces("a"), namespaces("b")

    async def body() -> None:
        uplink()
        slave("eth0", "l3s", one)
        assert mode_of(one, "eth0") == "l3s"
        slave("eth0", "l3", other)
        assert mode_of(one, "eth0") == "l3"

    in_fresh_namespace(body)


def test_one_address_is_never_on_two_slaves(namespaces: Make) -> None:
    one, other = namespaces("a"), namespaces("b")

    async def body() -> None:
        uplink()
        for name in (one, other):
            slave("eth0", "l3s", name)
        run("ip", "-n", one, "addr", "add", "10.65.0.1/32", "dev", "eth0")
        said = ip("-n", other, "addr", "add", "10.65.0.1/32", "dev", "eth0")
        assert said.startswith("refused: ")
        assert "already assigned" in said

    in_fresh_namespace(body)


@pytest.mark.parametrize("kind", ["bridge", "bond", "macvlan"])
def test_a_parent_that_has_another_user_is_busy(kind: str) -> None:
    async def body() -> None:
        uplink()
        if kind == "macvlan":
            run("ip", "link", "add", "link", "up0", "name", "m0", "type", "macvlan")
        else:
            run("ip", "link", "add", "x0", "type", kind)
            run("ip", "link", "set", "up0", "down")
            run("ip", "link", "set", "up0", "master", "x0")
        assert "resource busy" in slave("s0", "l3s")

    in_fresh_namespace(body)


@pytest.mark.parametrize("mode", ["l3", "l3s"])
def test_a_host_reaches_its_workload_only_by_a_slave_of_its_own(
    namespaces: Make, mode: str
) -> None:
    one = namespaces("a")

    def answered() -> bool:
        words = ["ping", "-n", "-c1", "-W3", "10.65.0.1"]
        return subprocess.run(words, check=False, capture_output=True).returncode == 0

    async def body() -> None:
        uplink()
        run("ip", "addr", "add", "192.0.2.1/24", "dev", "up0")
        slave("eth0", mode, one)
        run("ip", "-n", one, "link", "set", "eth0", "up")
        run("ip", "-n", one, "addr", "add", "10.65.0.1/32", "dev", "eth0")
        run("ip", "-n", one, "route", "add", "default", "dev", "eth0")
        run("ip", "route", "add", "10.65.0.1/32", "dev", "up0")
        assert not answered()
        slave("own0", mode)
        run("ip", "link", "set", "own0", "up")
        run("ip", "route", "replace", "10.65.0.1/32", "dev", "own0")
        assert answered()

    in_fresh_namespace(body)
