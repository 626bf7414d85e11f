"""Stock kubectl against the service, by the kubeconfig that it wrote: more than a hundred commands.

They are one story, told from the first to the last; each is a line of what is said, how it ends,
and what has to be in the answer. `since` is the minor version that knows the command.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.kubectls import NAMES, kubectl, minor
from support.service import Service, running_service

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KINDS = EXAMPLES / "kinds"


@dataclass(frozen=True)
class Said:
    """One command; `refused` says that it must fail."""

    words: str
    expect: str = ""
    refused: bool = False
    since: int = 0
    stdin: str = ""
    lacks: str = ""


POOL = '{"apiVersion":"routed.dev/v1","kind":"IPPool","metadata":{"name":"%s"},"spec":%s}'
EXTRA = POOL % ("extra", '{"cidr":"10.90.0.0/24","colour":"red"}')
BAD = POOL % ("bad", '{"cidr":"10.90.0.1/24","cooldownSeconds":-1}')
GENERATED = POOL.replace('"name":"%s"', '"generateName":"made-"') % '{"cidr":"10.91.0.0/24"}'
APPLIED = POOL % ("ssa", '{"cidr":"10.92.0.0/24","disabled":%s}')

STORY = [
    # what there is
    Said("version", "v1."),
    Said("api-versions", "routed.dev/v1"),
    Said("api-resources", "ippools"),
    Said("api-resources --api-group=routed.dev -o name", "addressleases.routed.dev"),
    Said("api-resources --verbs=list,watch -o wide", "IPBlock"),
    Said("api-resources --namespaced=false", "workloads"),
    Said("get --raw /healthz", "ok"),
    Said("get --raw /readyz", "ok"),
    Said("get --raw /apis/routed.dev/v1", "APIResourceList"),
    Said("explain ippools", "cut into blocks"),
    Said("explain ippool.spec.cidr", "Pools never overlap"),
    Said("explain workload.spec --recursive", "containerID"),
    Said("explain peer.spec.holdTime", "Seconds without a word"),
    Said("explain ippool.spec.nothing", "does not exist", refused=True),
    # who I am and what I may do
    Said("auth can-i create ippools", "yes"),
    Said("auth can-i delete nodes --all-namespaces", "yes"),
    Said("auth can-i get /metrics", "yes"),
    Said("auth can-i list pods", "no", refused=True),
    Said("auth can-i --list", "ippools.routed.dev"),
    Said("auth whoami", "admin", since=27),
    # apply and create
    Said(f"apply -f {EXAMPLES}", "ippool.routed.dev/main created"),
    Said(f"apply -f {EXAMPLES}", "ippool.routed.dev/main unchanged"),
    Said(f"diff -f {EXAMPLES}"),
    Said(f"create -f {KINDS}/node.yaml --dry-run=client", "created (dry run)"),
    Said(f"create -f {KINDS}/node.yaml --dry-run=server", "created (server dry run)"),
    Said("get nodes", "No resources found"),
    Said(f"create -f {KINDS}/node.yaml", "node.routed.dev/host9 created"),
    Said(f"create -f {KINDS}/node.yaml", "already exists", refused=True),
    Said(f"apply -f {KINDS}/ippool.yaml", "ippool.routed.dev/rack1-fixed created"),
    Said(f"apply -f {KINDS}/ipreservation.yaml -f {KINDS}/addresslease.yaml", "db created"),
    Said(f"apply -f {KINDS}/bgpconfiguration.yaml", "created"),
    Said(f"apply -f {KINDS}/bgppeer.yaml", "rack1-tor1 created"),
    Said(f"create -f {KINDS}/ipblock.yaml", "created"),
    Said(f"apply -f {KINDS}/workload.yaml -o name", "workload.routed.dev/web"),
    Said(f"create -f {KINDS}/role.yaml -o yaml", "labelSelector: team == 'web'"),
    Said("create -f -", "created", stdin=GENERATED),
    Said("get ippools -o name", "ippool.routed.dev/made-"),
    # what is wrong
    Said("create -f -", "colour", refused=True, stdin=EXTRA),
    Said("create --validate=false -f -", "extra created", stdin=EXTRA, since=25),
    Said("get ippool extra -o yaml", "cidr: 10.90.0.0/24", lacks="colour", since=25),
    Said("create --validate=warn -f -", "unknown field", since=25,
         stdin=EXTRA.replace("extra", "extra2").replace("10.90.0.0", "10.90.1.0")),
    Said("create -f -", "10.90.0.0/24 would be right", refused=True, stdin=BAD),
    Said("create --validate=false -f -", "spec.cooldownSeconds", refused=True, stdin=BAD),
    Said("create -f -", "overlaps pool main", refused=True,
         stdin=POOL % ("again", '{"cidr":"10.65.4.0/24"}')),
    Said("delete ippools extra", "deleted", since=25),
    Said("get nothing", "doesn't have a resource type", refused=True),
    Said("get ippool nothing", "not found", refused=True),
    # get
    Said("get ippools", "CIDR"),
    Said("get pools", "10.65.0.0/16"),
    Said("get pool main", "Automatic"),
    Said("get ippools.routed.dev main", "10.65.0.0/16"),
    Said("get pool/main peer/tor1", "bgppeer.routed.dev/tor1"),
    Said("get ippools -o wide", "ANNOUNCE"),
    Said("get ippools --no-headers", "main", lacks="CIDR"),
    Said("get ippools --show-labels", "LABELS"),
    Said("get ippools -L rack", "RACK"),
    Said("get ippools --sort-by=.spec.cidr", "main"),
    Said("get ippool main -o yaml", "blockSize: 26"),
    Said("get ippool main -o json", '"blockSize": 26'),
    Said("get ippools -o jsonpath={.items[*].spec.cidr}", "10.65.0.0/16"),
    Said("get ippools -o custom-columns=N:.metadata.name,C:.spec.cidr", "10.65.0.0/16"),
    Said("get ippools -o go-template={{range.items}}{{.spec.cidr}};{{end}}", "10.65.0.0/16;"),
    Said("get ippools,bgppeers", "ippool.routed.dev/main"),
    Said("get routed", "bgppeer.routed.dev/tor1"),
    Said("get ippools --chunk-size=1", "rack1-fixed"),
    Said("get ippools --chunk-size=1 -o name", "ippool.routed.dev/rack1"),
    Said("get blocks --field-selector spec.node=host9", "10.84.0.200/32"),
    Said("get blocks --field-selector spec.node!=host9", "No resources found"),
    Said("get ippools --field-selector metadata.name=main", "main", lacks="rack1"),
    Said("get ippools --field-selector spec.cidr=x", "field selectors", refused=True),
    Said("get ippools -l a=b", "No resources found"),
    Said("get -f " + str(KINDS / "node.yaml"), "host9"),
    Said("get workloads --ignore-not-found nothing"),
    Said("get workload web -o jsonpath={.metadata.labels.app}", "web"),
    Said("get ippools --watch --request-timeout=2s", "main"),
    Said("get ippools -w --output-watch-events --request-timeout=2s", "ADDED"),
    Said("describe ippool main", "Name:         main"),
    Said("describe node host9", "As Number:"),
    Said("describe workloads", "Name:         web"),
    # change
    Said("label ippool main team=blue", "labeled"),
    Said("label ippool main team=red", "already has a value", refused=True),
    Said("label --overwrite ippool main team=red", "labeled"),
    Said("label ippools --all kept=yes", "labeled"),
    Said("get ippools -l team=red,kept", "main"),
    Said("get ippools -l 'team in (red,blue)'", "main"),
    Said("get ippools -l !team", "rack1"),
    Said("label ippool main team-", "main"),
    Said("annotate ippool main note=hello", "annotated"),
    Said("annotate ippool main note-", "annotated"),
    Said('patch ippool main --type=merge -p {"spec":{"disabled":true}}', "patched"),
    Said('patch ippool main --type=merge -p {"spec":{"disabled":true}}', "no change"),
    Said('patch pool main --type=json -p [{"op":"remove","path":"/spec/disabled"}]', "patched"),
    Said('patch pool main --type=json -p [{"op":"test","path":"/spec/cidr","value":"x"}]',
         "does not apply", refused=True),
    Said('patch ippool main -p {"spec":{"cooldownSeconds":30}}', "patched"),
    Said('patch ippool main -p {"spec":{"cidr":"10.0.0.0/8"}}', "immutable", refused=True),
    Said('patch ippool main -p {"spec":{"disabled":true}} --dry-run=server', "patched"),
    Said("get ippool main -o jsonpath={.spec.disabled}{.spec.cooldownSeconds}", "false30"),
    Said('patch node host9 --subresource=status -p {"status":{"versions":{"a":"1"}}} --type=merge',
         "patched", since=24),
    Said(f"replace -f {KINDS}/bgppeer.yaml", "replaced"),
    Said(f"replace --force -f {KINDS}/bgppeer.yaml", "replaced"),
    Said("edit ippool main", "edited"),
    Said("get ippool main -o jsonpath={.spec.cooldownSeconds}", "31"),
    Said("apply -f -", "configured", stdin=POOL % ("main", '{"cidr":"10.65.0.0/16"}')),
    # server-side apply
    Said("apply --server-side --field-manager=ann -f -", "serverside-applied",
         stdin=APPLIED % "true"),
    Said("apply --server-side --field-manager=bob -f -", "conflict", refused=True,
         stdin=APPLIED % "false"),
    Said("apply --server-side --field-manager=bob --force-conflicts -f -", "serverside-applied",
         stdin=APPLIED % "false"),
    Said("get ippool ssa -o yaml", "disabled: false"),
    Said("get ippool ssa -o yaml --show-managed-fields", "manager: bob", since=21),
    Said(f"apply --server-side -f {KINDS}/ipreservation.yaml --force-conflicts", "applied"),
    Said("diff --server-side --field-manager=bob -f -", "", stdin=APPLIED % "false"),
    # wait
    Said("wait --for=jsonpath={.spec.cidr}=10.65.0.0/16 ippool/main --timeout=5s", "met", since=23),
    Said("wait --for=condition=Ready node/host9 --timeout=1s", "timed out", refused=True),
    Said("wait --for=delete ippool/nothing --timeout=5s", since=24),
    # delete
    Said("delete ippool main --dry-run=server", "deleted (server dry run)"),
    Said("get ippool main", "main"),
    Said("delete ippool rack1-fixed", "owned", refused=True),
    Said("delete node host9", "routectl drain", refused=True),
    Said("delete workload web --wait=true --timeout=10s", "deleted"),
    Said("delete ippools -l kept=yes,team=none", "No resources found"),
    Said("delete bgppeers --all", "deleted"),
    Said("get bgppeers", "No resources found"),
    Said(f"delete -f {KINDS}/role.yaml --ignore-not-found", "deleted"),
    Said(f"delete -f {KINDS}/role.yaml --ignore-not-found"),
    Said(f"delete -f {KINDS}/role.yaml", "not found", refused=True),
    Said("delete ippool ssa main --now", "deleted"),
]  # fmt: skip


@pytest.fixture(scope="module", params=NAMES)
def program(request: pytest.FixtureRequest) -> Path:
    found = kubectl(request.param)
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture(scope="module")
def service(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("kubectl")) as found:
        yield found


def split(words: str) -> list[str]:
    """At blanks; what is between ' is one."""
    return [part.strip("'") for part in _parts(words)]


