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
from support.kubectls import kubectl, minor, names
from support.service import Service, running_service

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KINDS = EXAMPLES / "kinds"


@dataclass(frozen=True)
class Said:
    """One command; `refused` says that it must fail, `silent` that it says nothing."""

    words: str
    expect: str = ""
    refused: bool = False
    since: int = 0
    stdin: str = ""
    lacks: str = ""
    silent: bool = False


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
    Said("api-resources --api-group= -o wide", "events"),
    Said("explain events.reason", "in one word"),
    # who I am and what I may do
    Said("auth can-i create ippools", "yes"),
    Said("auth can-i delete nodes --all-namespaces", "yes"),
    Said("auth can-i get /metrics", "yes"),
    Said("auth can-i list pods", "no", refused=True),
    Said("auth can-i list events", "yes"),
    Said("auth can-i delete events", "no", refused=True),
    Said("auth can-i --list", "ippools.routed.dev"),
    Said("auth whoami", "admin", since=27),
    # apply and create
    Said(f"apply -f {EXAMPLES}", "ippool.routed.dev/main created"),
    Said(f"apply -f {EXAMPLES}", "ippool.routed.dev/main unchanged"),
    Said(f"diff -f {EXAMPLES}", silent=True),
    Said("diff -f -", "+  cooldownSeconds: 7", refused=True,
         stdin=POOL % ("main", '{"cidr":"10.65.0.0/16","cooldownSeconds":7}')),
    Said("diff --server-side --force-conflicts -f -", "+  disabled: true", refused=True,
         stdin=POOL % ("main", '{"cidr":"10.65.0.0/16","disabled":true}')),
    Said("apply --dry-run=client -f -", "created (dry run)", stdin=APPLIED % "true"),
    Said("apply --dry-run=server -f -", "created (server dry run)", stdin=APPLIED % "true"),
    Said("get ippool ssa", "not found", refused=True),
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
    Said("create --validate=false -f -", "extra created", stdin=EXTRA),
    Said("get ippool extra -o yaml", "cidr: 10.90.0.0/24", lacks="colour"),
    Said("create --validate=strict -f -", "unknown field", refused=True, stdin=EXTRA, since=25),
    Said("create --validate=true -f -", "colour", refused=True, stdin=EXTRA),
    Said("create --validate=warn -f -", 'Warning: unknown field "spec.colour"', since=25,
         stdin=EXTRA.replace("extra", "extra2").replace("10.90.0.0", "10.90.1.0")),
    Said("create -f -", "10.90.0.0/24 would be right", refused=True, stdin=BAD),
    Said("create --validate=false -f -", "spec.cooldownSeconds", refused=True, stdin=BAD),
    Said("create -f -", "overlaps pool main", refused=True,
         stdin=POOL % ("again", '{"cidr":"10.65.4.0/24"}')),
    Said("delete ippools extra", "deleted"),
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
    Said("get workloads --ignore-not-found nothing", silent=True),
    Said("get workload web -o jsonpath={.metadata.labels.app}", "web"),
    Said("get ippools --watch --request-timeout=2s", "main"),
    Said("get ippools -w --output-watch-events --request-timeout=2s", "ADDED"),
    Said("get ippool main -o jsonpath-as-json={.spec}", '"blockSize": 26', since=21),
    Said("get ippools -o custom-columns=N:.metadata.name --no-headers", "rack1-fixed", lacks="N "),
    Said("get ippools --field-selector metadata.name!=main -o name", "rack1", lacks="main"),
    Said("get workloads --field-selector spec.node=host9,spec.origin=API -o name", "/web"),
    Said("get --raw /apis/routed.dev/v1/ippools?limit=1", '"remainingItemCount":'),
    # events
    Said("get events", "LAST SEEN"),
    Said("get events", "node host9 claimed 10.84.0.200/32 of pool rack1-fixed"),
    Said("get events -A --field-selector involvedObject.kind=Node", "node/host9", lacks="ippool"),
    Said("get events --field-selector involvedObject.name=web,type=Normal", "workload/web"),
    Said("get ev host9.node-created -o jsonpath={.involvedObject.kind}/{.reason}", "Node/Created"),
    Said("get events --chunk-size=2 -o name", "event/main.ippool-created"),
    Said("get events --sort-by=.metadata.name -o wide", "web.workload-created"),
    Said("get events -n other", "No resources found in other namespace"),
    Said("get events --field-selector spec.node=host9", "field selectors", refused=True),
    Said("get event host9.node-is-ready", "not found", refused=True),
    Said("events --for node/host9", "Node host9 was created", since=27),
    Said("events --for ippool/main --types=Warning", "No events", since=27),
    Said("events -A", "IPPool rack1-fixed was created", since=27),
    Said("describe ippool main", "IPPool main was created"),
    Said("describe block 10-84-0-200-32", "node host9 claimed"),
    Said("describe ippool main --show-events=false", "Name:         main", lacks="Events:"),
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
    Said("get ippools -l team", "No resources found"),
    Said("label -l kept=yes ippools colour=green", "labeled"),
    Said("get ippools -l colour==green,kept!=no -o name", "ippool.routed.dev/main"),
    Said("label --list ippool main", "colour=green", since=21),
    Said("annotate ippool main note=hello", "annotated"),
    Said("get ippool main -o jsonpath={.metadata.annotations.note}", "hello"),
    Said("annotate ippool main note=there", "already has a value", refused=True),
    Said("annotate ippool main note-", "annotated"),
    Said("get ippool main -o yaml", "name: main", lacks="note:"),
    Said('patch ippool main --type=merge -p {"spec":{"disabled":true}}', "patched"),
    Said('patch ippool main --type=merge -p {"spec":{"disabled":true}}', "no change"),
    Said('patch pool main --type=json -p [{"op":"remove","path":"/spec/disabled"}]', "patched"),
    Said('patch pool main --type=json -p [{"op":"test","path":"/spec/cidr","value":"x"}]',
         "does not apply", refused=True),
    Said('patch ippool main -p {"spec":{"cooldownSeconds":30}}', "patched"),
    Said('patch ippool main --type=strategic -p {"spec":{"cooldownSeconds":29}}', "patched"),
    Said('patch ippool main --type=strategic -p {"spec":{"cooldownSeconds":30}} -o name',
         "ippool.routed.dev/main"),
    Said('patch ippool nothing -p {"spec":{"cooldownSeconds":30}}', "not found", refused=True),
    Said('patch ippool main -p {"spec":{"cidr":"10.0.0.0/8"}}', "immutable", refused=True),
    Said('patch ippool main -p {"spec":{"disabled":true}} --dry-run=server', "patched"),
    Said("get ippool main -o jsonpath={.spec.disabled}{.spec.cooldownSeconds}", "false30"),
    Said('patch node host9 --subresource=status -p {"status":{"versions":{"a":"1"}}} --type=merge',
         "patched", since=24),
    Said('patch node host9 --subresource=status --type=merge -p {"status":{"conditions":'
         '[{"type":"Ready","status":"False","reason":"NotReady","message":"asleep"}]}}',
         "patched", since=24),
    Said("get node host9 --subresource=status -o yaml", "message: asleep", since=24),
    Said("describe node host9", "Ready is False: asleep", since=24),
    Said("events --for node/host9 --types=Warning", "NotReady", since=27, lacks="Created"),
    Said("wait --for=condition=Ready=False node/host9 --timeout=5s", "condition met", since=24),
    Said(f"replace -f {KINDS}/bgppeer.yaml", "replaced"),
    Said("replace -f -", "not found", refused=True,
         stdin=POOL % ("nothing", '{"cidr":"10.3.0.0/16"}')),
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
    Said("diff --server-side --field-manager=bob -f -", silent=True, stdin=APPLIED % "false"),
    Said("diff --server-side --field-manager=bob -f -", "+  disabled: true", refused=True,
         stdin=APPLIED % "true"),
    Said("apply --server-side --dry-run=server --field-manager=bob -f -", "serverside-applied",
         stdin=APPLIED % "true"),
    Said("get ippool ssa -o jsonpath={.spec.disabled}", "false"),
    # wait
    Said("wait --for=jsonpath={.spec.cidr}=10.65.0.0/16 ippool/main --timeout=5s", "met", since=23),
    Said("wait --for=condition=Ready node/host9 --timeout=1s", "timed out", refused=True),
    Said("wait --for=delete ippool/nothing --timeout=5s", silent=True, since=24),
    Said("wait --for=jsonpath={.spec.allocation}=Fixed ippool/main --timeout=1s", "timed out",
         refused=True, since=23),
    Said("wait --for=delete ippool/main --timeout=1s", "timed out", refused=True),
    # delete
    Said("delete ippool main --dry-run=server", "deleted (server dry run)"),
    Said("get ippool main", "main"),
    Said("delete ippool rack1-fixed", "owned", refused=True),
    Said("delete node host9", "routectl drain", refused=True),
    Said("delete workload web --wait=true --timeout=10s", "deleted"),
    Said("get workload web", "not found", refused=True),
    Said("delete ippools -l kept=yes,team=none", "No resources found"),
    Said("delete block 10-84-0-200-32 --wait=false", "deleted"),
    Said("describe block 10-84-0-200-32", "node host9 is asked to give it back"),
    Said("get ippools -l kept=yes -o name", "made-"),
    Said("label ippools -l !team,kept --overwrite kept=no --field-selector metadata.name!=main",
         "labeled"),
    Said("delete ippools -l kept=no --field-selector metadata.name!=rack1-fixed", "deleted"),
    Said("get ippools -l kept", "main", lacks="made-"),
    Said("delete bgppeers --all", "deleted"),
    Said("get bgppeers", "No resources found"),
    Said(f"delete -f {KINDS}/role.yaml --ignore-not-found", "deleted"),
    Said(f"delete -f {KINDS}/role.yaml --ignore-not-found", silent=True),
    Said("get roles", "No resources found"),
    Said(f"delete -f {KINDS}/role.yaml", "not found", refused=True),
    Said("delete ippool ssa main --now", "deleted"),
    Said("get ippools -o name", "rack1-fixed", lacks="main"),
]  # fmt: skip


