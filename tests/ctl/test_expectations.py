"""`routectl policy test`: what is as expected, what is not and why, and mistakes in files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.ctl import ok

from api.resources.errors import ConfigError
from routed.ctl import expecting

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "policies"


def asked(*files: Path) -> subprocess.CompletedProcess[str]:
    """Without a service: a kubeconfig that is not there is none too few."""
    words = [word for file in files for word in ("-f", str(file))]
    command = [sys.executable, "-m", "routed.ctl.main", "--kubeconfig", "/nonexistent"]
    return subprocess.run(
        [*command, "policy", "test", *words],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def changed(directory: Path, name: str, old: str, new: str) -> Path:
    """The examples, with `old` of the file `name` as `new`."""
    shutil.copytree(EXAMPLES, directory / "p")
    path = directory / "p" / name
    text = path.read_text(encoding="utf-8")
    assert old in text, old
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return directory / "p"


def test_the_example_is_as_it_expects() -> None:
    said = ok(asked(EXAMPLES))
    assert said.endswith(" flows judged, 0 not as expected\n"), said
    assert int(said.split()[0]) >= 30, "both families, each port, each pair"


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("shop.yaml", "source: {selector: app == 'web'}", "source: {selector: app == 'x'}",
         "shop: allow[1]: web (240.0.0.1) -> db (240.0.0.2) TCP/5432: ingress of db: Deny (tier "
         "default: no rule of its policies decides, so its defaultAction)"),
        ("shop.yaml", "source: {selector: app == 'web'}", "source: {}",
         "deny[0]: batch (240.0.0.3) -> db (240.0.0.2) TCP/5432: egress of batch: Allow (no tier "
         "decides: the node's default); ingress of db: Allow (tier default, policy db, "
         "spec.ingress[0])"),
        ("shop.yaml", "reject: true, ", "",
         "reject[0]: web (100::1) -> netset/blocked (2001:db8:bad::) TCP/443: egress of web: "
         "Deny (tier security, policy blocked, spec.egress[0])"),
        ("shop.yaml", "staged: true", "staged: false", "wouldDeny[0]: web (240.0.0.1) -> "
         "203.0.113.7 TCP/443: no staged policy would deny it"),
        ("shop.yaml", "types: [Ingress, Egress]\n  ingress:\n    - action",
         "types: [Ingress]\n  ingress:\n    - action",
         "(the database opens no connections)"),
        ("shop.yaml", "icmp: {type: 8}", "icmp: {type: 0}",
         "allow[2]: batch (240.0.0.3) -> web (240.0.0.1) ICMP/8.0"),
        ("shop-test.yaml", "spec:\n", "spec:\n  policyDefault: Deny\n",
         "allow[0]: batch (240.0.0.3) -> web (240.0.0.1) TCP/443: egress of batch: Deny (no tier "),
        ("shop-test.yaml", "node: host1, labels", "node: host2, labels",
         "(a host reaches its own workloads)"),
    ],
)  # fmt: skip
def test_what_is_not_as_expected_is_told_with_what_decided(
    tmp_path: Path, file: str, old: str, new: str, said: str
) -> None:
    found = expecting.run([changed(tmp_path, file, old, new)])
    assert found.judged >= 30
    assert any(said in line for line in found.differing), found.differing


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("shop.yaml", "tier: security", "tier: secure", "there is no tier 'secure'; there are: "
         "default, security"),
        ("shop.yaml", "app == 'db'\n", "app = 'db'\n", "column 5"),
        ("shop-test.yaml", "from: web, to: db", "from: wbe, to: db", "there is no workload 'wbe'"),
        ("shop-test.yaml", "from: web, to: db", "from: app == 'w', to: db", "selects no workload"),
        ("shop-test.yaml", "from: web, to: db", "from: app == , to: db", "column"),
        ("shop-test.yaml", "from: web, to: db", "from: web, to: pool/x", "'pool' is none of"),
        ("shop-test.yaml", "from: web, to: db", "from: db, to: db", "are one workload"),
        ("shop-test.yaml", "from: web, to: db", "to: db", "allow[1].from: is required"),
        ("shop-test.yaml", "port: 5432}", "port: 5432/icmp}", "PORT[/PROTOCOL]"),
        ("shop-test.yaml", "port: 5432}", "port: pg}", "db has no port that is called 'pg'"),
        ("shop-test.yaml", "port: 5432}", "protocol: tcp}", "needs a port"),
        ("shop-test.yaml", "port: 5432}", "protocol: gre}", "is no protocol"),
        ("shop-test.yaml", "port: 5432}", "because: x}", "say which port, or protocol"),
        ("shop-test.yaml", "port: 5432}", "prot: 5432}", "allow[1].prot: is not a known field"),
        ("shop-test.yaml", "{name: batch,", "{name: db,", "workload 'db': is there twice"),
        ("shop-test.yaml", "kind: PolicyTest", "kind: PolicyTests", "has kind 'PolicyTests'"),
    ],
)  # fmt: skip
def test_mistakes_in_files_are_all_told(
    tmp_path: Path, file: str, old: str, new: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        expecting.run([changed(tmp_path, file, old, new)])
    assert said in str(caught.value)


def test_the_exit_code_says_which(tmp_path: Path) -> None:
    differs = changed(tmp_path, "shop.yaml", "staged: true", "staged: false")
    done = asked(differs)
    assert (done.returncode, done.stderr) == (1, "")
    assert "shop: wouldDeny[0]: " in done.stdout
    assert "31 flows judged, 1 not as expected" in done.stdout
    (differs / "shop.yaml").write_text("kind: None\n", encoding="utf-8")
    done = asked(differs)
    assert (done.returncode, done.stdout) == (2, "")
    assert "has kind 'None'" in done.stderr


def test_expecting_nothing_is_a_mistake(tmp_path: Path) -> None:
    done = asked(EXAMPLES / "shop.yaml")
    assert done.returncode == 2
    assert "no PolicyTest in it" in done.stderr
    empty = tmp_path / "t.yaml"
    empty.write_text("kind: PolicyTest\nmetadata: {name: t}\nspec: {}\n", encoding="utf-8")
    done = asked(EXAMPLES / "shop.yaml", empty)
    assert done.returncode == 2
    assert "expects nothing" in done.stderr


def test_manifests_of_workloads_and_nodes_will_do(tmp_path: Path) -> None:
    held = tmp_path / "all.yaml"
    held.write_text(
        """