def _parts(words: str) -> list[str]:
    found: list[str] = []
    for part in words.split(" "):
        if found and found[-1].startswith("'") and not found[-1].endswith("'"):
            found[-1] += f" {part}"
        else:
            found.append(part)
    return found


def test_the_story(program: Path, service: Service, tmp_path: Path) -> None:
    version = minor(program)
    editor = tmp_path / "edit.sh"
    editor.write_text("#!/bin/sh\nsed -i 's/cooldownSeconds: 30/cooldownSeconds: 31/' \"$1\"\n")
    editor.chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "KUBECONFIG": str(service.admin),
        "EDITOR": str(editor), "TERM": "dumb",
    }  # fmt: skip
    wrong: list[str] = []
    told = [said for said in STORY if said.since <= version]
    assert len(told) >= 100
    for said in told:
        done = subprocess.run(
            [program, *split(said.words)], input=said.stdin, capture_output=True, text=True,
            env=environment, timeout=60, check=False,
        )  # fmt: skip
        answer = done.stdout + done.stderr
        streaming = "request-timeout" in said.words  # such a watch ends in an error of its own
        right = streaming or (done.returncode != 0) == said.refused
        right = right and said.expect in answer and (not said.lacks or said.lacks not in answer)
        if not right:
            wrong.append(f"{said.words}: {done.returncode}\n{answer[:600]}")
    assert not wrong, "\n".join(wrong)


def test_there_is_a_kubectl() -> None:
    """Where one can be had, the story is told."""
    assert any(isinstance(kubectl(name), Path) for name in NAMES) or shutil.which("apt-get") is None