OWN, DEBIAN = "path", "debian"  # the newest that people use, and the oldest
KIND_NAMES = {
    "node": "host9", "ippool": "rack1-fixed", "ipblock": "10-84-0-200-32",
    "addresslease": "db", "workload": "web",
    "ipreservation": "rack1-gateways", "bgpconfiguration": "default",
    "bgppeer": "rack1-tor1", "role": "web",
}  # fmt: skip
OTHER = EXTRA.replace("extra", "other").replace("10.90", "10.91")
EACH = [
    Said(f"apply -f {EXAMPLES}", "ippool.routed.dev/main created"),
    *(Said(f"create -f {KINDS}/{kind}.yaml", "created") for kind in KIND_NAMES),
    *(Said(f"describe {kind} {name}", "Normal  C") for kind, name in KIND_NAMES.items()),
    Said("get events", "node/host9"),
    Said("get events -n default --field-selector involvedObject.kind=Node", "host9", lacks="pool"),
    Said("get events -o wide", "host9.node-created"),
    Said("events --for ipblock/10-84-0-200-32", "node host9 claimed", since=27),
    Said("explain event.involvedObject.name", "Its name"),
    Said("create -f -", "colour", refused=True, stdin=EXTRA),
    Said("create --validate=warn -f -", 'unknown field "spec.colour"', since=25, stdin=EXTRA),
    Said("create --validate=false -f -", "other created", stdin=OTHER),
    Said("get ippools -l a!=b --field-selector metadata.name=other -o yaml", "10.91", lacks="red"),
    Said("apply --server-side -f -", "serverside-applied", stdin=APPLIED % "true"),
    Said("wait --for=delete ippool/ssa --timeout=1s", "timed out", refused=True),
    Said("auth can-i --list", "events"),
    Said("delete ippools ssa other", "deleted"),
]  # fmt: skip


