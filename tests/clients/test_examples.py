"""The examples of docs/clients.md do what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.kubectls import kubectl
from support.service import Service

PAGE = Path(__file__).resolve().parents[2] / "docs" / "clients.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
PYTHON = [text for language, text in BLOCKS if language == "python"]
SHELL = [text for language, text in BLOCKS if language == "sh"]
POOLS = "/ippools"


def ran(words: list[str], service: Service, directory: Path) -> str:
    surroundings = {
        "PATH": os.environ["PATH"], "HOME": str(directory), "KUBECONFIG": str(service.admin),
    }  # fmt: skip
    done = subprocess.run(
        words, env=surroundings, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with service.http() as client:
        assert client.get(POOLS).json()["items"] == [], "what it makes it takes away"
    return done.stdout


@pytest.mark.parametrize(
    ("number", "says"),
    [(0, "ADDED green"), (1, "['10.91.0.0/24']"), (2, "['green']"), (3, "['green']")],
)
def test_the_python_examples(number: int, says: str, service: Service, tmp_path: Path) -> None:
    assert len(PYTHON) == 4
    assert says in ran([sys.executable, "-c", PYTHON[number]], service, tmp_path)


def test_the_kubectl_example(service: Service, tmp_path: Path) -> None:
    if isinstance(missing := kubectl("path"), str):
        pytest.skip(missing)
    (script,) = SHELL
    said = ran(["sh", "-ec", script], service, tmp_path)
    for part in ("condition met", "Created", "IPPool blue was created", "yes", "deleted"):
        assert part in said, part
