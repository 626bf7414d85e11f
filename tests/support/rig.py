"""The fault rig: churn of workloads, the question whether everybody agrees, a table of figures."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest

from routed.lab.fabric import LabError, command
from routed.lab.lab import Lab
from routed.lab.processes import Process, wait_for
from support.labs import ctl

AGREE_SECONDS = 5.0
# httpx leaves the socket of a connection that is refused to the garbage collector
IGNORED = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)


@dataclass
class Figures:
    """What was measured, printed at the end of the run: (fault, promise, figure)."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, fault: str, promise: str, figure: str) -> None:
        self.rows.append((fault, promise, figure))


def disagreement(lab: Lab, host: str, *, store: bool = True) -> str:
    """What differs between the agent's attachments, the kernel, the store and every ToR; empty if
    nothing does."""
    try:
        items = lab.local(host).get("/v1/attachments").json()["items"]
    except (httpx.HTTPError, ValueError) as error:
        return f"no answer of the agent: {error}"
    held = {item["id"]: set(item["addresses"]) for item in items}
    addresses = [address for item in items for address in item["addresses"]]
    if len(addresses) != len(set(addresses)):
        return f"an address has two owners: {addresses}"
    namespace = f"{lab.top.name}-{host}"
    routes = routes_of(namespace)
    routed = {r["dst"] for r in routes if r.get("dev", "").startswith("rt")}
    if routed != set(addresses):
        return f"host routes differ: {sorted(routed ^ set(addresses))}"
    links = json.loads(command("ip", "-n", namespace, "-j", "link", "show", "type", "veth"))
    ours = {link["ifname"] for link in links if link["ifname"].startswith("rt")}
    if ours != {item["hostInterface"] for item in items}:
        return f"links differ: {sorted(ours ^ {item['hostInterface'] for item in items})}"
    blocks = blackholes(namespace)
    for tor in lab.tor_namespaces:
        known = lab.tor_prefixes(tor)
        here = {p.partition("/")[0] for p in known if inside_blocks(p, blocks)}
        if here != set(addresses):
            return f"{tor} differs: {sorted(here ^ set(addresses))}"
        twice = [p for p in known if p.endswith(("/32", "/128")) and len(known[p]) != 1]
        if twice:
            return f"{tor} has two announcers of {twice}"
    if not store:
        return ""
    workloads = json.loads(ctl(lab, "get", "workloads", "-o", "json"))["items"]
    stored = {
        one["metadata"]["name"]: set(one["status"].get("addresses", []))
        for one in workloads
        if one["spec"]["node"] == host
    }
    return "" if stored == held else f"the store differs: {stored} against {held}"


def routes_of(namespace: str, *words: str) -> list[dict[str, Any]]:
    """Routes of ours, of both families of IP."""
    return [
        route
        for family in ("-4", "-6")
        for route in json.loads(
            command("ip", "-n", namespace, family, "-j", "route", "show", *words, "proto", "82")
            or "[]"
        )
    ]


def blackholes(namespace: str) -> list[Any]:
    """The blocks of a host, as its kernel has them."""
    return [ip_network(route["dst"]) for route in routes_of(namespace, "type", "blackhole")]


def inside_blocks(prefix: str, blocks: list[Any]) -> bool:
    address, _, length = prefix.partition("/")
    whole = "128" if ":" in address else "32"
    return length == whole and any(ip_address(address) in block for block in blocks)


def wait_agreed(
    lab: Lab, host: str, seconds: float = AGREE_SECONDS, *, store: bool = True
) -> float:
    """Wait until nothing differs; the seconds it took. AssertionError says what still differs."""
    began, last = time.monotonic(), "not asked"

    def agreed() -> bool:
        nonlocal last
        last = disagreement(lab, host, store=store)
        return not last

    try:
        return wait_for("agreement", agreed, seconds)
    except LabError as error:
        raise AssertionError(f"{last} after {time.monotonic() - began:.1f} s") from error


class Churn:
    """Attaches and detaches workloads of one host at `rate` a second, in a thread.

    `done` counts operations that were answered as they should be, by verb; `refused` holds the
    answers that were not; `unanswered` counts requests that the agent did not live to answer.
    """

    def __init__(
        self, lab: Lab, host: str, rate: float = 20.0, count: int = 10, **more: Any
    ) -> None:
        """`more` goes into every request to attach."""
        self.lab, self.host, self.rate, self.more = lab, host, rate, more
        self.names = [f"churn{number}" for number in range(count)]
        self.done: Counter[str] = Counter()
        self.refused: list[str] = []
        self.unanswered = 0
        self._spaces = {name: lab.workload_namespace(host, name) for name in self.names}
        self._running = threading.Event()
        self._between = threading.Lock()
        self._leaving = False
        self._thread = threading.Thread(target=self._run, name="churn")

    @property
    def operations(self) -> int:
        return sum(self.done.values())

    def start(self) -> None:
        self._running.set()
        self._thread.start()

    def wait_operations(self, more: int, seconds: float = 30.0) -> None:
        goal = self.operations + more
        wait_for(f"{more} operations more", lambda: self.operations >= goal, seconds)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No operation is under way inside."""
        self._running.clear()
        with self._between:
            yield
        self._running.set()

    def finish(self) -> None:
        """Stop, detach everything, remove the namespaces."""
        self._leaving = True
        self._running.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)
        api = self.lab.local(self.host)
        for name, space in self._spaces.items():
            api.delete(f"/v1/attachments/{name}")
            command("ip", "netns", "del", space, check=False)

    def _run(self) -> None:
        number, began = 0, time.monotonic()
        while not self._leaving:
            self._running.wait()
            with self._between:
                self._one(self.names[number % len(self.names)], attach=self._is_turn(number))
            number += 1
            rest = began + number / self.rate - time.monotonic()
            if rest > 0:
                time.sleep(rest)
            else:
                began = time.monotonic() - number / self.rate  # never catch up in a burst

    def _is_turn(self, number: int) -> bool:
        return (number // len(self.names)) % 2 == 0

    def _one(self, name: str, *, attach: bool) -> None:
        api = self.lab.local(self.host)
        try:
            if attach:
                body = {"name": name, "netns": self._spaces[name], **self.more}
                code = api.post("/v1/attachments", json=body)
                fine = code.status_code in (200, 201)
            else:
                code = api.delete(f"/v1/attachments/{name}")
                fine = code.status_code in (200, 404)
        except httpx.HTTPError:
            self.unanswered += 1
            return
        if fine:
            self.done["attach" if attach else "detach"] += 1
        else:
            self.refused.append(f"{name}: {code.status_code} {code.text[:300]}")


def cpu_seconds(pid: int) -> float:
    """What a process has used, user and system (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(pid: int) -> tuple[int, int]:
    """How many open descriptors a process has: its TCP connections, and all others."""
    rows = Path(f"/proc/{pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    connections = {f"socket:[{row.split()[9]}]" for row in rows}
    held = [os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir()]  # noqa: PTH115
    tcp = sum(one in connections for one in held)
    return tcp, len(held) - tcp


@contextmanager
def instead(process: Process, code: str) -> Iterator[None]:
    """Within, a start of `process` (a program of ours) runs `code` before its own main."""
    before = list(process.words)
    place = before.index("-m")
    process.words = [*before[:place], "-c", code, *before[place + 2 :]]
    try:
        yield
    finally:
        process.words = before
