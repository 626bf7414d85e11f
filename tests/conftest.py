"""What every area's tests share: running a test body inside a fresh network namespace."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator

import pytest
from support.rig import Figures

pytest_plugins = ["support.fixtures"]
FIGURES = Figures()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--faults",
        choices=["short", "full", "long"],
        default="short",
        help="how long the tests of tests/faults go on; long: those of histories only",
    )

    parser.addoption(
        "--policy-first",
        type=int,
        default=0,
        help="the number of the first of them, to go on where another run ended",
    )
    parser.addoption(
        "--policy-sets",
        type=int,
        default=1500,
        help="how many random sets of policies tests/policies/test_random_policies.py tries",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of figures of the fault tests."""
    if FIGURES.rows:
        terminalreporter.section("under fault")
        for fault, promise, figure in FIGURES.rows:
            terminalreporter.write_line(f"| {fault} | {promise} | {figure} |")


@pytest.fixture(scope="session")
def figures() -> Figures:
    return FIGURES


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the fault tests run for as long as they promise."""
    return bool(request.config.getoption("--faults") == "full")


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether histories are a million operations long."""
    return bool(request.config.getoption("--faults") == "long")


@pytest.fixture(scope="session")
def policy_sets(request: pytest.FixtureRequest) -> range:
    """The numbers of the random sets of policies that are tried."""
    first = int(request.config.getoption("--policy-first"))
    return range(first, first + int(request.config.getoption("--policy-sets")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root: makes network namespaces")
    for item in items:
        if "root" in item.keywords or "lab" in item.keywords:
            item.add_marker(skip)


@pytest.fixture
def namespaces() -> Iterator[Callable[[str], str]]:
    """Make named namespaces (their real names are unique); all are removed afterwards."""
    made: list[str] = []

    def make(label: str) -> str:
        name = f"rt-{label}-{uuid.uuid4().hex[:8]}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        made.append(name)
        return name

    yield make
    for name in made:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
