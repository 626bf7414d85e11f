"""A running lab: the fabric, routing daemons on the switches, BIRD on the client, the programs."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx

from routed.lab import bird, fabric
from routed.lab.fabric import LabError, prefix
from routed.lab.processes import Process, wait_for
from routed.lab.switch import TorDaemon, check_installed, switch_of
from routed.lab.topology import Family, Host, Topology, topology

BASE = Path("/run/routed-lab")
PORT = 6780


class Lab:
    """The lab called `name`; another command's lab of that name is the same one."""

    def __init__(
        self,
        name: str,
        hosts: int = 2,
        tors: int = 2,
        tor_daemon: TorDaemon = TorDaemon.BIRD,
        family: Family = Family.BOTH,
    ) -> None:
        self.directory = BASE / name
        saved = self.directory / "lab.json"
        if saved.exists():
            held = json.loads(saved.read_text(encoding="ascii"))
            hosts, tors = held["hosts"], held["tors"]
            tor_daemon, family = TorDaemon(held["torDaemon"]), Family(held.get("family", "both"))
        self.tor_daemon = tor_daemon
        self.top: Topology = topology(name, hosts, tors, family)
        self._saved = saved
        self._clients: dict[str, httpx.Client] = {}
        self._daemons: list[Process] = []
        server = ["server", "--data-dir", str(self.directory / "server")]
        server += ["--listen", f"{self.top.server}:{PORT}"]
        self.server = self._program("server", self.top.management, server)
        self.agents = {h.name: self._of_host(h, "agent") for h in self.top.hosts}
        self.speakers = {h.name: self._of_host(h, "speaker") for h in self.top.hosts}

    @property
    def exists(self) -> bool:
        return self._saved.exists()

    @property
    def admin(self) -> Path:
        """The administrator's kubeconfig."""
        return self.directory / "server" / "admin.kubeconfig"

    @property
    def tor_namespaces(self) -> list[str]:
        return [tor.namespace for tor in self.top.tors]

    def socket(self, host: str) -> Path:
        """The agent's socket of a host."""
        return self.directory / host / "run" / "agent.sock"

    def up(self) -> None:
        """Build everything and wait until every program is ready. LabError; then call `down`."""
        check_installed(self.tor_daemon)
        if not self.exists:
            self.down()  # what a crashed lab of that name left
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=False)
        saved: dict[str, object] = {"hosts": len(self.top.hosts), "tors": len(self.top.tors)}
        saved |= {"torDaemon": self.tor_daemon, "family": self.top.family}
        self._saved.write_text(json.dumps(saved), encoding="ascii")
        fabric.build(self.top)
        for daemon in self._routers():
            daemon.start()
        self.server.start()
        self.wait_server()
        with ThreadPoolExecutor() as preparing:
            list(preparing.map(self._prepare, self.top.hosts))
        for host in self.top.hosts:
            self.speakers[host.name].start()
            self.agents[host.name].start()
        for host in self.top.hosts:
            wait_for(f"{host.name}'s agent being ready", partial(self.ready, host.name))

    def down(self) -> list[str]:
        """Stop every process and remove everything; what was removed."""
        programs = [*self.agents.values(), *self.speakers.values(), self.server, *self._routers()]
        for program in programs:
            program.signal(15)
        for program in programs:
            program.stop()
        for client in self._clients.values():
            client.close()
        removed = fabric.remove(self.top.name)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.directory)
        return removed

    def wait_server(self) -> None:
        wait_for("the control plane being ready", self._server_ready)

    def ready(self, host: str) -> bool:
        """Whether the host's agent says that it is."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(self.socket(host)))
            except OSError:
                return False  # httpx would leave its socket unclosed here
        try:
            return self.local(host).get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def local(self, host: str) -> httpx.Client:
        """The local API of a host; each request is a connection of its own."""
        held = self._clients.get(host)
        if held is None or held.is_closed:
            limits = httpx.Limits(max_keepalive_connections=0)
            transport = httpx.HTTPTransport(uds=str(self.socket(host)), limits=limits)
            held = httpx.Client(transport=transport, base_url="http://agent", timeout=20)
            self._clients[host] = held
        return held

    def workload_namespace(self, host: str, label: str) -> str:
        """Make a namespace for a workload on `host`; its name."""
        name = f"{self.top.name}-{host}-{label}"
        fabric.command("ip", "netns", "add", name)
        return name

    def established(self) -> bool:
        """Whether every host's sessions are up."""
        for host in self.top.hosts:
            try:
                status = self.local(host.name).get("/v1/status").json()
            except (httpx.HTTPError, ValueError):
                return False
            sessions = status["bgp"]["sessions"]
            up = [one for one in sessions if one["state"] == "Established"]
            if len(up) != len(self.top.tors):
                return False
        return True

    def tor_prefixes(self, namespace: str) -> dict[str, list[str]]:
        """A ToR's BGP routes: prefix to the next hops. LabError if it does not answer."""
        return switch_of(self.tor_daemon).prefixes(self.directory, namespace)

    def tor_has(self, prefix_text: str) -> bool:
        """Whether every ToR has the prefix."""
        return all(
            prefix_text in self._of_family(name, prefix_text) for name in self.tor_namespaces
        )

    def tor_lacks(self, prefix_text: str) -> bool:
        """Whether no ToR has the prefix."""
        return not any(
            prefix_text in self._of_family(name, prefix_text) for name in self.tor_namespaces
        )

    def _of_family(self, namespace: str, prefix_text: str) -> dict[str, list[str]]:
        """A ToR's BGP routes of one prefix's family."""
        versions = (6,) if ":" in prefix_text else (4,)
        return switch_of(self.tor_daemon).prefixes(self.directory, namespace, versions)

    def daemon(self, namespace: str) -> Process:
        """The routing daemon of a ToR or of the client."""
        return next(one for one in self._routers() if one.name == namespace)

    def ping(self, namespace: str, address: str) -> bool:
        """Whether one echo request is answered within a second."""
        said = fabric.inside(namespace, "ping", "-n", "-c", "1", "-W", "1", address, check=False)
        return " 1 received" in said

    def _routers(self) -> list[Process]:
        """The daemons of the ToRs and the client, in the order of their start."""
        if not self._daemons and self.directory.is_dir():
            switch = switch_of(self.tor_daemon)
            for tor in self.top.tors:
                self._daemons += switch.processes(self.top, tor, self.directory)
            text = bird.client_configuration(self.top)
            self._daemons.append(bird.daemon(self.top.client, text, self.directory))
        return self._daemons

    def _program(self, name: str, namespace: str, words: list[str]) -> Process:
        program = [*prefix(namespace), sys.executable, "-m", "routed.main", *words]
        return Process(name, program, self.directory)

    def _of_host(self, host: Host, program: str) -> Process:
        settings = self.directory / host.name / "agent.yaml"
        words = [program, "--config", str(settings)]
        return self._program(f"{host.name}-{program}", host.namespace, words)

    def _prepare(self, host: Host) -> None:
        """The host's settings and credentials."""
        home = self.directory / host.name
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "agent.yaml").write_text(
            f"node: {host.name}\nkubeconfig: {home}/node.kubeconfig\n"
            f"runDir: {home}/run\nstateDir: {home}/state\n",
            encoding="ascii",
        )
        self._join(host, home)

    def _join(self, host: Host, home: Path) -> None:
        """As a user would: a token from the control plane's machine, taken to the host."""
        token, settings = home / "bootstrap.token", home / "agent.yaml"
        words = ["--kubeconfig", str(self.admin), "token", "create", "--node", host.name]
        fabric.inside(self.top.management, *self.ctl(*words, "--to", str(token)))
        join = ["routed.main", "join", "--config", str(settings), "--token-file", str(token)]
        fabric.inside(host.namespace, sys.executable, "-m", *join)
        token.unlink()

    @staticmethod
    def ctl(*words: str) -> list[str]:
        """`routectl` with these words."""
        return [sys.executable, "-m", "routed.ctl.main", *words]

    def _server_ready(self) -> bool:
        if not self.admin.exists():
            return False
        said = fabric.inside(
            self.top.management, "curl", "-sk", "--max-time", "2",
            f"https://{self.top.server}:{PORT}/readyz", check=False,
        )  # fmt: skip
        return said == "ok"


def lab_of(name: str) -> Lab:
    """The lab that runs under `name`; LabError if there is none."""
    found = Lab(name)
    if not found.exists:
        raise LabError(f"cannot find lab {name}: start it with: routed lab up --name {name}")
    return found