kind: Node
metadata: {name: h1}
spec: {addresses: [192.0.2.1]}
---
kind: Workload
metadata: {name: api.h1, labels: {app: api}}
spec: {node: h1, origin: Node, addresses: [10.0.0.9]}
---
kind: Workload
metadata: {name: helper, labels: {app: helper}}
spec: {node: h1, mode: shared, sharedWith: api.h1}
---
kind: NetworkPolicy
metadata: {name: p}
spec: {selector: app == 'api', egress: [{action: Deny, destination: {nets: [10.0.0.0/8]}}]}
---
kind: PolicyTest
metadata: {name: t}
spec:
  allow: [{from: api, to: h1, protocol: icmp}]
  deny:
    - {from: helper, to: 10.1.1.1, port: 1}
    - {from: api.h1, to: node/h1, port: 22}
    - {from: workload/api, to: 10.9.9.9, protocol: [icmp/3.4, 47], sourcePort: 7}
""".replace("kind:", "apiVersion: routed.dev/v1\nkind:"),
        encoding="utf-8",
    )
    done = asked(held)
    assert "allow[0]: api.h1 (10.0.0.9) -> node/h1 (192.0.2.1) ICMP/8.0: egress" in done.stdout
    assert "5 flows judged, 1 not as expected" in done.stdout, done.stdout


HOSTS = """
apiVersion: routed.dev/v1
kind: HostEndpoint
metadata: {name: edge, labels: {role: edge}}
spec: {node: host1, interfaceName: "*"}
---
apiVersion: routed.dev/v1
kind: NetworkPolicy
metadata: {name: edge}
spec:
  selector: role == 'edge'
  types: [Ingress, Egress]
  ingress: [{action: Allow, protocol: TCP, destination: {ports: [443]}}]
---
apiVersion: routed.dev/v1
kind: PolicyTest
metadata: {name: hosts}
spec:
  nodes: {host1: [192.0.2.11]}
  workloads: [{name: web, node: host1}]
  allow:
    - {from: 203.0.113.7, to: node/host1, port: [443, 22, 179]}
    - {from: node/host1, to: 203.0.113.7, port: [179, 53/udp]}
    - {from: 203.0.113.7, to: web, port: 80}
    - {from: node/host1, to: web, port: 80}
  deny:
    - {from: 203.0.113.7, to: node/host1, port: [80, 22/udp]}
    - {from: node/host1, to: 203.0.113.7, port: 443}
"""


def test_host_endpoints_count_with_their_failsafe_ports(tmp_path: Path) -> None:
    path = tmp_path / "hosts.yaml"
    path.write_text(HOSTS, encoding="utf-8")
    assert expecting.run([path]).differing == ()
    path.write_text(HOSTS.replace("port: [443, 22,", "port: [8443, 22,"), encoding="utf-8")
    (line,) = expecting.run([path]).differing
    assert "TCP/8443: ingress of host endpoint edge: Deny (tier default: no rule" in line
