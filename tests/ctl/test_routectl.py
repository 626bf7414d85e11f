"""routectl against a real service process; its errors and exit codes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support.ctl import Ctl, ok

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_apply_says_what_it_did_and_is_idempotent(ctl: Ctl) -> None:
    first = ok(ctl("apply", "-f", str(EXAMPLES)))
    assert first.splitlines() == [
        "bgppeer.routed.dev/tor1 created",
        "bgppeer.routed.dev/tor2 created",
        "ippool.routed.dev/main created",
    ]
    assert ok(ctl("apply", "-f", str(EXAMPLES))).count("unchanged") == 3
    changed = (EXAMPLES / "bgppeers.yaml").read_text().replace("holdTime: 9", "holdTime: 3")
    assert ok(ctl("apply", "-f", "-", stdin=changed)).count("configured") == 2


def test_get_in_every_output(ctl: Ctl) -> None:
    ctl("apply", "-f", str(EXAMPLES))
    table = ok(ctl("get", "pools")).splitlines()
    assert table[0].split() == ["NAME", "CIDR", "BLOCK", "ALLOCATION", "DISABLED", "AGE"]
    assert table[1].split()[:5] == ["main", "10.65.0.0/16", "26", "Automatic", "false"]
    assert "SELECTOR" in ok(ctl("get", "ippool", "main", "-o", "wide"))
    assert ok(ctl("get", "ippool", "-o", "name")) == "ippool.routed.dev/main\n"
    assert json.loads(ok(ctl("get", "IPPool", "main", "-o", "json")))["kind"] == "IPPool"
    assert "kind: IPPoolList" in ok(ctl("get", "ippools", "-o", "yaml"))
    assert ctl("get", "nodes").stderr == "No nodes found.\n"
    assert "Cidr" not in ok(ctl("describe", "pool", "main"))
    assert "cidr: 10.65.0.0/16" in ok(ctl("describe", "pool", "main"))
    assert "main 10.65.0.0/16" in ok(ctl("ipam", "show"))
    told = ok(ctl("describe", "pools")).splitlines()
    events = told[told.index("Events:") + 1 :]
    assert events[0].split() == ["TYPE", "REASON", "AGE", "MESSAGE"]
    assert events[1].split()[:2] == ["Normal", "Created"]
    assert events[1].endswith("IPPool main was created")


def test_a_node_born_name_is_suggested(ctl: Ctl) -> None:
    assert ctl("create", "-f", "-", stdin=NODE_AND_REPORT).returncode == 0
    missing = ctl("get", "workload", "web")
    assert missing.returncode == 1
    assert "web.n1" in missing.stderr
    assert "web.n1" in ok(ctl("get", "wl", "-l", "app=web"))
    assert ok(ctl("get", "wl", "-l", "app!=web", "-o", "name")) == ""
    assert ok(ctl("delete", "wl", "-l", "app=web")) == "workload.routed.dev/web.n1 deleted\n"
    assert ok(ctl("delete", "node", "n1")) == "node.routed.dev/n1 deleted\n"


NODE_AND_REPORT = """
kind: Node
metadata: {name: n1}
---
kind: Workload
metadata: {name: web.n1, labels: {app: web}}
spec: {node: n1, origin: Node}
"""


def test_three_mistakes_in_a_file_are_told_at_once_and_nothing_is_sent(ctl: Ctl) -> None:
    text = """
