"""The verbs that change objects, against a real service process."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.ctl import Ctl, ok

POOL = """
apiVersion: routed.dev/v1
kind: IPPool
metadata: {name: %s, labels: {from: file}}
spec: {cidr: %s, cooldownSeconds: 7}
"""


def document(ctl: Ctl, *words: str) -> Any:
    return json.loads(ok(ctl("get", *words, "-o", "json", "--show-managed-fields")))


def made(ctl: Ctl, name: str, cidr: str) -> str:
    text = POOL % (name, cidr)
    ok(ctl("apply", "-f", "-", stdin=text))
    return text


def test_apply_leaves_what_others_have_set_and_takes_back_what_it_set(ctl: Ctl) -> None:
    text = made(ctl, "mine", "10.101.0.0/24")
    ok(ctl("label", "pool", "mine", "owner=somebody"))
    ok(ctl("annotate", "pool/mine", "why=because"))
    assert "unchanged" in ok(ctl("apply", "-f", "-", stdin=text))
    held = document(ctl, "pool", "mine")
    assert held["metadata"]["labels"] == {"from": "file", "owner": "somebody"}
    less = text.replace(", cooldownSeconds: 7", "").replace(", labels: {from: file}", "")
    assert "configured" in ok(ctl("apply", "-f", "-", stdin=less))
    held = document(ctl, "pool", "mine")
    assert held["metadata"]["labels"] == {"owner": "somebody"}
    assert held["metadata"]["annotations"] == {"why": "because"}
    assert held["spec"]["cooldownSeconds"] == 60
    assert "managedFields" in held["metadata"]
    assert "managedFields" not in ok(ctl("get", "pool", "mine", "-o", "yaml"))


def test_fields_of_others_are_a_conflict_if_that_is_asked_for(ctl: Ctl) -> None:
    text = made(ctl, "ours", "10.102.0.0/24")
    patch = ["patch", "pool", "ours", "--field-manager", "them"]
    ok(ctl(*patch, "-p", '{"spec":{"cooldownSeconds":9}}'))
    strict = ctl("apply", "--server-side", "-f", "-", stdin=text)
    assert strict.returncode == 1
    assert "conflict" in strict.stderr
    assert "--force-conflicts" in strict.stderr
    assert document(ctl, "pool", "ours")["spec"]["cooldownSeconds"] == 9
    forced = ctl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
    assert "configured" in ok(forced)
    ok(ctl(*patch, "-p", '{"spec":{"cooldownSeconds":9}}'))
    assert "configured" in ok(ctl("apply", "-f", "-", stdin=text))
    assert document(ctl, "pool", "ours")["spec"]["cooldownSeconds"] == 7


def test_dry_runs_and_diffs_change_nothing(ctl: Ctl) -> None:
    text = made(ctl, "still", "10.103.0.0/24")
    before = document(ctl, "pool", "still")
    other = text.replace("Seconds: 7", "Seconds: 8")
    assert ctl("diff", "-f", "-", stdin=text).returncode == 0
    differs = ctl("diff", "-f", "-", stdin=other)
    assert differs.returncode == 1
    assert "-  cooldownSeconds: 7\n+  cooldownSeconds: 8\n" in differs.stdout
    new = POOL % ("never", "10.104.0.0/24")
    for words, stdin, said in (
        (["apply", "-f", "-", "--dry-run=server"], other, "configured (server dry run)"),
        (["apply", "-f", "-", "--dry-run=client"], other, "applied (dry run)"),
        (["create", "-f", "-", "--dry-run=server"], new, "created (server dry run)"),
        (["create", "-f", "-", "--dry-run=client"], new, "created (dry run)"),
        (["replace", "-f", "-", "--dry-run=server"], other, "replaced (server dry run)"),
        (["delete", "-f", "-", "--dry-run=server"], text, "deleted (server dry run)"),
        (["delete", "-f", "-", "--dry-run=client"], text, "deleted (dry run)"),
        (["label", "pool", "still", "a=b", "--dry-run=server"], "", "labeled (server dry run)"),
    ):
        assert said in ok(ctl(*words, stdin=stdin)), words
    assert document(ctl, "pool", "still") == before
    assert ctl("get", "pool", "never").returncode == 1
    assert ctl("apply", "-f", "-", "--dry-run=maybe", stdin=text).returncode == 2


def test_replace_is_whole_and_based_on_what_was_read(ctl: Ctl) -> None:
    text = made(ctl, "whole", "10.105.0.0/24")
    ok(ctl("label", "pool", "whole", "owner=gone"))
    assert "replaced" in ok(ctl("replace", "-f", "-", stdin=text))
    assert document(ctl, "pool", "whole")["metadata"]["labels"] == {"from": "file"}
    read = ok(ctl("get", "pool", "whole", "-o", "yaml"))
    ok(ctl("label", "pool", "whole", "changed=meanwhile"))
    late = ctl("replace", "-f", "-", stdin=read)
    assert late.returncode == 1
    assert "has been modified" in late.stderr
    assert ctl("replace", "-f", "-", stdin=POOL % ("none", "10.9.0.0/24")).returncode == 1


def test_labels_are_set_taken_away_and_not_overwritten_by_mistake(ctl: Ctl) -> None:
    made(ctl, "marked", "10.106.0.0/24")
    refused = ctl("label", "pool", "marked", "from=me", "new=1")
    assert refused.returncode == 1
    assert "it is 'file' already" in refused.stderr
    assert "new" not in document(ctl, "pool", "marked")["metadata"]["labels"]
    ok(ctl("label", "pool/marked", "from=me", "new=1", "--overwrite"))
    assert "not labeled" in ok(ctl("label", "pool", "marked", "new=1"))
    ok(ctl("label", "pools", "-l", "new=1", "from-"))
    assert document(ctl, "pool", "marked")["metadata"]["labels"] == {"new": "1"}
    for wrong in (["pool", "marked"], ["pool", "marked", "a=1", "a-"], ["pools", "a=1"], ["a=1"]):
        assert ctl("label", *wrong).returncode == 2, wrong


def test_patches_of_every_kind(ctl: Ctl, tmp_path: Path) -> None:
    made(ctl, "patched", "10.107.0.0/24")
    path = tmp_path / "patch.yaml"
    path.write_text("spec:\n  cooldownSeconds: 11\n")
    assert "patched\n" in ok(ctl("patch", "pool", "patched", "--patch-file", str(path)))
    again = ok(ctl("patch", "pool", "patched", "--patch-file", str(path)))
    assert "patched (no change)" in again
    steps = '[{"op":"replace","path":"/spec/cooldownSeconds","value":12}]'
    ok(ctl("patch", "pool", "patched", "--type", "json", "-p", steps))
    out = ok(ctl("patch", "pool", "patched", "--type=merge", "-p", "{}", "-o", "yaml"))
    assert "cooldownSeconds: 12" in out
    for wrong in (["-p", "{"], ["-p", "7"], ["--type", "x", "-p", "{}"], []):
        assert ctl("patch", "pool", "patched", *wrong).returncode == 2, wrong
    assert ctl("patch", "pool", "patched", "-p", '{"spec":{"x":1}}').returncode == 1


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program that edits; what it is given is beside it."""
    path = tmp_path / "editor"
    monkeypatch.setenv("KUBE_EDITOR", str(path))
    return path


