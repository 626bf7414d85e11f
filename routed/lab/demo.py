"""The main job, shown: each step with the command that does it, each result checked.

A step that does not do what it says ends the demo with its name and exit code 1. Everything is
removed at the end, however it ends.
"""

from __future__ import annotations

import json
import shlex
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

from api.auth import kubeconfig
from routed.lab import bird, fabric
from routed.lab.fabric import LabError, command, inside
from routed.lab.lab import PORT, Lab
from routed.lab.prober import Probe, Stream
from routed.lab.processes import wait_for

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
STREAM_SECONDS = 3.0
FAMILIES = ("--family", "IPv4", "--family", "IPv6")


class Demo:
    """One run in the lab called `name`."""

    def __init__(self, name: str) -> None:
        self.lab = Lab(name)
        self.began = time.monotonic()
        self.step_name = "set-up"
        self.namespaces: dict[str, str] = {}
        self.addresses: dict[str, str] = {}
        self.sixes: dict[str, str] = {}  # their IPv6 addresses

    def run(self) -> None:
        """Every step in order; LabError names the one that failed."""
        steps = (
            self.build,
            self.declare,
            self.attach,
            self.look,
            self.reach,
            self.refuse,
            self.kill_agent,
            self.headless,
            self.detach,
        )
        try:
            for step in steps:
                step()
        except LabError as error:
            raise LabError(f"demo step {self.step_name!r} failed: {error}") from error
        finally:
            # a second Ctrl-C must not stop the removal
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            self.say("Remove everything", "routed lab down")
            removed = self.lab.down()
            self.tell(f"removed {len(removed)} namespaces, every process stopped")
        self.tell(f"demo complete: {len(steps)} steps in {time.monotonic() - self.began:.1f} s")

    # -- steps -------------------------------------------------------------------------------------

    def build(self) -> None:
        self.say("Build a rack: two switches with BIRD, two hosts, a client, a control plane",
                 "routed lab up")  # fmt: skip
        self.lab.up()
        for host in self.lab.top.hosts:
            agent, speaker = self.lab.agents[host.name], self.lab.speakers[host.name]
            self.tell(
                f"{host.name}: routed agent pid {agent.pid}, routed speaker pid {speaker.pid}"
            )

    def declare(self) -> None:
        self.say("Declare a pool of each family, and the switches to speak with")
        self.tell(self.ctl("apply", "-f", str(EXAMPLES / "ippool.yaml"), "-f",
                           str(EXAMPLES / "ipv6" / "ippool.yaml"), "-f",
                           str(EXAMPLES / "bgppeers.yaml")))  # fmt: skip
        took = wait_for("every BGP session being up", self.lab.established)
        self.tell(f"all four BGP sessions are Established ({took:.1f} s), each for both families")

    def attach(self) -> None:
        self.say(
            "Attach four workloads: routectl on the host, curl to the agent, curl to the service"
        )
        for host, label in (("host1", "web"), ("host1", "db"), ("host2", "web"), ("host2", "db")):
            key = f"{label}.{host}"
            self.namespaces[key] = self.lab.workload_namespace(host, label)
        for host in ("host1", "host2"):
            namespace = self.namespaces[f"web.{host}"]
            socket = str(self.lab.socket(host))
            words = ["attach", "web", "--netns", namespace, *FAMILIES, "--agent", socket, "--wait"]
            self.tell(self.shown(["routectl", *words], self.lab.ctl(*words)))
        wanted = {"ipFamilies": ["IPv4", "IPv6"]}
        body = json.dumps({"name": "db", "netns": self.namespaces["db.host1"], **wanted})
        words = ["curl", "-sS", "--unix-socket", str(self.lab.socket("host1")), "-d", body,
                 "http://agent/v1/attachments?wait=announced"]  # fmt: skip
        made = json.loads(self.shown(words, words))
        self.tell(f"{made['id']}: {', '.join(made['addresses'])} on {made['hostInterface']}")
        self.tell(self.service_curl("db2", "host2", self.namespaces["db.host2"]))
        for key, name in (("web.host1", "web.host1"), ("db.host1", "db.host1"),
                          ("web.host2", "web.host2"), ("db.host2", "db2")):  # fmt: skip
            wait_for(f"{name} being Ready", partial(self.is_ready, name))
            self.addresses[key], self.sixes[key] = self.workload(name)["addresses"]
        announced = [f"{one}/32" for one in self.addresses.values()]
        announced += [f"{one}/128" for one in self.sixes.values()]
        for prefix in announced:
            wait_for(f"both switches knowing {prefix}", partial(self.lab.tor_has, prefix))
        self.tell(f"both switches know: {' '.join(announced)}")

    def look(self) -> None:
        self.say("Look: the workloads, and what each switch has learned")
        self.tell(self.ctl("get", "workloads", "-o", "wide"))
        for namespace in self.lab.tor_namespaces:
            words = [
                "birdc",
                "-s",
                str(bird.control(self.lab.directory, namespace)),
                "show",
                "route",
            ]
            said = self.shown(words, [*fabric.prefix(namespace), *words])
            self.tell("\n".join(line for line in said.splitlines() if line.strip()))

    def reach(self) -> None:
        self.say("Ping: every pair of workloads, and each from the client behind the switches")
        ends = [*self.namespaces.items(), ("client", self.lab.top.client)]
        for family, addresses in (("IPv4", self.addresses), ("IPv6", self.sixes)):
            count = 0
            for name, namespace in ends:
                for other, address in addresses.items():
                    if other == name:
                        continue
                    if not self.lab.ping(namespace, address):
                        raise LabError(f"{name} cannot reach {other} at {address}")
                    count += 1
            self.tell(f"{family}: {count} of {count} answered")

    def refuse(self) -> None:
        self.say("Refused: what overlaps, is taken, is nobody's, is another node's")
        overlap = (
            "apiVersion: routed.dev/v1\nkind: IPPool\n"
            "metadata: {name: second}\nspec: {cidr: 10.65.128.0/20}\n"
        )
        path = self.lab.directory / "overlap.yaml"
        path.write_text(overlap, encoding="ascii")
        spare = self.lab.workload_namespace("host1", "spare")
        socket = str(self.lab.socket("host1"))
        attach = ["attach", "spare", "--netns", spare, "--agent", socket, "--ip"]
        self.refused(["apply", "-f", str(path)], "overlaps pool main")
        self.refused([*attach, self.addresses["web.host1"]], "in use")
        self.refused([*attach, "192.0.2.1"], "outside every pool")
        self.refused([*attach, self.addresses["web.host2"]], "of node host2")

    def kill_agent(self) -> None:
        agent = self.lab.agents["host1"]
        self.say("Kill host1's agent under 1000 packets/s each way",
                 f"kill -9 {agent.pid}; routed agent ...")  # fmt: skip
        web = self.namespaces["web.host1"]
        own = self.lab.top.client_own
        probes = [
            Probe((self.lab.top.client, own[4]), (web, self.addresses["web.host1"])),
            Probe((self.lab.top.client, own[6]), (web, self.sixes["web.host1"]), rate=100),
        ]
        try:
            time.sleep(STREAM_SECONDS / 3)  # traffic before, during and after
            agent.kill()
            time.sleep(STREAM_SECONDS / 3)
            agent.start()
            wait_for("host1's agent being ready", lambda: self.lab.ready("host1"))
            time.sleep(STREAM_SECONDS / 3)
            found = [probe.finish() for probe in probes]
        except BaseException:
            for probe in probes:
                probe.abort()
            raise
        for family, (down, back) in zip(("", ", IPv6"), found, strict=True):
            self.tell(f"client to workload{family}: {_lost(down)}")
            self.tell(f"workload to client{family}: {_lost(back)}")
            if down.lost or back.lost or not down.sent or not back.sent:
                raise LabError("packets were lost while the agent was down")

    def headless(self) -> None:
        self.say("Stop the control plane, attach one more workload, start it again")
        self.lab.server.stop()
        self.namespaces["late"] = self.lab.workload_namespace("host2", "late")
        words = ["attach", "late", "--netns", self.namespaces["late"], *FAMILIES, "--agent",
                 str(self.lab.socket("host2")), "--wait", "-o", "json"]  # fmt: skip
        made = json.loads(self.shown(["routectl", *words], self.lab.ctl(*words)))
        self.addresses["late"], self.sixes["late"] = made["addresses"]
        both = [f"{self.addresses['late']}/32", f"{self.sixes['late']}/128"]
        for prefix in both:
            wait_for("both switches knowing it", partial(self.lab.tor_has, prefix))
        self.tell(f"attached and announced without a control plane: {' '.join(both)}")
        self.lab.server.start()
        self.lab.wait_server()
        took = wait_for("the service showing it", self.late_is_reported)
        self.tell(f"the service is back and shows late.host2 after {took:.1f} s")

    def detach(self) -> None:
        self.say("Detach one: the switches forget it")
        words = ["detach", "late", "--agent", str(self.lab.socket("host2"))]
        self.tell(self.shown(["routectl", *words], self.lab.ctl(*words)))
        both = [f"{self.addresses['late']}/32", f"{self.sixes['late']}/128"]
        took = wait_for(
            "both switches having withdrawn both", lambda: all(map(self.lab.tor_lacks, both))
        )
        gone = f"{' and '.join(both)} are gone from both switches after {took:.2f} s"
        self.tell(f"{gone}; what they have now:")
        for namespace in self.lab.tor_namespaces:
            known = self.lab.tor_prefixes(namespace)
            hosts = sorted(p for p in known if p.startswith(("10.65.", "fd00:65:")))
            self.tell(f"{namespace}: {' '.join(hosts)}")

    # -- ways in -----------------------------------------------------------------------------------

    def ctl(self, *words: str) -> str:
        """`routectl` to the service, from the management network; shown."""
        whole = self.lab.ctl("--kubeconfig", str(self.lab.admin), *words)
        return self.shown(["routectl", *words], [*fabric.prefix(self.lab.top.management), *whole])

    def refused(self, words: list[str], expected: str) -> None:
        """`routectl` that must fail, saying `expected`."""
        self.command_line(["routectl", *words])
        whole = self.lab.ctl("--kubeconfig", str(self.lab.admin), *words)
        try:
            inside(self.lab.top.management, *whole)
        except LabError as error:
            said = str(error).partition("Error: ")[2]
            self.tell(f"refused: {said}")
            if expected not in said:
                raise LabError(f"refused, but without {expected!r}: {error}") from error
            return
        raise LabError(f"routectl {shlex.join(words)} was not refused")

    def service_curl(self, name: str, node: str, namespace: str) -> str:
        """A workload declared through the service; the token stays out of the command line."""
        access = kubeconfig.read(self.lab.admin)
        options = self.lab.directory / "curl.conf"
        options.touch(mode=0o600)
        ca_file = self.lab.directory / "ca.crt"
        ca_file.write_bytes(access.ca)
        options.write_text(
            f'header = "Authorization: Bearer {access.token}"\ncacert = "{ca_file}"\n'
        )
        spec = {"node": node, "netns": namespace, "ipFamilies": ["IPv4", "IPv6"]}
        body = json.dumps({"metadata": {"name": name}, "spec": spec})
        words = ["curl", "-sS", "--config", str(options), "-d", body,
                 f"https://{self.lab.top.server}:{PORT}/apis/routed.dev/v1/workloads"]  # fmt: skip
        said = self.shown(words, [*fabric.prefix(self.lab.top.management), *words])
        made = json.loads(said)
        if made["kind"] != "Workload":
            raise LabError(f"the service refused: {made.get('message')}")
        return f"workload {made['metadata']['name']} declared for node {made['spec']['node']}"

    def workload(self, name: str) -> dict[str, Any]:
        """The status of a workload, as the service has it."""
        words = ["--kubeconfig", str(self.lab.admin), "get", "workload", name, "-o", "json"]
        status: dict[str, Any] = json.loads(inside(self.lab.top.management, *self.lab.ctl(*words)))[
            "status"
        ]
        return status

    def is_ready(self, name: str) -> bool:
        return bool(self.workload(name)["phase"] == "Ready")

    def late_is_reported(self) -> bool:
        return bool(self.workload("late.host2")["addresses"])

    # -- telling -----------------------------------------------------------------------------------

    def say(self, title: str, does: str = "") -> None:
        self.step_name = title
        print(f"\n== {title}", flush=True)
        if does:
            print(f"$ {does}", flush=True)

    def command_line(self, words: list[str]) -> None:
        print(f"$ {shlex.join(words)}", flush=True)

    def shown(self, words: list[str], real: list[str]) -> str:
        """Run `real`, shown as `words`."""
        self.command_line(words)
        return command(*real).rstrip()

    @staticmethod
    def tell(text: str) -> None:
        for line in text.splitlines():
            print(f"  {line}", flush=True)


def _lost(stream: Stream) -> str:
    gap = f"{stream.gap * 1000:.0f} ms"
    return f"lost {stream.lost} of {stream.sent} packets, longest gap {gap}"
