"""Tests of this folder run in a kernel that has ipvlan: this one, else a guest's.

The guest is that of scripts/guest; of those that are marked `nft`, which that one has not, the
slower one of scripts/guest-qemu. In the guest a pytest of its own runs them, all in one boot. It
writes each report to a file as it comes, and the pytest out here tells them as if they were its
own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SECONDS = 900  # for all that run in the guest together
REPORTS = "GUEST_REPORTS"  # in the environment of the pytest in the guest: where it writes them
TRY = "ip link add p0 type veth peer p1 && ip link add link p0 name i0 type ipvlan mode l3s"
KERNEL = ROOT / ".cache" / "guest" / "release"


class Kind:
    """Of guests: the script that runs it, and what is not there that it needs; "": nothing."""

    def __init__(self, script: str, tried: str) -> None:
        self.script, self.tried = script, tried
        self.needed: bool | None = None
        self.guest: Guest | None = None

    def of(self, session: pytest.Session) -> Guest:
        self.guest = self.guest or Guest(session, self)
        return self.guest

    def missing(self) -> str:
        if self is NFT and shutil.which("qemu-system-x86_64") is None:
            return "this kernel has no ipvlan, and qemu-system-x86_64 is not installed"
        if self is NFT and not KERNEL.exists():
            return "this kernel has no ipvlan, and scripts/guest-kernel has not got another"
        if self is UML and shutil.which("linux.uml") is None:
            return "this kernel has no ipvlan, and user-mode-linux is not installed"
        return ""


UML = Kind("guest", TRY)
NFT = Kind("guest-qemu", f"{TRY} && nft add table inet t")


def kind_of(item: pytest.Item) -> Kind:
    return NFT if item.get_closest_marker("nft") else UML


class Guest:
    """What the tests of one run came to in the guest, by node id."""

    def __init__(self, session: pytest.Session, kind: Kind) -> None:
        mine = [
            item.nodeid
            for item in session.items
            if HERE in item.path.parents and kind_of(item) is kind
        ]
        self.reports: dict[str, list[Any]] = {}
        with tempfile.TemporaryDirectory() as share:
            said = Path(share) / "reports"
            with subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM",  # should this pytest be killed
                 str(ROOT / "scripts" / kind.script), "--share", share, "env", f"{REPORTS}={said}",
                 sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *mine],
                cwd=ROOT, text=True, errors="replace",
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env={**os.environ, "GUEST_SECONDS": str(SECONDS)},
            ) as child:  # fmt: skip
                try:
                    out, errors = child.communicate()
                except BaseException:  # ^C, or pytest's timeout
                    child.terminate()
                    raise
            lines = said.read_text().splitlines() if said.exists() else []
        self.output = out[-20_000:] + errors[-2_000:]
        for line in lines:
            report = session.config.hook.pytest_report_from_serializable(
                config=session.config, data=json.loads(line)
            )
            self.reports.setdefault(report.nodeid, []).append(report)

    def of(self, item: pytest.Item) -> list[Any]:
        """The reports of one test; one that says what the guest said where it has none."""
        said = f"the guest did not come to this test:\n{self.output}"
        return self.reports.get(item.nodeid) or [_report(item, "failed", said)]


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
            # the first waits for all; in the guest everything takes longer
            seconds = 300 if REPORTS in os.environ else SECONDS + 60
            item.add_marker(pytest.mark.timeout(seconds), append=False)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Called for every test of the run, in whatever folder."""
    if HERE not in item.path.parents or REPORTS in os.environ or os.geteuid() != 0:
        return None
    kind = kind_of(item)
    if kind.needed is None:
        words = ["unshare", "--net", "sh", "-c", kind.tried]
        kind.needed = subprocess.run(words, check=False, capture_output=True).returncode != 0
    if not kind.needed:
        return None
    if why := kind.missing():
        reports = [_report(item, "skipped", why)]
    else:
        reports = kind.of(item.session).of(item)
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
