"""What fault tests do to switches, and the streams that go through them meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from routed.lab import bird, fabric
from routed.lab.fabric import command
from routed.lab.lab import Lab
from routed.lab.prober import Probe, Stream
from routed.lab.processes import wait_for
from routed.lab.switch import TorDaemon
from support.labs import Workloads


@contextmanager
def reconfigured(
    lab: Lab, tor: str, routes: int = 0, *, restarting: bool = False
) -> Iterator[None]:
    """Within, the ToR announces `routes` /32s of the pool, and speaks GR for itself if
    `restarting`."""
    path = lab.directory / f"{tor}.conf"
    before = path.read_text(encoding="ascii")
    many = "".join(
        f"  route 10.65.{200 + n // 250}.{n % 250}/32 unreachable;\n" for n in range(routes)
    )
    text = before.replace(
        "filter to_hosts {", 'filter to_hosts {\n  if proto = "many" then accept;'
    )
    text += f"protocol static many {{ ipv4;\n{many}}}\n"
    if restarting:
        # BIRD's recovery waits for the listener of a range too, which never comes up
        text = "graceful restart wait 10;\n" + text.replace("log stderr {", "log stderr { trace,")
        text = text.replace("graceful restart aware;", "graceful restart on; debug { packets };")
    path.write_text(text, encoding="ascii")
    bird.ask(lab.directory, tor, "configure")
    try:
        yield
    finally:
        path.write_text(before, encoding="ascii")
        bird.ask(lab.directory, tor, "configure")
        wait_for("every session being up", lab.established, 30)


@contextmanager
def announcing(lab: Lab, tor: str, count: int) -> Iterator[None]:
    """Within, the ToR announces `count` /32s of the pool, whatever runs on it."""
    if lab.tor_daemon is not TorDaemon.FRR:
        with reconfigured(lab, tor, routes=count):
            yield
        return
    number = next(one.as_number for one in lab.top.tors if one.namespace == tor)
    home = lab.directory / f"{tor}-frr"

    def say(no: str = "") -> None:
        lines = [f"router bgp {number}", "no bgp network import-check"]
        lines += ["address-family ipv4 unicast"]
        lines += [f"{no}network {prefix}" for prefix in many(count)]
        path = home / "many.conf"
        path.write_text("\n".join(lines) + "\n", encoding="ascii")
        command("vtysh", "--vty_socket", str(home), "-d", "bgpd", "-f", str(path), timeout=120)

    say()
    try:
        yield
    finally:
        say("no ")


def many(count: int) -> list[str]:
    return [f"10.65.{200 + n // 250}.{n % 250}/32" for n in range(count)]


def learned(lab: Lab, host: str) -> int:
    """How many /32s of those routes the host's kernel holds."""
    routes = fabric.routes(f"{lab.top.name}-{host}")
    third = [str(route["dst"]).split(".")[2:3] for route in routes]
    return sum(bool(found) and found[0].isdigit() and int(found[0]) >= 200 for found in third)


def streams_through(lab: Lab, workloads: Workloads) -> tuple[str, str]:
    namespace, address = workloads.attach("host1", "steady")
    wait_for("the switches knowing it", lambda: lab.tor_has(f"{address}/32"))
    wait_for("the way in", lambda: lab.ping(lab.top.client, address), 5)
    return namespace, address


def through_fault(lab: Lab, target: tuple[str, str], fault: object) -> tuple[Stream, Stream]:
    """Both streams while `fault()` happens and until all sessions are up again."""
    probe = Probe((lab.top.client, "172.28.0.1"), target)
    try:
        assert callable(fault)
        fault()
        return probe.finish()
    except BaseException:
        probe.abort()
        raise
