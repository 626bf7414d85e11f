"""`routectl` and the real kubectl, asked the same of one service: they say the same."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from support.ctl import Ctl, ok
from support.kubectls import kubectl

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def program(ctl: Ctl) -> Path:
    found = kubectl("path")
    if isinstance(found, str):
        pytest.skip(found)
    ok(ctl("apply", "-f", str(EXAMPLES)))
    ok(ctl("label", "peer", "tor1", "rack=r1"))
    return found


@pytest.mark.parametrize(
    "words",
    [
        "get peers",
        "get peers -o wide",
        "get bgppeers.routed.dev tor2 tor1",
        "get peers --show-labels",
        "get peers --no-headers --show-labels",
        "get peers -L rack",
        "get peers -o name",
        "get peer/tor1 pool/main -o name",
        "get peers -l rack=r1 -o=name",
        "get peers -l '!rack' -o name",
        "get peers --field-selector metadata.name=tor2 -o name",
        "get peers -A --sort-by=.spec.peerIP -o name",
        "get peers --sort-by={.spec.asNumber}",
        "get peers -o custom-columns=N:.metadata.name,R:.metadata.labels.rack,AS:spec.asNumber",
        "get peers -o jsonpath='{.items[*].metadata.name}'",
        "get peers -o jsonpath='{range .items[*]}{.metadata.name}{\"\\t\"}{.spec.peerIP}{end}'",
        "get peers -o jsonpath='{.items[?(@.metadata.name==\"tor2\")].spec.asNumber}'",
        "get peers -o jsonpath='{.items[0].metadata.labels}'",
        "get peers -o jsonpath='{.items[-1:].spec.peerIP} and {.items[*].nothing}'",
        "get peer tor1 -o jsonpath='{.spec.holdTime}'",
        "get peer tor1 -o json",
        "get peer tor1 -o yaml",
        "get peers nosuch --ignore-not-found",
        "get peers,pools -o name",
        "auth can-i create pools",
        "auth can-i get peers/tor1",
        "auth whoami",
        "label peer tor1 rack=r9 --dry-run=server --overwrite",
        "label peer tor1 rack=r1",
        "label peer tor1 --list",
        "annotate peer tor1 --all a=b --dry-run=server",
        "patch pool main -p '{}'",
        "delete peer tor1 --dry-run=server",
        "delete peer tor1 --dry-run=client",
        "delete peer tor1 --dry-run=server -o name",
        "delete peer nosuch --ignore-not-found",
        "wait peer tor1 --for=jsonpath={.spec.asNumber}=65001",
        "wait peers --all --for=create",
        "config get-contexts -o name",
        "config current-context",
    ],
)
def test_they_say_the_same(program: Path, ctl: Ctl, admin: Path, words: str) -> None:
    said = shlex.split(words)
    theirs = subprocess.run(
        [program, *said], env={**os.environ, "KUBECONFIG": str(admin)}, capture_output=True,
        text=True, timeout=30, check=False,
    )  # fmt: skip
    if "unknown" in theirs.stderr or "unrecognized" in theirs.stderr:
        pytest.skip(f"this kubectl does not know it: {theirs.stderr.strip()[:80]}")
    ours = ctl(*said)
    assert ours.returncode == theirs.returncode, ours.stderr + theirs.stderr
    assert plain(ours.stdout) == plain(theirs.stdout)


def plain(text: str) -> list[list[str]]:
    """Without the widths of columns, ages, quotes around names, the order of keys."""
    text = re.sub(r"\b\d+[smhd]\b", "AGE", text)
    text = re.sub(r'(\w+\.routed\.dev) "([^"]+)"', r"\1/\2", text)
    if text.startswith("apiVersion:"):
        text = text.replace("'", '"')
    lines = [line.rstrip(",").split() for line in text.splitlines() if line.strip()]
    return sorted(lines) if text.lstrip().startswith(("{", "apiVersion:")) else lines
