"""What is offered for a word that is being written: decided, looked up, and in real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ctl import Ctl, ok
from support.shells import terminal

from routed.ctl import completion
from routed.ctl.shells import SCRIPTS

ROOT = completion.root()


@pytest.mark.parametrize(
    ("words", "source", "kind", "prefix"),
    [
        ("ge", "commands", "", ""),
        ("get ", "kinds", "", ""),
        ("get pool ", "names", "pool", ""),
        ("get pool a ", "names", "pool", ""),
        ("get pool/", "names", "pool", "pool/"),
        ("get pool/a ", "kinds", "", ""),
        ("get -o ", "outputs", "", ""),
        ("get --output=", "outputs", "", "--output="),
        ("get -f ", "files", "", ""),
        ("get --watch po", "kinds", "", ""),
        ("get -l a=b po", "kinds", "", ""),
        ("get --", "options", "", ""),
        ("--context ", "contexts", "", ""),
        ("get pools --context ", "contexts", "", ""),
        ("--kubeconfig ", "files", "", ""),
        ("--context x get ", "kinds", "", ""),
        ("ipam ", "commands", "", ""),
        ("ipam release ", "names", "ipblocks", ""),
        ("drain ", "names", "nodes", ""),
        ("attach web --pool ", "names", "ippools", ""),
        ("auth can-i ", "verbs", "", ""),
        ("auth can-i get ", "kinds", "", ""),
        ("config use-context ", "contexts", "", ""),
        ("config get-contexts ", "", "", ""),
        ("completion ", "shells", "", ""),
        ("frobnicate ", "", "", ""),
        ("frobnicate get ", "", "", ""),
        ("wait pool a --for ", "conditions", "", ""),
        ("token create --role ", "roles", "", ""),
    ],
)
def test_what_is_wanted(words: str, source: str, kind: str, prefix: str) -> None:
    asked = completion.wanted(ROOT, words.split(" "))
    assert (asked.source, asked.kind, asked.prefix) == (source, kind, prefix)


def test_every_named_command_and_option_exists() -> None:
    names = set()
    options = set()
    left = [("", ROOT)]
    while left:
        path, command = left.pop()
        left += [(f"{path} {n}".strip(), c) for n, c in getattr(command, "commands", {}).items()]
        names.add(path)
        options |= {one.name for one in command.params}
    assert set(completion.ARGUMENTS) <= names
    assert set(completion.VALUES) | set(completion.PATHS) <= options
    sources = {s.partition(":")[0] for each in completion.ARGUMENTS.values() for s in each}
    sources |= {s.partition(":")[0] for s in completion.VALUES.values()}
    assert sources == set(completion.WORDS) | {"kinds", "names", "contexts", "roles"}


POOL = "kind: IPPool\nmetadata: {name: %s}\nspec: {cidr: %s}\n"


@pytest.fixture(scope="module")
def pools(ctl: Ctl) -> None:
    ok(ctl("apply", "-f", "-", stdin=POOL % ("tab-one", "10.61.0.0/24")))
    ok(ctl("apply", "-f", "-", stdin=POOL % ("tab-two", "10.62.0.0/24")))


@pytest.fixture
def environment(admin: Path, tmp_path: Path) -> dict[str, str]:
    """Of a shell in which `routectl` is a command."""
    for name in ("routectl", "kubectl-routed"):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -m routed.ctl.main "$@"\n')
        path.chmod(0o755)
    for shell, script in SCRIPTS.items():
        (tmp_path / shell).write_text(script)
    return {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "KUBECONFIG": str(admin),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PS1": "ready> ",
    }


def completed(admin: Path, *words: str) -> list[str]:
    command = [sys.executable, "-m", "routed.ctl.main", "__complete", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=True,
        env={**os.environ, "KUBECONFIG": str(admin)},
    )  # fmt: skip
    assert done.stderr == ""
    return [line.partition("\t")[0] for line in done.stdout.splitlines()]


@pytest.mark.usefixtures("pools")
def test_names_come_from_the_service_and_silence_from_none(admin: Path, tmp_path: Path) -> None:
    assert completed(admin, "get", "pool", "tab") == ["tab-one", "tab-two", ":4"]
    assert completed(admin, "get", "pool/tab-t") == ["pool/tab-two", ":4"]
    assert completed(admin, "get", "--context", "") == ["routed", ":4"]
    assert completed(admin, "get", "pools", "-f", "") == [":0"]
    assert completed(admin, "-s", "https://127.0.0.1:1", "get", "pool", "") == [":4"]
    assert completed(tmp_path / "none", "get", "pool", "") == [":4"]
    assert completed(tmp_path / "none", "get", "bgpp") == ["bgppeers", ":4"]
    assert completed(tmp_path / "none", "get", "frog", "") == [":4"]


@pytest.mark.usefixtures("pools")
def test_bash_completes(environment: dict[str, str], tmp_path: Path) -> None:
    words = ["bash", "--norc", "--noprofile", "-i"]
    with terminal(words, environment) as bash:
        bash.type("bind 'set enable-bracketed-paste off'\n")
        bash.type(f"source {tmp_path}/bash; echo it is 'there'\n")
        bash.until("it is there")
        bash.type("routectl get pool tab-t\t")
        bash.until("tab-two ")
        bash.type("-o na\t")
        bash.until("name ")
        bash.type("\n")
        bash.until("ippool.routed.dev/tab-two")
        bash.type("routectl desc\t")
        bash.until("describe ")
        bash.type("ippool/tab-o\t")
        bash.until("ippool/tab-one")
        bash.type("\nkubectl-routed get --output=ya\t")
        bash.until("yaml")
        bash.type("\x01echo \n")  # what the line has become
        bash.until("\r\nkubectl-routed get --output=yaml\r\n")
        bash.type(f"routectl apply -f {tmp_path}/fi\t")
        bash.until(f"{tmp_path}/fish")


def test_bash_gets_along_without_a_line(environment: dict[str, str], tmp_path: Path) -> None:
    """Those who drive completion by COMP_WORDS alone."""
    script = (
        f"source {tmp_path}/bash; unset COMP_LINE COMP_POINT\n"
        'COMP_WORDS=(routectl ipam "");  COMP_CWORD=2; _routectl 2> /dev/null\n'
        'printf "%s\\n" "${COMPREPLY[@]}"; complete -p routectl'
    )
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=30,
        check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[:3] == ["show", "check", "release"]
    assert "complete -F _routectl routectl" in done.stdout


@pytest.fixture
def shell(request: pytest.FixtureRequest) -> Iterator[str]:
    if shutil.which(request.param) is None:
        pytest.skip(f"there is no {request.param} here")
    yield request.param


@pytest.mark.parametrize("shell", ["zsh"], indirect=True)
def test_zsh_loads_it_from_a_directory(
    shell: str, environment: dict[str, str], tmp_path: Path
) -> None:
    """As packages bring it: a file `_routectl` on the path of functions."""
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "_routectl").write_text(SCRIPTS[shell])
    with terminal([shell, "-f", "-i"], environment) as zsh:
        zsh.type(f"fpath=({tmp_path}/functions $fpath); autoload -U compinit; compinit -u -D\n")
        for _ in range(2):  # the first time it is loaded, too
            zsh.type("echo it is 'there'\n")
            zsh.until("it is there")
            zsh.type("routectl ipam rel\t")
            zsh.until("release")
            zsh.type("\x15")


@pytest.mark.usefixtures("pools")
@pytest.mark.parametrize("shell", ["zsh"], indirect=True)
def test_zsh_completes(shell: str, environment: dict[str, str], tmp_path: Path) -> None:
    with terminal([shell, "-f", "-i"], environment) as zsh:
        zsh.type(f"autoload -U compinit; compinit -u; source {tmp_path}/zsh; echo it is 'there'\n")
        zsh.until("it is there")
        zsh.type("routectl get pool tab-t\t")
        zsh.until("wo")
        zsh.type("-o name\n")
        zsh.until("ippool.routed.dev/tab-two")
        zsh.type("routectl ipam \t")
        zsh.until("release")
        assert "Ask a block's owner" in zsh.until("for it")


@pytest.mark.usefixtures("pools")
@pytest.mark.parametrize("shell", ["fish"], indirect=True)
def test_fish_completes(shell: str, environment: dict[str, str], tmp_path: Path) -> None:
    def offered(line: str) -> list[str]:
        script = f"source {tmp_path}/fish; complete --do-complete '{line}'"
        done = subprocess.run(
            [shell, "--no-config", "-c", script], env=environment, capture_output=True, text=True,
            timeout=60, check=True,
        )  # fmt: skip
        return [one.partition("\t")[0] for one in done.stdout.splitlines()]

    assert offered("routectl get pool tab") == ["tab-one", "tab-two"]
    assert offered("routectl ipam ") == ["check", "release", "show"]
    assert offered(f"routectl apply -f {tmp_path}/ba") == [f"{tmp_path}/bash"]
