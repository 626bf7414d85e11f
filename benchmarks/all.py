"""Every benchmark, one after the other; then one table of all figures beside what is aimed at.

Each script interleaves what it compares in its own run. Ratios are to be trusted, times are this
machine's. A figure beyond its goal is marked, and the exit code stays 0: a busy machine is no bug.

    sudo -E python benchmarks/all.py [--only NAME,...]      (make bench)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from figures import RESULTS

HERE = Path(__file__).resolve().parent
SCRIPTS = (
    "attach",
    "attach_v6",
    "agent",
    "announced",
    "datapath",
    "policy",
    "routes",
    "bgp_announce",
    "ipam_claim",
    "slow_clients",
    "full_lists",
    "watches",
    "selections",
    "policed",
    "store_size",
    "hollow",
)


@dataclass(frozen=True, slots=True)
class Goal:
    """`of` is "value" or "ratio"; `least` where more is better."""

    of: str
    bound: float
    least: bool = False

    def said(self) -> str:
        sign = ">=" if self.least else "<="
        return f"{sign} {self.bound:g}" + (" x" if self.of == "ratio" else "")

    def met(self, figure: dict[str, object]) -> bool:
        ratio = figure["ratio"]
        value = (
            ratio["value"] if self.of == "ratio" and isinstance(ratio, dict) else figure["value"]
        )
        assert isinstance(value, int | float)
        return value >= self.bound if self.least else value <= self.bound


GOALS = {
    "attach.kernel.p50": Goal("ratio", 1.25),
    "attach.kernel.p50.at1000": Goal("ratio", 1.25),
    "attach.kernel.p50.at4000": Goal("ratio", 1.25),
    "attach.kernel.p50.4000": Goal("ratio", 1.2),
    "attach.kernel.v6.p50.4000": Goal("ratio", 1.2),
    "attach.e2e.p50": Goal("ratio", 3.0),
    "attach.e2e.p50.at1000": Goal("ratio", 3.0),
    "attach.e2e.p50.at4000": Goal("ratio", 3.0),
    "detach.e2e.p50": Goal("ratio", 8.0, least=True),
    "attach.reaping.p99": Goal("ratio", 3.0),
    "attach.announced.p50": Goal("ratio", 1.0),
    "routes.install.100k": Goal("ratio", 1.3),
    "routes.dump.100k": Goal("ratio", 3.0),
    "routes.failover.100k": Goal("value", 10.0),
    "bgp.announce.10k": Goal("value", 1.0),
    "bgp.announce.10k.4": Goal("value", 2.0),
    "speaker.idle.cpu.4": Goal("value", 0.5),
    "agent.rss.1000": Goal("value", 150.0),
    "agent.resync.1000": Goal("value", 1.0),
    "api.trickle.p99": Goal("ratio", 2.0),
    "api.watch.rss": Goal("value", 40.0),
    "api.watch.p50": Goal("value", 2.0),
    "selections.all.p99": Goal("value", 1000.0),
    "policed.label.all.p99": Goal("value", 1000.0),
    "policed.told.others": Goal("value", 0.0),
    "api.list.node.1m": Goal("value", 10.0),
    "store.start.1m": Goal("value", 60.0),
    "hollow.5xx": Goal("value", 0.0),
    "policy.dispatch.5000": Goal("ratio", 1.05),
    "policy.member.p50": Goal("value", 0.3),
    "policy.load.5000": Goal("ratio", 1.1),
    "policy.restore.1000": Goal("value", 200.0),
    "policy.restore.closed.groups": Goal("value", 200.0),
    "ipam.claim.16": Goal("value", 3000.0, least=True),
}


def table(figures: list[dict[str, object]]) -> str:
    """Markdown."""
    rows = ["| figure | value | of | ratio to | goal | |", "|---|---|---|---|---|---|"]
    for one in figures:
        ratio, goal = one["ratio"], GOALS.get(str(one["name"]))
        told = f"{ratio['value']} {ratio['to']}" if isinstance(ratio, dict) else ""
        mark = "" if goal is None else ("met" if goal.met(one) else "**not met**")
        aim = goal.said() if goal else ""
        rows.append(
            f"| `{one['name']}` | {one['value']} {one['unit']} | {one['n']} | {told} | {aim} | "
            f"{mark} |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(SCRIPTS))
    chosen = parser.parse_args().only.split(",")
    figures: list[dict[str, object]] = []
    for name in chosen:
        print(f"== {name}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=True)
        lines = (RESULTS / f"{name}.jsonl").read_text(encoding="ascii").splitlines()
        figures += [json.loads(line) for line in lines]
    (RESULTS / "table.md").write_text(table(figures) + "\n", encoding="ascii")
    print(table(figures))


if __name__ == "__main__":
    main()
