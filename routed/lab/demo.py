"""The main job, shown: each step with the command that does it, each result checked.

A step that does not do what it says ends the demo with its name and exit code 1. Everything is
removed at the end, however it ends.
"""

from __future__ import annotations

import json
import signal
import time
from functools import partial
from pathlib import Path

from routed.lab import bird, fabric
from routed.lab.fabric import LabError
from routed.lab.prober import Probe, Stream
from routed.lab.processes import wait_for
from routed.lab.stage import Stage

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
STREAM_SECONDS = 3.0
FAMILIES = ("--family", "IPv4", "--family", "IPv6")
POLICY = """\
apiVersion: routed.dev/v1
kind: NetworkPolicy
metadata: {name: db}
spec:
  selector: app == 'db'
  ingress:
    - {action: Allow, source: {selector: app == 'web'}}
"""


class Demo(Stage):
    """One run in the lab called `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.began = time.monotonic()
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
            self.police,
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
            words = ["attach", "web", "--netns", namespace, *FAMILIES, "--label", "app=web"]
            words += ["--agent", socket, "--wait"]
            self.tell(self.shown(["routectl", *words], self.lab.ctl(*words)))
        wanted = {"ipFamilies": ["IPv4", "IPv6"], "labels": {"app": "db"}}
        body = json.dumps({"name": "db", "netns": self.namespaces["db.host1"], **wanted})
        words = ["curl", "-sS", "--unix-socket", str(self.lab.socket("host1")), "-d", body,
                 "http://agent/v1/attachments?wait=announced"]  # fmt: skip
        made = json.loads(self.shown(words, words))
        self.tell(f"{made['id']}: {', '.join(made['addresses'])} on {made['hostInterface']}")
        self.tell(self.service_curl("db2", "host2", self.namespaces["db.host2"], app="db"))
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

    def police(self) -> None:
        self.say("Policy: db is reached by web, and by nobody else", "cat db.yaml")
        self.tell(POLICY)
        path = self.lab.directory / "db.yaml"
        path.write_text(POLICY, encoding="ascii")
        self.tell(self.ctl("apply", "-f", str(path)))
        client, web = self.lab.top.client, [f"web.{host}" for host in ("host1", "host2")]
        dbs = [name for name in self.namespaces if name.startswith("db.")]
        closed = {self.addresses[db] for db in dbs} | {self.sixes[db] for db in dbs}
        for address in sorted(closed):
            wait_for(
                f"{address} being closed to the client",
                partial(self._silent, client, address),
            )
        for name in web:
            for address in sorted(closed):
                if not self.lab.ping(self.namespaces[name], address):
                    raise LabError(f"{name} cannot reach {address} any more")
        self.tell(f"{' and '.join(web)} reach {' and '.join(sorted(dbs))}, the client does not")
        self.tell(self.ctl("trace", self.lab.top.client_own[4], "db.host1", "--port", "5432/tcp"))
        self.tell(self.ctl("delete", "-f", str(path)))
        for address in sorted(closed):
            wait_for(f"{address} being open again", partial(self.lab.ping, client, address))

    def _silent(self, namespace: str, address: str) -> bool:
        return not self.lab.ping(namespace, address)

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

    def late_is_reported(self) -> bool:
        return bool(self.workload("late.host2")["addresses"])


def _lost(stream: Stream) -> str:
    gap = f"{stream.gap * 1000:.0f} ms"
    return f"lost {stream.lost} of {stream.sent} packets, longest gap {gap}"
