"""Tests of this folder run in a kernel that has ipvlan: this one, else a guest's.

The guest is that of scripts/guest; of those that are marked `nft`, which that one has not, the
slower one of scripts/guest-qemu, which is for all where the first does not boot (on a CPU with AMX,
more of whose registers than it knows of). In the guest a pytest of its own runs them, all in one
boot. It writes each report to a file as it comes, and the pytest out here tells them as if they
were its own. Guests begin with the run, beside the tests that come before theirs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SECONDS = 1800  # for all that run in a guest together, where that is emulated
BOOT_SECONDS = 60
REPORTS = "GUEST_REPORTS"  # in the environment of the pytest in the guest: where it writes them
TRY = "ip link add p0 type veth peer p1 && ip link add link p0 name i0 type ipvlan mode l3s"
KERNEL = ROOT / ".cache" / "guest" / "release"


class Kind:
    """Of guests: the script that runs it, and what this kernel has if none is needed."""

    def __init__(self, script: str, tried: str) -> None:
        self.script, self.tried = script, tried
        self.guest: Guest | None = None

    @cached_property
    def needed(self) -> bool:
        words = ["unshare", "--net", "sh", "-c", self.tried]
        return subprocess.run(words, check=False, capture_output=True).returncode != 0

    def missing(self) -> str:
        """What is not there that it needs; "": nothing."""
        if self is NFT and shutil.which("qemu-system-x86_64") is None:
            return "this kernel has no ipvlan, and qemu-system-x86_64 is not installed"
        if self is NFT and not KERNEL.exists():
            return "this kernel has no ipvlan, and scripts/guest-kernel has not got another"
        if self is UML and shutil.which("linux.uml") is None:
            return "this kernel has no ipvlan, and user-mode-linux is not installed"
        return ""

    def boots(self) -> bool:
        words = [str(ROOT / "scripts" / self.script), "true"]
        given = {**os.environ, "GUEST_SECONDS": str(BOOT_SECONDS)}
        return subprocess.run(words, check=False, capture_output=True, env=given).returncode == 0


UML = Kind("guest", TRY)
NFT = Kind("guest-qemu", f"{TRY} && nft add table inet t")


def kind_of(item: pytest.Item) -> Kind:
    return NFT if item.get_closest_marker("nft") else UML


class Guest:
    """What the tests `mine`, by node id, came to in a guest."""

    def __init__(self, kind: Kind, mine: list[str]) -> None:
        self.kind, self.mine = kind, mine
        self.done = threading.Event()
        self.output = ""
        self._left: set[str] = set()
        self._said: list[str] = []
        self._child: subprocess.Popen[str] | None = None
        self._reports: dict[str, list[Any]] | None = None

    def run(self) -> None:
        try:
            if not self.mine:
                return  # all are left out
            with tempfile.TemporaryDirectory() as share:
                said = Path(share) / "reports"
                script = str(ROOT / "scripts" / self.kind.script)
                with subprocess.Popen(
                    ["setpriv", "--pdeathsig", "TERM",  # should this pytest be killed
                     script, "--share", share, "env", f"{REPORTS}={said}",
                     sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *self.mine],
                    cwd=ROOT, text=True, errors="replace",
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                    env={**os.environ, "GUEST_SECONDS": str(SECONDS)},
                ) as self._child:  # fmt: skip
                    out, errors = self._child.communicate()
                self._said = said.read_text().splitlines() if said.exists() else []
            self.output = out[-20_000:] + errors[-2_000:]
        finally:
            self.done.set()

    def leave_out(self, some: set[str]) -> None:
        """Emulated, the sessions of a rack did not come up in six minutes."""
        self._left = some & {*self.mine}
        self.mine = [one for one in self.mine if one not in some]

    def stop(self) -> None:
        """^C, or -x: nobody waits for it any more."""
        if self._child is not None:
            self._child.terminate()

    def of(self, item: pytest.Item) -> list[Any]:
        """The reports of one test; one that says what the guest said where it has none."""
        self.done.wait()
        if item.nodeid in self._left:
            said = "user-mode-linux does not boot here; emulated, no session of a rack comes up"
            return [_report(item, "skipped", said)]
        if self._reports is None:
            self._reports = {}
            for line in self._said:
                report = item.config.hook.pytest_report_from_serializable(
                    config=item.config, data=json.loads(line)
                )
                self._reports.setdefault(report.nodeid, []).append(report)
        said = f"the guest did not come to this test:\n{self.output}"
        return self._reports.get(item.nodeid) or [_report(item, "failed", said)]


def _report(item: pytest.Item, outcome: Any, said: str) -> pytest.TestReport:
    where = (str(item.path), item.location[1] or 0, f"Skipped: {said}")
    longrepr: Any = where if outcome == "skipped" else said
    return pytest.TestReport(
        item.nodeid, item.location, {name: 1 for name in item.keywords}, outcome, longrepr,
        "setup" if outcome == "skipped" else "call",
    )  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.root)
            # the first waits for all of both; in the guest everything takes longer
            seconds = 600 if REPORTS in os.environ else 2 * SECONDS + 60
            item.add_marker(pytest.mark.timeout(seconds), append=False)


def pytest_collection_finish(session: pytest.Session) -> None:
    """The guests run beside the tests that come before theirs, one after the other."""
    if REPORTS in os.environ or os.geteuid() != 0 or session.config.option.collectonly:
        return
    for kind in (UML, NFT):
        here = (item for item in session.items if HERE in item.path.parents)
        mine = [item.nodeid for item in here if kind_of(item) is kind]
        if mine and kind.needed and not kind.missing():
            kind.guest = Guest(kind, mine)
    racks = {item.nodeid for item in session.items if item.get_closest_marker("lab")}
    guests = [kind.guest for kind in (UML, NFT) if kind.guest is not None]

    def whole() -> None:
        if UML.guest is not None and not NFT.missing() and not UML.boots():
            UML.script = NFT.script
            UML.guest.leave_out(racks)
        for guest in guests:
            guest.run()

    threading.Thread(target=whole, name="guests", daemon=True).start()


def pytest_sessionfinish() -> None:
    for kind in (UML, NFT):
        if kind.guest is not None:
            kind.guest.stop()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Called for every test of the run, in whatever folder."""
    if HERE not in item.path.parents or REPORTS in os.environ or os.geteuid() != 0:
        return None
    kind = kind_of(item)
    if not kind.needed:
        return None
    if kind.guest is None:
        reports = [_report(item, "skipped", kind.missing())]
    else:
        reports = kind.guest.of(item)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    if REPORTS in os.environ:
        hook = item.config.hook
        data = hook.pytest_report_to_serializable(config=item.config, report=report)
        with Path(os.environ[REPORTS]).open("a") as file:
            file.write(json.dumps(data) + "\n")
    return report
