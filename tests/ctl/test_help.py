"""Every command has examples, and every example is one."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from routed.ctl import argv, completion, help
from routed.ctl.main import _flags

ROOT = completion.root()
REPOSITORY = Path(__file__).resolve().parents[2]
# DESIGN, section 5; `top` comes with what it looks at
VERBS = {
    "get", "describe", "create", "apply", "edit", "patch", "label", "annotate", "replace", "diff",
    "delete", "wait", "explain", "api-resources", "attach", "detach", "drain", "cordon",
    "uncordon", "policy", "trace", "diags", "login", "logout", "completion", "ipam", "bgp", "token",
    "auth", "config",
}  # fmt: skip
WITHIN = {
    "ipam": "show check release",
    "policy": "test",
    "bgp": "status routes",
    "token": "create bearer revoke list",
    "auth": "can-i whoami",
    "config": "get-contexts use-context current-context view",
}


def commands(command: Any = ROOT, path: str = help.NAME) -> Iterator[tuple[str, Any]]:
    """Those that are no groups, by what they are called with."""
    for name, one in command.commands.items():
        if hasattr(one, "commands"):
            yield from commands(one, f"{path} {name}")
        elif not one.hidden:
            yield f"{path} {name}", one


ALL = dict(commands())


def parsed(words: list[str]) -> Any:
    """The context that `words` would run in; an exception says what is wrong with them."""
    context = ROOT.make_context(help.NAME, argv.normal(words, _flags(ROOT)))
    while hasattr(context.command, "commands"):
        name, command, rest = context.command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        context = command.make_context(name, rest, parent=context)
    return context


def calls(example: str) -> list[list[str]]:
    """What is called of ours in a line for a shell."""
    found = re.findall(r"<\((routectl [^)]*)\)", example) or re.split(r" [|] | && ", example)
    words = [shlex.split(re.sub(r" >.*", "", one)) for one in found]
    return [each[1:] for each in words if each[0] == help.NAME]


def test_every_verb_is_there() -> None:
    assert set(ROOT.commands) >= VERBS
    for group, names in WITHIN.items():
        assert set(names.split()) <= set(ROOT.commands[group].commands), group


@pytest.mark.parametrize("path", ALL)
def test_every_command_has_examples_which_can_be_read(path: str) -> None:
    command = ALL[path]
    assert command.help, path
    examples = (command.epilog or "").splitlines()
    assert examples, f"{path} has no example"
    assert any(example.startswith((f"{path} ", f"source <({path}")) or example == path
               for example in examples), examples  # fmt: skip
    for example in examples:
        found = calls(example)
        assert found, example
        for words in found:
            parsed(words)


def documented() -> Iterator[tuple[str, str]]:
    """Every line of a block in the documents that calls `routectl`, with its document."""
    for path in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = re.findall(r"^```(?:sh)?\n(.*?)^```", text, flags=re.M | re.S)
        blocks += re.findall(r"^    (?=routectl )(.*)$", text, flags=re.M)
        for line in "\n".join(blocks).splitlines():
            if line.startswith(("routectl ", "source <(routectl ")):
                yield path.name, line


LINES = list(documented())


@pytest.mark.parametrize(("document", "line"), LINES)
def test_every_line_in_the_documents_can_be_read(document: str, line: str) -> None:
    for words in calls(line):
        parsed(words)


def test_the_documents_have_such_lines() -> None:
    assert {"README.md", "identity.md", "operations.md", "routectl.md"} <= {d for d, _ in LINES}


def test_an_example_that_is_none_would_be_found() -> None:
    for wrong in ("get --frob pools", "gett pools", "ipam frob", "drain --timeout"):
        with pytest.raises(Exception, match=r"No such|requires an argument"):
            parsed(wrong.split())


def test_help_shows_them_and_the_name_that_the_user_knows(tmp_path: Path) -> None:
    for name, called in (("routectl", "routectl"), ("kubectl-routed", "kubectl routed")):
        program = tmp_path / name
        program.write_text(
            "import sys; sys.argv[0] = sys.argv[1]; del sys.argv[1]\n"
            "from routed.ctl.main import main\nmain()\n"
        )
        words = [sys.executable, str(program), str(program), "ipam", "release", "--help"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
        assert f"Usage: {called} ipam release [OPTIONS]" in done.stdout
        assert f"Examples:\n  {called} ipam release 10.65.0.0/26\n" in done.stdout
        assert f"Options of every command: {called} --help" in done.stdout
