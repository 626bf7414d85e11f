"""A thousand whole agents (`routed lab hollow`) with policies, among ten thousand workloads: from a
request to the tables of all whom it concerns.

Agents are as they are, from their watches to the transaction that a kernel would be given
(`routed/lab/hollow/table.py`); the kernel alone is spared. They and the service share this
machine's CPUs, which in a rack each of them has for itself. A hundred applications, each with a
policy that lets two others in, and one policy that selects every workload and lets in a selector
that all follow.

`label.all`: one label is changed, and all agents have an address more, or less. `label.some`: a
workload is another application's, which one agent in twelve hears of. `come`, `go`: a workload that
all follow is declared (from the POST on, attaching included) and deleted. `edit.some`, `edit.all`:
a policy is another; it is told to every agent, as they know all policies, and compiled by whom it
concerns. `.cpu` is the service's for one change, `.agent.cpu` that of an agent whom it concerns,
with what others did meanwhile. `told.others`: what agents whom no change of labels concerned were
told.

    python benchmarks/policed.py [--agents 1000] [--workloads 10] [--changes 40] [--processes 2]
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator

from figures import figure, say, workplace
from programs import many_descriptors

from routed.lab.hollow.policed import OTHER_PORT, PORT, Policed, Seen
from routed.lab.processes import resident

APPS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--workloads", type=int, default=10)
    parser.add_argument("--changes", type=int, default=40)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    many_descriptors()
    with workplace("policed") as place:
        apps = min(APPS, 2 * given.agents)
        lab = Policed(place, given.agents, given.workloads - 1, apps, given.processes)
        try:
            lab.up()
            joined = lab.join(lab.invite())
            print(f"joined after {joined.seconds:.0f} s", file=sys.stderr, flush=True)
            lab.police()
            lab.declare()
            say("policed.jsonl", measured(lab, given.changes))
        finally:
            lab.down()


def measured(lab: Policed, changes: int) -> Iterator[dict[str, object]]:
    yield figure("policed.rss", resident(lab.pid) / 1024, "MiB", lab.agents)
    of_agents = sum(map(resident, lab.hosts.pids)) / lab.agents
    yield figure("policed.agent.rss", of_agents, "KiB", lab.agents)
    come, go = Seen(), Seen()
    yield from told("label.all", repeated(lab, changes, label_all))
    before, concerned = dict(lab.hosts.told), set[str]()
    some = repeated(
        lab, changes, lambda lab, number, seen: label_some(lab, number, seen, concerned)
    )
    yield from told("label.some", some)
    lab.settle()
    others = [lab.hosts.told[node] - before[node] for node in before if node not in concerned]
    yield figure("policed.told.others", sum(others), "", len(others))
    repeated(lab, changes // 2, lambda lab, n, _: lab.come_and_go(node(lab, n), n, come, go))
    yield from told("come", come)
    yield from told("go", go)
    yield from told("edit.some", repeated(lab, changes // 2, edit_some))
    yield from told("edit.all", repeated(lab, changes // 4, edit_all))


Change = Callable[[Policed, int, Seen], None]


def repeated(lab: Policed, changes: int, change: Change) -> Seen:
    """Each once all is calm, so also what followed from the one before: agents write down what they
    were told, a second later."""
    seen = Seen()
    for number in range(changes):
        lab.settle()
        change(lab, number, seen)
    return seen


def node(lab: Policed, number: int) -> str:
    return lab.nodes[number * 7 % lab.agents]


def label_all(lab: Policed, number: int, seen: Seen) -> None:
    lab.relabel_all(node(lab, number // 2), number % 2 == 0, seen)


def label_some(lab: Policed, number: int, seen: Seen, concerned: set[str]) -> None:
    """Back and forth among a few, so that most agents are of others."""
    name = lab.nodes[number // 2 % 4]
    before = lab.app[name]
    becomes = (before + 1 - 2 * (number % 2)) % lab.apps
    concerned.update(lab.followers(before), lab.followers(becomes), {name})
    lab.relabel_some(name, becomes, seen)


def edit_some(lab: Policed, number: int, seen: Seen) -> None:
    lab.edit(number // 2 % lab.apps, OTHER_PORT if number % 2 == 0 else PORT, seen)


def edit_all(lab: Policed, number: int, seen: Seen) -> None:
    lab.edit_all(OTHER_PORT if number % 2 == 0 else PORT, seen)


def told(name: str, seen: Seen) -> Iterator[dict[str, object]]:
    seconds = sorted(seen.seconds)
    for part, cut in (("p50", 0.5), ("p99", 0.99)):
        value = seconds[int(len(seconds) * cut)] * 1e3
        yield figure(f"policed.{name}.{part}", value, "ms", len(seconds))
    yield figure(f"policed.{name}.last", max(seen.last) * 1e3, "ms", len(seen.last))
    for what, cpu in (("cpu", seen.service_cpu), ("agent.cpu", seen.agents_cpu)):
        yield figure(f"policed.{name}.{what}", statistics.mean(cpu) * 1e3, "ms", len(cpu))


if __name__ == "__main__":
    main()