def found(name: str) -> Path:
    program = kubectl(name)
    if isinstance(program, str):
        pytest.skip(program)
    return program


@pytest.fixture
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("kubectl")) as running:
        yield running


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


def environment(service: Service, directory: Path) -> dict[str, str]:
    editor = directory / "edit.sh"
    editor.write_text("#!/bin/sh\nsed -i 's/cooldownSeconds: 30/cooldownSeconds: 31/' \"$1\"\n")
    editor.chmod(0o755)
    return {
        "PATH": os.environ["PATH"], "HOME": str(directory), "KUBECONFIG": str(service.admin),
        "EDITOR": str(editor), "TERM": "dumb",
    }  # fmt: skip


def wrong(said: Said, program: Path, surroundings: dict[str, str]) -> str:
    """What is wrong with the answer; nothing: it is as expected."""
    assert said.expect or said.refused or said.silent, f"nothing is asked of {said.words}"
    done = subprocess.run(
        [program, *split(said.words)], input=said.stdin, capture_output=True, text=True,
        env=surroundings, timeout=60, check=False,
    )  # fmt: skip
    answer = done.stdout + done.stderr
    streaming = "request-timeout" in said.words  # such a watch ends in an error of its own
    right = streaming or (done.returncode != 0) == said.refused
    right = right and said.expect in answer and (not said.lacks or said.lacks not in answer)
    right = right and not (said.silent and answer.strip())
    return "" if right else f"{said.words}: {done.returncode}\n{answer[:600]}"


