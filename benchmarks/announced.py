"""How long from the attach call to the route in the switch's table, beside BIRD on the same host.

A lab of one host and one switch with BIRD. On the host a BIRD of its own learns the very route that
an attach writes into the kernel and announces it to the same switch, from another address of the
host. One attach serves both: the switch's table is asked every half millisecond until it has the
path by each. Both are measured from the attach call on.

    sudo -E python benchmarks/announced.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import tempfile
import time
from pathlib import Path

from agent import EXAMPLES, SPACES, Bench, RamLab
from figures import figure, say
from programs import command

from routed.lab import bird
from routed.lab.fabric import prefix
from routed.lab.processes import Process, wait_for

POLL_SECONDS = 0.0005
PATIENCE = 10.0
OTHER, OTHER_AS = "172.31.1.200", 65200  # BIRD's on the host
OURS = "172.31.1.11"

LEARNER = f"""log stderr {{ error, fatal, bug }};
router id {OTHER};
protocol device {{ }}
protocol kernel {{ learn; ipv4 {{ import where krt_source = 82; export none; }}; }}
protocol bgp tor {{
  local {OTHER} as {OTHER_AS};
  neighbor 172.31.1.1 as 65001;
  connect delay time 1;
  ipv4 {{ import none; export where source = RTS_INHERIT; next hop self; }};
}}
"""


class Switch:
    """BIRD's control socket, kept open."""

    def __init__(self, path: Path) -> None:
        self._link = socket.socket(socket.AF_UNIX)
        self._link.settimeout(PATIENCE)
        self._link.connect(str(path))
        self._answer()

    def close(self) -> None:
        self._link.close()

    def announcers(self, prefix_text: str) -> set[str]:
        """By whom the switch has the prefix."""
        self._link.sendall(f"show route {prefix_text}\n".encode())
        said = self._answer()
        return {hop for hop in (OURS, OTHER) if f"via {hop} on " in said}

    def _answer(self) -> str:
        """One answer: its last line begins with a code and a blank."""
        data = b""
        while True:
            data += self._link.recv(1 << 16)
            last = data.rstrip(b"\n").rpartition(b"\n")[2]
            if data.endswith(b"\n") and last[:4].isdigit() and last[4:5] == b" ":
                return data.decode()


def measure(bench: Bench, switch: Switch, rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {OURS: [], OTHER: []}
    with bench.api() as api:
        for turn in range(rounds + 1):
            for number in range(SPACES):
                request = bench.request(api, "POST", number)
                began = time.perf_counter()
                code, answer = api.raw(request)
                assert code == 201, answer
                address = answer.partition(b'"addresses":["')[2].partition(b'"')[0].decode()
                times = watch(switch, f"{address}/32", began)
                if turn:  # the first is to warm up
                    for who, took in times.items():
                        found[who].append(took)
                api.raw(bench.request(api, "DELETE", number))
                wait_for("the withdrawal", lambda a=address: not switch.announcers(f"{a}/32"))
                bench.reaped(f"bench{number}.host1")
    return found


def watch(switch: Switch, prefix_text: str, began: float) -> dict[str, float]:
    """Seconds since `began` until the switch has the prefix by each."""
    times: dict[str, float] = {}
    while len(times) < 2:
        here = switch.announcers(prefix_text)
        now = time.perf_counter()
        for who in here - times.keys():
            times[who] = now - began
        if now - began > PATIENCE:
            raise SystemExit(f"cannot go on: {prefix_text} is not announced by {times}")
        time.sleep(POLL_SECONDS)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    lab = RamLab(f"an{os.getpid() % 100_000}", hosts=1, tors=1)
    directory = Path(tempfile.mkdtemp(prefix="announced-"))
    learner: Process | None = None
    try:
        lab.up()
        host = f"{lab.top.name}-host1"
        ctl = lab.ctl("--kubeconfig", str(lab.admin), "apply", "-f", str(EXAMPLES))
        command(*prefix(lab.top.management), *ctl)
        wait_for("our session", lab.established)
        command("ip", "-n", host, "addr", "add", f"{OTHER}/24", "dev", "tor1")
        learner = bird.daemon(host, LEARNER, directory)
        learner.start()
        wait_for(
            "BIRD's session",
            lambda: "Established" in bird.ask(directory, host, "show", "protocols", "tor"),
        )
        bench = Bench(lab, directory)
        bench.enter()
        switch = Switch(bird.control(lab.directory, lab.tor_namespaces[0]))
        found = measure(bench, switch, given.rounds)
        switch.close()
    finally:
        if learner is not None:
            learner.stop()
        lab.down()
        shutil.rmtree(directory)
    ours, other = (statistics.median(found[who]) for who in (OURS, OTHER))
    n = len(found[OURS])
    to = ("BIRD learning the same kernel route", ours / other)
    say(
        "announced.jsonl",
        [
            figure("attach.announced.p50", ours * 1e3, "ms", n, to),
            figure("attach.announced.p50.bird", other * 1e3, "ms", n),
        ],
    )


if __name__ == "__main__":
    main()
