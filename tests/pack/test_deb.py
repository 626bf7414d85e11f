"""The package: built, installed in a minimal Debian, its units started by hand, a workload attached
and announced; then removed, installed again and purged, while the workload goes on answering."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.netns import run
from support.units import Unit

from routed.lab.processes import Process, wait_for

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
SWITCH = """
log stderr { warning, error, fatal, bug };
router id 192.0.2.254;
protocol device { }
protocol kernel { ipv4 { import none; export all; }; }
protocol bgp nodes {
  local 192.0.2.254 as 65001;
  neighbor range 192.0.2.0/24 external;
  dynamic name "node";
  graceful restart aware;
  ipv4 { import all; export none; next hop self; };
}
"""
DECLARED = """
apiVersion: routed.dev/v1
kind: IPPool
metadata: {name: main}
spec: {cidr: 10.65.0.0/16, blockSize: 26}
---
apiVersion: routed.dev/v1
kind: BGPPeer
metadata: {name: switch}
spec: {peerIP: 192.0.2.254, asNumber: 65001, holdTime: 9}
"""
PLAIN = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
ADMIN = "/var/lib/routed-server/admin.kubeconfig"


@pytest.fixture(scope="module")
def package() -> Path:
    """Built from this checkout."""
    done = subprocess.run([ROOT / "scripts/deb"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ROOT / done.stdout.split()[-1]


class Host:
    """A Debian with the package, in the network `name`, and a switch with BIRD."""

    def __init__(self, root: Path, name: str, switch: str) -> None:
        self.root, self.name, self.switch = root, name, switch
        self.control = root.parent / "bird.ctl"

    def inside(self, *words: str, check: bool = True, text: str = "") -> str:
        """A command in the Debian and the host's network."""
        whole = ["nsenter", f"--net=/run/netns/{self.name}", "chroot", str(self.root), *words]
        return self._run(whole, check=check, text=text)

    def packages(self, *words: str) -> str:
        """A package manager in the Debian, and in the network of this machine."""
        environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
        return self._run(["chroot", str(self.root), *environment, *words], check=True, text="")

    def pings(self, namespace: str, address: str) -> bool:
        words = ["nsenter", f"--net=/run/netns/{namespace}", "ping", "-n", "-c1", "-W1", address]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    def known(self) -> str:
        """The switch's table."""
        words = ["birdc", "-s", str(self.control), "show", "route"]
        return self._run(words, check=False, text="")

    def kernel(self) -> list[str]:
        """Links, routes, neighbours and rules of the host."""
        found = [run("ip", "-n", self.name, *words.split())
                 for words in ("-br link", "route", "neigh show nud permanent")]  # fmt: skip
        return [*found, run("nsenter", f"--net=/run/netns/{self.name}", "nft", "-s", "list",
                            "ruleset")]  # fmt: skip

    @staticmethod
    def _run(words: list[str], *, check: bool, text: str) -> str:
        done = subprocess.run(
            words, input=text, capture_output=True, text=True, check=False, timeout=300, env=PLAIN
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def installed(
    host: str, debian: Path, package: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    """The package in a Debian of its own, installed by apt."""
    top = tmp_path_factory.mktemp("deb")
    switch = f"{host}-switch"
    run("ip", "netns", "add", switch)
    run("cp", "-a", str(debian), str(top / "root"))
    found = Host(top / "root", host, switch)
    shutil.copy(package, found.root / "routed.deb")
    run("ip", "-n", host, "link", "set", "up1", "netns", switch)
    run("ip", "-n", switch, "addr", "add", "192.0.2.254/24", "dev", "up1")
    run("ip", "-n", switch, "link", "set", "up1", "up")
    run("mount", "-t", "proc", "proc", str(found.root / "proc"))
    (top / "bird.conf").write_text(SWITCH)
    words = ["nsenter", f"--net=/run/netns/{switch}", "bird", "-f"]
    bird = Process("bird", [*words, "-c", f"{top}/bird.conf", "-s", str(found.control)], top)
    bird.start()
    try:
        found.packages("apt-get", "update", "-q")
        found.packages("apt-get", "install", "-qy", "--no-install-recommends", "/routed.deb")
        yield found
    finally:
        bird.stop()
        run("umount", str(found.root / "proc"))
        run("ip", "netns", "del", switch)
        shutil.rmtree(top)


def test_it_depends_on_what_it_needs_and_names_no_place_of_its_building(installed: Host) -> None:
    assert "routed" in installed.inside("routed", "--help")
    look = installed.inside("grep", "-rlF", str(ROOT), "/usr/lib/routed", check=False)
    assert look == ""
    assert installed.inside("dpkg", "--verify", "routed") == ""
    users = installed.inside("getent", "passwd", "routed-server", "routed-speaker")
    assert users.count("nologin") == 2
    for name in ("pytest", "mypy", "setuptools"):
        assert not list(installed.root.glob(f"usr/lib/routed/lib/*/site-packages/{name}*"))
    assert list(installed.root.glob("usr/lib/routed/lib/*/site-packages/api/__pycache__/*.pyc"))


def test_it_brings_the_plugin_and_the_completion(installed: Host) -> None:
    assert "Usage: kubectl routed" in installed.inside("kubectl-routed", "--help")
    assert installed.inside("kubectl_complete-routed", "get", "netpo").startswith("netpol\t")
    for place in (
        "bash-completion/completions/routectl",
        "bash-completion/completions/kubectl-routed",
        "zsh/vendor-completions/_routectl",
        "fish/vendor_completions.d/routectl.fish",
    ):
        text = (installed.root / "usr/share" / place).read_text(encoding="utf-8")
        assert "routectl __complete" in text, place


def healthy(host: Host) -> str:
    return host.inside("routed", "healthcheck", check=False)


def test_removing_it_leaves_workloads_alone(
    installed: Host, namespaces: Callable[[str], str], request: pytest.FixtureRequest
) -> None:
    host = installed
    server, speaker, agent = (
        Unit(host.root, f"routed-{name}", host.name) for name in ("server", "speaker", "agent")
    )
    for unit in (server, speaker, agent):
        request.addfinalizer(unit.stop)
    settings = host.root / "etc/routed/server.yaml"
    settings.write_text(settings.read_text().replace("advertise: []", "advertise: [192.0.2.1]"))
    server.start()
    server.wait("the server", lambda: "server: ok" in healthy(host))
    ctl = ["routectl", "--kubeconfig", ADMIN]
    host.inside(*ctl, "apply", "-f", "-", text=DECLARED)
    name = host.inside("hostname").strip().lower()
    token = host.inside(*ctl, "token", "create", "--node", name)
    host.inside("routed", "join", "--config", "/etc/routed/agent.yaml", text=token)
    speaker.start()
    agent.start()
    agent.wait("the agent", lambda: "agent: ok" in healthy(host))
    speaker.wait("the speaker", lambda: "speaker: ok" in healthy(host))
    doctor = ["routed", "doctor", "--config", "/etc/routed/agent.yaml"]
    agent.wait("doctor", lambda: "attaching will work" in host.inside(*doctor, check=False))
    for unit, rights in ((server, False), (speaker, False), (agent, True)):
        assert unit.child is not None
        status = Path(f"/proc/{unit.child.pid}/status").read_text(encoding="ascii")
        assert ("Uid:\t0\t" in status) is rights, "server and speaker are nobody"
        assert ("CapEff:\t0000000000000000" not in status) is rights

    inner = namespaces("workload")
    holder = subprocess.Popen(["nsenter", f"--net=/run/netns/{inner}", "sleep", "600"])
    request.addfinalizer(holder.wait)
    request.addfinalizer(holder.kill)
    said = host.inside("routectl", "attach", "web", "--netns", f"/proc/{holder.pid}/ns/net")
    address = said.split()[-1]
    wait_for("the switch knowing it", lambda: f"{address}/32" in host.known())
    wait_for("a ping from the switch", lambda: host.pings(host.switch, address))
    before = host.kernel()

    agent.stop()  # as prerm does
    server.stop()
    host.packages("dpkg", "--remove", "routed")
    assert not (host.root / "usr/lib/routed").exists()
    assert (host.root / "etc/routed/agent.yaml").exists(), "it was not purged"
    assert host.kernel() == before
    assert f"{address}/32" in host.known(), "what it said of workloads that run is true"
    assert host.pings(host.switch, address)

    host.packages("dpkg", "--install", "/routed.deb")
    assert speaker.child is not None
    speaker.child.kill()  # as postinst does; systemd starts it again
    speaker.child.wait()
    speaker.start()
    server.start()
    agent.start()
    listed = ["routectl", "--kubeconfig", ADMIN, "get", "workloads", "-o", "wide"]
    agent.wait("the attachment", lambda: address in host.inside(*listed, check=False))
    agent.stop()
    server.stop()
    host.packages("dpkg", "--remove", "routed")
    assert host.kernel() == before, "the next agent changed nothing"
    assert host.pings(host.switch, address)

    speaker.stop()  # as postrm does, when it is purged
    wait_for("the withdrawal", lambda: address not in host.known(), 5)
    host.packages("dpkg", "--purge", "routed")
    assert not (host.root / "etc/routed").exists()
    assert not list((host.root / "var/lib").glob("routed*"))
    assert host.kernel() == before
    assert host.pings(host.name, address)


def test_what_systemd_is_told(installed: Host) -> None:
    """The scripts' calls, by a systemctl that writes them down and says that all are active."""
    log = installed.root / "calls"
    (installed.root / "run/systemd/system").mkdir(parents=True)
    program = installed.root / "usr/local/bin/systemctl"
    program.write_text('#!/bin/sh\necho "$*" >> /calls\n')
    program.chmod(0o755)

    def calls(*words: str) -> list[str]:
        log.write_text("")
        installed.packages("dpkg", *words)
        return log.read_text().splitlines()

    installed.packages("dpkg", "--purge", "routed")
    agent, server, speaker = (f"routed-{one}.service" for one in ("agent", "server", "speaker"))
    upgraded = [
        "daemon-reload",
        f"try-restart {server} {agent}",
        f"is-active --quiet {speaker}",
        f"kill --signal=KILL {speaker}",
    ]
    assert calls("--install", "/routed.deb") == upgraded
    assert calls("--install", "/routed.deb") == upgraded
    assert calls("--remove", "routed") == [
        f"stop {agent} {server}",
        f"is-active --quiet {speaker}",
    ]
    assert calls("--purge", "routed") == [f"stop {speaker}", "daemon-reload"]


def test_units_are_ones_that_systemd_knows(package: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    run("dpkg-deb", "-x", str(package), str(tmp_path))
    units = sorted(tmp_path.glob("usr/lib/systemd/system/*.service"))
    assert len(units) == 3
    words = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no"]
    done = subprocess.run(
        [*words, f"--root={tmp_path}", *(f"/{unit.relative_to(tmp_path)}" for unit in units)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "routed" not in done.stderr
