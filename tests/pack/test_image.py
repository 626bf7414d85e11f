"""The image: built by a real dockerd, then server, speaker and agent run from it as
docs/install.md says, and a workload is attached through the agent's container.

The dockerd, and all that its containers send, is inside a namespace of the test's own.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.docker import Docker, dockerd
from support.labs import child_of
from support.netns import run
from support.proxy import proxy

from routed.lab.processes import wait_for

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
QUIET = ["--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false"]
SOON = ["--health-interval=1s", "--health-retries=1", "--health-timeout=10s"]
UID = 6780
DOCUMENT = ROOT / "docs" / "install.md"


@pytest.fixture(scope="module")
def docker(host: str, debian: Path) -> Iterator[Docker]:
    """A dockerd in the host's network, with the image built."""
    with dockerd(host, *QUIET, "--bridge=none") as found, proxy(host) as url:
        found.import_root(debian, "debian:12-slim")
        proxies = [f"--build-arg={name}={url}" for name in ("http_proxy", "https_proxy")]
        words = ["build", "--network=host", *proxies, "--tag=routed", str(ROOT)]
        found.run(*words, timeout=400)
        yield found


@pytest.fixture(scope="module")
def places(docker: Docker) -> Path:
    """Where the host's directories are, for what is documented as being under /."""
    top = docker.directory / "host"
    for name in ("etc/routed", "run/routed", "var/lib/routed"):
        (top / name).mkdir(parents=True)
    for name in ("run/routed/speaker", "var/lib/routed-speaker", "var/lib/routed-server"):
        (top / name).mkdir(mode=0o700)
        os.chown(top / name, UID, UID)
    shutil.copy(ROOT / "examples" / "settings" / "agent.yaml", top / "etc/routed")
    shutil.copytree(ROOT / "examples", top / "etc/routed/examples")
    return top


def documented(program: str, places: Path) -> list[str]:
    """The words that run `program`, as they are documented, but for where the host's files are."""
    text = DOCUMENT.read_text(encoding="utf-8").replace("\\\n", " ")
    line = next(line for line in text.splitlines() if f"--name routed-{program} " in line)
    words = line.removeprefix("docker run").split()
    for at, word in enumerate(words):
        if words[at - 1] == "--volume" and word.startswith(("/etc", "/var", "/run/routed")):
            words[at] = f"{places}{word}"
    return ["run", *SOON, *words]


def documented_join(places: Path) -> list[str]:
    """The words that make the host a node."""
    text = DOCUMENT.read_text(encoding="utf-8").replace("\\\n", " ")
    line = next(line for line in text.splitlines() if " routed join " in line and "docker" in line)
    words = line.partition("<")[0].removeprefix("docker").split()
    return [f"{places}{word}" if word.startswith("/etc/routed:") else word for word in words]


def healthy(docker: Docker, name: str) -> bool:
    return bool(docker.inspect(f"routed-{name}")["State"]["Health"]["Status"] == "healthy")


def pid_of(docker: Docker, name: str) -> int:
    """That of the program: the container's first process, or the child of its init."""
    first = docker.inspect(f"routed-{name}")["State"]["Pid"]
    return child_of(first, "/routed") or first


def status(docker: Docker, name: str) -> dict[str, str]:
    """/proc/PID/status of the program in a container."""
    text = Path(f"/proc/{pid_of(docker, name)}/status").read_text(encoding="ascii")
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


@pytest.fixture(scope="module")
def programs(docker: Docker, places: Path) -> Docker:
    """All three, running and healthy."""
    docker.run(*documented("server", places))
    wait_for("the server being healthy", lambda: healthy(docker, "server"))
    ctl = ["exec", "routed-server", "routectl", "--kubeconfig", "/var/lib/routed/admin.kubeconfig"]
    docker.run(*ctl, "apply", "-f", "/etc/routed/examples")
    token = docker.run(*ctl, "token", "create", "--node", "host1").stdout
    docker.run(*documented_join(places), input=token)
    for name in ("speaker", "agent"):
        docker.run(*documented(name, places))
        wait_for(f"the {name} being healthy", lambda name=name: healthy(docker, name))
    return docker


def test_nothing_but_what_is_needed_is_in_it(docker: Docker) -> None:
    history = docker.run("history", "--no-trunc", "--format={{.CreatedBy}}", "routed").stdout
    assert "127.0.0.1" not in history, "no proxy of the build is kept"
    image = docker.inspect("routed")["Config"]
    assert image["User"] == "routed"
    assert [one for one in image["Env"] if not one.startswith("PATH=")] == []
    look = ["run", "--rm", "--network=none", "--entrypoint=find", "routed", "/", "-xdev"]
    secrets = ["-name", "*.kubeconfig", "-o", "-name", "*.key", "-o", "-name", ".git"]
    assert docker.run(*look, "(", *secrets, ")", check=False).stdout == ""
    packages = docker.run(*look, "-name", "*.dist-info", check=False).stdout
    assert "exabgp" in packages
    for name in ("pytest", "mypy", "ruff", "pip-", "setuptools"):
        assert name not in packages


@pytest.mark.parametrize("name", ["server", "speaker"])
def test_server_and_speaker_are_nobody_with_no_right(programs: Docker, name: str) -> None:
    found = status(programs, name)
    assert found["Uid"].split() == [str(UID)] * 4
    assert int(found["CapEff"], 16) == int(found["CapPrm"], 16) == 0


def test_a_workload_is_attached_through_the_agents_container(
    programs: Docker, host: str, namespaces: Callable[[str], str]
) -> None:
    namespace = namespaces("web")
    wait_for("the agent being ready", lambda: "ok" in ready(programs))
    said = programs.run(
        "exec", "routed-agent", "routectl", "attach", "web", "--netns", namespace
    ).stdout
    address = said.split()[-1]
    ping = ["ping", "-n", "-c1", "-W1", address]
    run("nsenter", f"--net=/run/netns/{host}", *ping)
    assert "inet 10.65.0.0/32" in run("ip", "-n", namespace, "addr", "show", "dev", "eth0")
    told = programs.run("exec", "routed-agent", "routectl", "bgp", "status").stdout
    assert "advertised: 1 prefix" in told, "the speaker's container was told"

    programs.run("stop", "routed-agent")
    run("nsenter", f"--net=/run/netns/{host}", *ping)
    programs.run("start", "routed-agent")
    wait_for("the agent being ready again", lambda: "ok" in ready(programs))
    programs.run("exec", "routed-agent", "routectl", "detach", "web")
    wait_for("the links being gone", lambda: "rt" not in run("ip", "-n", host, "-br", "link"))


def ready(docker: Docker) -> str:
    ask = "import httpx; print(httpx.Client(transport=httpx.HTTPTransport("
    ask += "uds='/run/routed/agent.sock')).get('http://agent/readyz').text)"
    return docker.run(
        "exec", "routed-agent", "/opt/routed/bin/python", "-c", ask, check=False
    ).stdout


@pytest.mark.parametrize("name", ["server", "speaker", "agent"])
def test_one_that_hangs_is_unhealthy(programs: Docker, name: str) -> None:
    pid = pid_of(programs, name)
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(f"the {name} being unhealthy", lambda: not healthy(programs, name), 30)
        last = programs.inspect(f"routed-{name}")["State"]["Health"]["Log"][-1]["Output"]
        assert last.startswith(f"{name}: "), last
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(f"the {name} being healthy", lambda: healthy(programs, name), 30)
