"""A rack whose links have IPv6 addresses alone: sessions over IPv6, IPv4 over IPv6 next hops."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest
from support.labs import EXAMPLES, Workloads, doctor, exabgp_of, running_lab

from routed.lab import bird, fabric
from routed.lab.fabric import command
from routed.lab.lab import Lab
from routed.lab.processes import wait_for
from routed.lab.switch import TorDaemon
from routed.lab.topology import Family

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module", params=[TorDaemon.BIRD, TorDaemon.FRR])
def six_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    daemon: TorDaemon = request.param
    six = EXAMPLES / "ipv6" / "ippool.yaml"
    with running_lab(f"x{daemon[0]}", daemon, 40, Family.IPV6, (six,)) as found:
        yield found


@pytest.fixture
def attached(six_lab: Lab) -> Iterator[Workloads]:
    with Workloads(six_lab) as found:
        yield found


def test_both_families_over_ipv6(six_lab: Lab, attached: Workloads) -> None:
    lab = six_lab
    host = f"{lab.top.name}-host1"
    held = json.loads(command("ip", "-n", host, "-j", "-4", "addr"))
    assert [one["local"] for link in held for one in link["addr_info"]] == ["127.0.0.1"]
    both: dict[str, tuple[str, str, str]] = {}
    for number in (1, 2):
        namespace, _ = attached.attach(f"host{number}", "w", ipFamilies=["IPv4", "IPv6"])
        four, six = lab.local(f"host{number}").get("/v1/attachments/w").json()["addresses"]
        both[f"host{number}"] = (namespace, four, six)
        wait_for("the switches knowing both", lambda f=four, s=six: (  # type: ignore[misc]
            lab.tor_has(f"{f}/32") and lab.tor_has(f"{s}/128")
        ))  # fmt: skip
        for tor in lab.top.tors:
            hops, known = lab.top.hosts[number - 1].address6(tor), lab.tor_prefixes(tor.namespace)
            assert known[f"{four}/32"] == known[f"{six}/128"] == [hops]
    (here, *mine), (there, *theirs) = both["host1"], both["host2"]
    for source, targets in ((here, theirs), (there, mine), (lab.top.client, [mine[1], theirs[1]])):
        for address in targets:
            wait_for(f"a ping to {address}", lambda s=source, a=address: lab.ping(s, a))  # type: ignore[misc]
    # IPv4 prefixes, and IPv4's default route, over both switches' IPv6 addresses
    for prefix in (theirs[0], "default"):
        (route,) = [one for one in fabric.routes(host) if one["dst"] == prefix]
        ways = [hop["via"] for hop in route["nexthops"]]  # type: ignore[attr-defined]
        expected = [{"family": "inet6", "host": tor.address6} for tor in lab.top.tors]
        assert sorted(ways, key=str) == expected
    status = lab.local("host1").get("/v1/status").json()
    assert {one["error"] for one in status["bgp"]["sessions"]} == {""}
    assert not status["failed"]
    code, found = doctor(lab)
    assert (code, found["switch tor1"]["verdict"]) == (0, "ok")
    configuration = lab.directory / "host1" / "run" / "exabgp" / "exabgp.conf"
    identifier = configuration.read_text().partition("router-id ")[2].partition(";")[0]
    assert IPv4Address(identifier) != IPv4Address(0)
    assert lab.local("host1").delete("/v1/attachments/w").status_code in (200, 204)
    gone = (f"{mine[0]}/32", f"{mine[1]}/128")
    took = wait_for("the withdrawal", lambda: all(map(lab.tor_lacks, gone)), 5)
    print(f"withdrawn after {took:.1f} s")


def test_both_are_kept_while_exabgp_is_killed(six_lab: Lab, attached: Workloads) -> None:
    lab = six_lab
    attached.attach("host1", "k", ipFamilies=["IPv4", "IPv6"])
    four, six = lab.local("host1").get("/v1/attachments/k").json()["addresses"]
    prefixes = (f"{four}/32", f"{six}/128")
    wait_for("the switches knowing both", lambda: all(map(lab.tor_has, prefixes)))
    child = exabgp_of(lab.speakers["host1"].pid)
    os.kill(child, signal.SIGKILL)

    def back() -> bool:
        assert all(map(lab.tor_has, prefixes)), "a route was missing"
        return exabgp_of(lab.speakers["host1"].pid) not in (0, child) and lab.established()

    wait_for("new sessions", back, 40)
    lab.local("host1").delete("/v1/attachments/k")
    took = wait_for("the withdrawal", lambda: all(map(lab.tor_lacks, prefixes)), 5)
    print(f"withdrawn after {took:.1f} s")


@pytest.mark.parametrize("six_lab", [TorDaemon.BIRD], indirect=True)
def test_a_family_that_a_session_cannot_carry_is_found_by_doctor(six_lab: Lab) -> None:
    """Without RFC 8950 there would have to be an IPv4 address on the link."""
    lab = six_lab
    path = lab.directory / f"{lab.tor_namespaces[0]}.conf"
    before = path.read_text(encoding="ascii")
    path.write_text(before.replace("extended next hop on;", ""), encoding="ascii")
    bird.ask(lab.directory, lab.tor_namespaces[0], "configure")
    try:
        wait_for("the finding", lambda: "families of tor1" in doctor(lab)[1], 40)
        found = doctor(lab)[1]["families of tor1"]
        assert "IPv4 is not announced" in found["found"]
        assert found["verdict"] == "warn"
    finally:
        path.write_text(before, encoding="ascii")
        bird.ask(lab.directory, lab.tor_namespaces[0], "configure")
    wait_for("no finding", lambda: "families of tor1" not in doctor(lab)[1], 40)