def writes(editor: Path, *lines: str) -> None:
    editor.write_text(f'#!/bin/sh\ncp "$1" {editor}.seen\n' + "\n".join(lines) + "\n")
    editor.chmod(editor.stat().st_mode | stat.S_IXUSR)


def test_edit_sends_what_was_changed_and_nothing_else(ctl: Ctl, editor: Path) -> None:
    made(ctl, "edited", "10.108.0.0/24")
    writes(editor, "sed -i s/cooldownSeconds:.*/cooldownSeconds:\\ 21/ $1")
    assert ok(ctl("edit", "pool", "edited")) == "ippool.routed.dev/edited edited\n"
    assert "managedFields" not in Path(f"{editor}.seen").read_text()
    assert document(ctl, "pool", "edited")["spec"]["cooldownSeconds"] == 21
    for nothing in ("true", 'true > "$1"'):
        writes(editor, nothing)
        assert "not changed" in ok(ctl("edit", "pool/edited"))
    writes(editor, "exit 3")
    assert "ended with 3" in ctl("edit", "pool", "edited").stderr
    editor.unlink()
    assert "set $EDITOR" in ctl("edit", "pool", "edited").stderr


def test_edit_shows_a_mistake_again_and_keeps_what_is_given_up(ctl: Ctl, editor: Path) -> None:
    made(ctl, "wrong", "10.109.0.0/24")
    mend = "s/cooldownSeconds:.*/cooldownSeconds: 22/"
    writes(
        editor,
        f'if grep -q "^# .*cooldownSeconds" $1; then sed -i "{mend}" $1',
        'else sed -i "s/cooldownSeconds:.*/cooldownSeconds: -1/" $1; fi',
    )
    ok(ctl("edit", "pool", "wrong"))
    assert document(ctl, "pool", "wrong")["spec"]["cooldownSeconds"] == 22
    writes(editor, 'sed -i "s/cooldownSeconds:.*/cooldownSeconds: -1/" $1')
    given_up = ctl("edit", "pool", "wrong")
    assert given_up.returncode == 1
    kept = Path(given_up.stderr.partition("what you wrote is in ")[2].split()[0])
    assert "cooldownSeconds: -1" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.unlink()