@pytest.mark.timeout(400)  # nearly two hundred commands
@pytest.mark.parametrize("name", [OWN, DEBIAN])
def test_the_story(name: str, service: Service, tmp_path: Path) -> None:
    program = found(name)
    version, surroundings = minor(program), environment(service, tmp_path)
    told = [said for said in STORY if said.since <= version]
    assert len(told) >= 150
    told_wrong = [said for one in told if (said := wrong(one, program, surroundings))]
    assert not told_wrong, "\n".join(told_wrong)


@pytest.mark.parametrize("name", names())
def test_what_has_changed_with_versions_is_tried_with_each(
    name: str, service: Service, tmp_path: Path
) -> None:
    program = found(name)
    version, surroundings = minor(program), environment(service, tmp_path)
    told = [said for said in EACH if said.since <= version]
    told_wrong = [said for one in told if (said := wrong(one, program, surroundings))]
    assert not told_wrong, "\n".join(told_wrong)


@pytest.mark.parametrize("name", [OWN, DEBIAN])
def test_a_watch_goes_on_with_what_others_do(name: str, service: Service, tmp_path: Path) -> None:
    words = ["get", "ippools", "-w", "--output-watch-events", "--no-headers", "-l", "shown"]
    watching = subprocess.Popen(
        [found(name), *words], stdout=subprocess.PIPE, text=True,
        env=environment(service, tmp_path),
    )  # fmt: skip
    assert watching.stdout is not None
    pool = {"metadata": {"name": "seen", "labels": {"shown": "yes"}},
            "spec": {"cidr": "10.90.0.0/24"}}  # fmt: skip
    merge = {"content-type": "application/merge-patch+json"}
    try:
        with service.http() as client:
            assert client.post("/ippools", json=pool).status_code == 201
            lines = [watching.stdout.readline()]  # it watches by now
            for change in ('{"spec":{"disabled":true}}', '{"metadata":{"labels":{"shown":null}}}'):
                answer = client.patch("/ippools/seen", content=change, headers=merge)
                assert answer.status_code == 200, answer.text
                lines.append(watching.stdout.readline())
    finally:
        watching.terminate()
        watching.wait(10)
        watching.stdout.close()
    told = [line.split()[:2] for line in lines]
    assert told == [["ADDED", "seen"], ["MODIFIED", "seen"], ["DELETED", "seen"]]
    assert "true" in lines[1]


def test_there_is_a_kubectl() -> None:
    """Where one can be had, the story is told."""
    assert (
        any(isinstance(kubectl(name), Path) for name in names()) or shutil.which("apt-get") is None
    )
