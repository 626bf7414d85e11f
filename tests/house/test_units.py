"""The systemd units: how little they may do, and that they start what is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from routed.doctor.host import NETWORKD
from routed.settings import AgentSettings, load
from routed.state import host_interface_name, shaper_name

UNITS = Path(__file__).resolve().parents[2] / "deploy"
MOST = {"routed-server": 3.0, "routed-speaker": 3.0, "routed-agent": 5.0}


@pytest.mark.parametrize(("name", "most"), MOST.items())
def test_exposure(name: str, most: float) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(UNITS / f"{name}.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze has no --offline (systemd 250)")
    said = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert said is not None, done.stdout + done.stderr
    assert float(said[1]) <= most


@pytest.mark.parametrize("name", MOST)
def test_the_command_is_known(name: str) -> None:
    text = (UNITS / f"{name}.service").read_text(encoding="ascii")
    command = re.search(r"^ExecStart=/usr/bin/routed (\S+) (.*)$", text, re.M)
    assert command is not None
    assert command[1] == name.removeprefix("routed-")
    done = subprocess.run(
        [sys.executable, "-m", "routed.main", command[1], "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"TERM": "dumb", "COLUMNS": "200", "PATH": "/usr/bin:/bin"},
        cwd=UNITS.parent,
    )
    for option in re.findall(r"--[a-z-]+", command[2]):
        assert option in done.stdout, f"{name} says {option}"


def test_a_speaker_that_is_stopped_can_withdraw() -> None:
    """Its ExaBGP must outlive the signal; the default would end both at once."""
    text = (UNITS / "routed-speaker.service").read_text(encoding="ascii")
    assert "\nKillMode=mixed\n" in text


def test_each_unit_writes_only_where_its_settings_say() -> None:
    settings = load(AgentSettings, UNITS.parent / "examples" / "settings" / "agent.yaml", {})
    text = (UNITS / "routed-speaker.service").read_text(encoding="ascii")
    assert f"\nRuntimeDirectory={settings.speaker_run.relative_to('/run')}\n" in text
    assert f"\nStateDirectory={settings.speaker_state.relative_to('/var/lib')}\n" in text
    text = (UNITS / "routed-agent.service").read_text(encoding="ascii")
    assert f"\nRuntimeDirectory={settings.run_dir.relative_to('/run')}\n" in text
    assert f"\nStateDirectory={settings.state_dir.relative_to('/var/lib')}\n" in text


def test_the_drop_ins_are_those_that_doctor_looks_for() -> None:
    for word in NETWORKD:
        assert word in (UNITS / "networkd.conf").read_text(encoding="ascii")
    text = (UNITS / "NetworkManager.conf").read_text(encoding="ascii")
    for name in (host_interface_name("web.h1"), shaper_name("web.h1")):
        assert f"interface-name:{name[:2]}*" in text