def test_delete_waits_for_an_owner_and_can_be_told_not_to(ctl: Ctl) -> None:
    node = {"kind": "Node", "metadata": {"name": "holder"}}
    claim = {"kind": "IPBlock", "metadata": {"name": "b"}, "spec": {"node": "holder", "pool": "p"}}
    ok(ctl("create", "-f", "-", stdin=json.dumps(node)))
    ok(ctl("apply", "-f", "-", stdin=POOL % ("p", "10.110.0.0/24")))
    block = ok(ctl("create", "-f", "-", "-o", "name", stdin=json.dumps(claim))).strip()
    assert "deleted" in ok(ctl("delete", block, "--wait=false"))
    late = ctl("delete", block, "--timeout", "1s")
    assert late.returncode == 1
    assert "cannot wait longer than 1 s" in late.stderr
    words = [*ctl("version", "--client").args[:-2], "wait", block, "--for", "delete"]
    waiting = subprocess.Popen([*words, "--timeout", "30s"], stdout=subprocess.PIPE, text=True)
    try:
        name = block.partition("/")[2]
        forced = ["ipam", "release", name, "--force", "--statement", "off"]
        ok(ctl(*forced))
        assert waiting.communicate(timeout=30)[0] == f"{block} deleted\n"
        assert waiting.returncode == 0
    finally:
        waiting.kill()
        waiting.wait(10)


def test_what_is_waited_for(ctl: Ctl) -> None:
    made(ctl, "awaited", "10.111.0.0/24")
    reached = ["--for=jsonpath={.spec.cooldownSeconds}=7"]
    done = ctl("wait", "pool/awaited", *reached)
    assert ok(done) == "ippool.routed.dev/awaited condition met\n"
    assert done.stderr == ""  # the watch was left before its end
    never = ctl("wait", "pool/awaited", "--for", "condition=Ready", "--timeout", "300ms")
    assert never.returncode == 1
    assert "ippool.routed.dev/awaited" in never.stderr
    assert "not found" in ctl("wait", "pool/nosuch", "--for", "condition=Ready").stderr
    assert ok(ctl("wait", "pool/nosuch", "--for", "delete"))
    for wrong in (["pools", "--for", "delete"], ["pool/awaited"], ["pool/a", "--for", "rain"]):
        assert ctl("wait", *wrong).returncode == 2, wrong


def test_files_of_directories_in_directories(ctl: Ctl, tmp_path: Path) -> None:
    inner = tmp_path / "rack" / "r1"
    inner.mkdir(parents=True)
    (inner / "pool.yaml").write_text(POOL % ("deep", "10.112.0.0/24"))
    (inner / "README.md").write_text("not an object")
    assert "no objects" in ctl("apply", "-f", str(tmp_path)).stderr
    assert "deep created" in ok(ctl("apply", "-R", "-f", str(tmp_path)))
    assert "deep" in ok(ctl("get", "-R", "-f", str(tmp_path), "-o", "name"))
    assert "deep deleted" in ok(ctl("delete", "-R", "-f", str(tmp_path)))


def test_delete_all_needs_the_word(ctl: Ctl) -> None:
    tier = "kind: Tier\nmetadata: {name: %s}\nspec: {order: 1}\n"
    ok(ctl("apply", "-f", "-", stdin=f"{tier % 'one'}---\n{tier % 'two'}"))
    bare = ctl("delete", "tiers")
    assert bare.returncode == 2
    assert "--all" in bare.stderr
    assert ok(ctl("delete", "tiers", "--all")).count(" deleted") == 2
    assert ok(ctl("delete", "tiers", "--all")) == ""


def test_explain_and_api_resources_need_no_service(ctl: Ctl) -> None:
    nowhere = ["-s", "https://127.0.0.1:1"]
    assert "Pools never overlap" in ok(ctl(*nowhere, "explain", "pool.spec.cidr"))
    assert "containerID" in ok(ctl(*nowhere, "explain", "wl", "--recursive"))
    absent = ctl("explain", "pool.spec.nothing")
    assert absent.returncode == 2
    assert "there are: cidr" in absent.stderr
    assert "ippools.routed.dev\n" in ok(ctl("api-resources", "-o", "name"))
    assert "pool,pools" in ok(ctl("api-resources", "--no-headers"))