kind: IPPool
metadata: {name: good}
spec: {cidr: 10.70.0.0/16}
---
kind: IPPool
metadata: {name: bad}
spec: {cidr: 10.71.0.1/16, allocation: Sometimes}
---
kind: BGPPeer
metadata: {name: worse}
spec: {peerIP: 192.0.2.1, asNumber: 1, holdTime: 2}
"""
    done = ctl("apply", "-f", "-", stdin=text)
    assert done.returncode == 2
    assert "3 problem(s)" in done.stderr
    for part in (
        "document 2: IPPool 'bad': spec.cidr: '10.71.0.1/16' has host bits set",
        "document 2: IPPool 'bad': spec.allocation",
        "document 3: BGPPeer 'worse': spec.holdTime",
    ):
        assert part in done.stderr, part
    assert "good" not in ok(ctl("get", "pools"))


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["get", "frogs"], 2, "no kind"),
        (["get", "pools", "-o", "xml"], 2, "none of wide"),
        (["apply"], 2, "-f"),
        (["apply", "-f", "/no/such/file"], 2, "cannot be read"),
        (["delete"], 2, "KIND NAME"),
        (["delete", "pool", "none"], 1, "not found"),
        (["attach", "x", "--netns", "y", "--agent", "/no/sock"], 1, "routed agent"),
        (["attach", "x", "--netns", "y", "--label", "z"], 2, "KEY=VALUE"),
        (["attach", "x", "--netns", "y", "--node", "none"], 1, "no node 'none'"),
        (["--kubeconfig", "/no/file", "get", "pools"], 2, "cannot read it"),
        (["--server", "https://127.0.0.1:1", "get", "pools"], 1, "cannot reach"),
    ],
)
def test_errors_say_what_to_do_and_exit_codes_tell_them_apart(
    ctl: Ctl, words: list[str], code: int, says: str
) -> None:
    done = ctl(*words)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_watch_goes_on_with_changes(ctl: Ctl) -> None:
    ctl("apply", "-f", str(EXAMPLES))
    command = ctl("get", "pools").args[:-2]
    watching = subprocess.Popen([*command, "get", "pools", "-w"], stdout=subprocess.PIPE, text=True)
    try:
        assert watching.stdout is not None
        assert watching.stdout.readline().startswith("NAME")
        assert watching.stdout.readline().startswith("main")
        pool = "kind: IPPool\nmetadata: {name: new}\nspec: {cidr: 10.80.0.0/16}"
        ok(ctl("apply", "-f", "-", stdin=pool))
        assert watching.stdout.readline().startswith("new")
    finally:
        watching.terminate()
        watching.wait(10)
        if watching.stdout:
            watching.stdout.close()


def test_tokens_and_kubeconfigs(ctl: Ctl, tmp_path: Path) -> None:
    assert ok(ctl("token", "create", "--node", "n7")).startswith("rtb-")
    assert "current-context: routed" in ok(ctl("token", "bearer", "--node", "n7"))
    path = tmp_path / "alice"
    words = ["token", "create", "--user", "alice", "--role", "viewer", "--to", str(path)]
    ok(ctl(*words))
    assert path.stat().st_mode & 0o777 == 0o600
    assert "alice" in ok(ctl("token", "list"))
    refused = ctl("--kubeconfig", str(path), "create", "-f", str(EXAMPLES))
    assert refused.returncode == 1
    assert "cannot create bgppeers: role viewer of alice does not allow it" in refused.stderr
    ok(ctl("token", "revoke", "--user", "alice"))
    assert "not valid any more" in ctl("--kubeconfig", str(path), "get", "pools").stderr
    for wrong in (
        ["--user", "a"],
        ["--node", "a", "--role", "viewer"],
        ["--node", "a", "--ttl", "x"],
    ):
        assert ctl("token", "create", *wrong).returncode == 2, wrong
    assert "no role of a user" in ctl("token", "create", "--user", "a", "--role", "x").stderr


def test_delete_goes_on_after_one_that_is_refused(ctl: Ctl) -> None:
    text = "kind: BGPPeer\nmetadata: {name: %s}\nspec: {peerIP: 192.0.2.9, asNumber: 65009}\n"
    both = "---\n".join(text % name for name in ("one", "two"))
    ok(ctl("apply", "-f", "-", stdin=both))
    done = ctl("delete", "peer", "one", "nosuch", "two")
    assert done.returncode == 1
    assert "nosuch" in done.stderr
    assert "bgppeer.routed.dev/two deleted" in done.stdout


def test_what_names_no_object_is_wrong_use(ctl: Ctl) -> None:
    for words in (["delete", "-l", "a=b"], ["apply", "-f", "-"], ["create", "-f", "-"]):
        assert ctl(*words).returncode == 2, words


def test_a_cordoned_node_is_shown_as_such(ctl: Ctl) -> None:
    node = {"kind": "Node", "apiVersion": "routed.dev/v1", "metadata": {"name": "rest"}}
    ok(ctl("create", "-f", "-", stdin=json.dumps(node)))
    for word, value in (("cordon", "true"), ("uncordon", "false")):
        ok(ctl(word, "rest"))
        assert f"unschedulable: {value}" in ok(ctl("get", "node", "rest", "-o", "yaml"))
    assert "node/rest drained" in ok(ctl("drain", "rest"))
    ok(ctl("delete", "node", "rest"))
    assert ctl("drain", "none").returncode == 1


def test_the_examples_of_the_kinds_are_taken(ctl: Ctl) -> None:
    order = ["node", "ippool", "ipreservation", "addresslease", "bgpconfiguration", "bgppeer",
             "workload", "role", "tier", "networkset", "networkpolicy", "hostendpoint",
             "bgpfilter", "virtualip"]  # fmt: skip
    for name in order:
        ok(ctl("apply", "-f", str(EXAMPLES / "kinds" / f"{name}.yaml")))
    ok(ctl("create", "-f", str(EXAMPLES / "kinds" / "ipblock.yaml")))
    assert "10.84.0.0 " in ok(ctl("get", "lease", "db"))
    assert "10.84.0.200/32" in ok(ctl("get", "blocks"))
    assert {f"{name}.yaml" for name in [*order, "ipblock"]} == {
        path.name for path in (EXAMPLES / "kinds").iterdir()
    }


def test_unknown_fields_are_refused_told_of_or_left_out(ctl: Ctl) -> None:
    peer = "kind: BGPPeer\nmetadata: {name: odd}\nspec: {peerIP: 192.0.2.7, asNumber: 1, %s}\n"
    strange = peer % "colour: red"
    for verb in ("create", "apply"):
        done = ctl(verb, "-f", "-", stdin=strange)
        assert done.returncode == 2
        assert "spec.colour: is not a known field" in done.stderr
    warned = ctl("create", "--validate", "warn", "-f", "-", stdin=strange)
    assert "odd created" in ok(warned)
    assert warned.stderr == 'Warning: stdin: document 1: unknown field "spec.colour"\n'
    strange = peer % "holdTime: 30, colour: red"
    silent = ctl("apply", "--validate", "ignore", "-f", "-", stdin=strange)
    assert ("odd configured" in ok(silent), silent.stderr) == (True, "")
    assert "holdTime: 30" in ok(ctl("get", "peer", "odd", "-o", "yaml"))
    assert "colour" not in ok(ctl("get", "peer", "odd", "-o", "yaml"))
    bad = peer % "holdTime: 2, colour: red"
    assert ctl("apply", "--validate", "ignore", "-f", "-", stdin=bad).returncode == 2
    assert ctl("apply", "--validate", "maybe", "-f", "-", stdin=peer % "").returncode == 2
    ok(ctl("delete", "peer", "odd"))
