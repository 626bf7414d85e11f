"""The house's rules that no linter knows (DESIGN, section 3)."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("api", "bgp", "policies", "routed")
TOP = {"routed", "bgp", "api", "policies", "tests", "pyproject.toml", "Dockerfile"}
ALSO = {"docs", "examples", "deploy", "benchmarks", "scripts", "Makefile", "README.md"}
ALSO |= {"CHANGELOG.md", "LICENSE", ".ci", ".gitignore", "requirements.lock"}
ALSO |= {".dockerignore"}

PURE = (
    "api/resources/*.py",
    "api/ipam/*.py",
    "api/auth/rights.py",
    "api/service/selection.py",
    "api/service/codec.py",
    "api/service/collection.py",
    "api/service/state.py",
    "api/service/admission.py",
    "api/service/rate.py",
    "api/service/releasing.py",
    "api/store/sqlite/statements.py",
    "bgp/seam.py",
    "bgp/wire.py",
    "bgp/config.py",
    "bgp/commands.py",
    "bgp/events.py",
    "bgp/rib.py",
    "policies/base.py",
    "policies/compile/*.py",
    "policies/marks.py",
    "policies/model.py",
    "policies/plan.py",
    "policies/docker.py",
    "policies/firewall.py",
    "policies/nat.py",
    "routed/ctl/argv.py",
    "routed/ctl/hints.py",
    "routed/ctl/jsonpath.py",
    "routed/doctor/findings.py",
    "routed/kernel/fib.py",
    "routed/steps.py",
    "routed/state.py",
    "routed/agent/plan.py",
    "routed/agent/reporting.py",
    "routed/agent/attachment.py",
    "routed/agent/request.py",
    "routed/kernel/messages.py",
    "routed/kernel/template.py",
    "routed/kernel/nexthops.py",
    "routed/kernel/batches.py",
    "routed/kernel/lines.py",
    "routed/agent/imports.py",
    "routed/agent/translation.py",
    "routed/agent/ports.py",
    "routed/agent/interfaces.py",
    "routed/kernel/beside.py",
)
IMPURE_MODULES = {"asyncio", "socket", "subprocess", "time", "logging", "threading"}
ONE_PLACE = {
    "pyroute2": "routed/kernel/",
    "exabgp": "bgp/",
    "sqlite3": "api/store/sqlite/",
    "aetcd": "api/store/",
}


def tracked() -> list[str]:
    done = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return done.stdout.splitlines()


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_the_top_level() -> None:
    present = {name.partition("/")[0] for name in tracked()}
    assert present >= TOP
    assert present <= TOP | ALSO


@pytest.mark.parametrize("pattern", PURE)
def test_pure_modules_do_no_io(pattern: str) -> None:
    paths = list(ROOT.glob(pattern))
    assert paths, f"{pattern} names nothing"
    for path in paths:
        assert not IMPURE_MODULES & set(imported(path)), path


@pytest.mark.parametrize(("library", "place"), ONE_PLACE.items())
def test_one_foreign_library_one_place(library: str, place: str) -> None:
    for path in sources():
        name = str(path.relative_to(ROOT))
        if not name.startswith(place):
            assert library not in set(imported(path)), name


def test_nftables_and_the_environment_have_one_place() -> None:
    for path in sources():
        name = str(path.relative_to(ROOT))
        text = path.read_text(encoding="utf-8")
        if name != "policies/nft.py":
            assert "libnftables" not in text, name
        if name not in ("routed/ctl/environment.py", "bgp/exabgp.py"):  # KUBECONFIG; a child's own
            assert "os.environ" not in text, name


def test_test_modules_have_names_of_their_own() -> None:
    """pytest imports them by these alone: of two of one name it collects one."""
    names = [Path(name).name for name in tracked() if re.search(r"/test_\w+\.py$", name)]
    assert sorted(names) == sorted(set(names))


def test_files_are_rooms_not_halls() -> None:
    for path in sources():
        lines = path.read_text(encoding="utf-8").count("\n")
        assert lines <= 420, f"{path.relative_to(ROOT)} has {lines} lines"


def test_every_module_says_what_it_is_for() -> None:
    for path in sources():
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_no_registry_and_no_path_of_a_machine_is_named() -> None:
    words = ("py" + "pi.", "python" + "hosted", "/ro" + "ot/", "/ho" + "me/", "deb." + "debian")
    for name in tracked():
        if name == "LICENSE":
            continue
        text = (ROOT / name).read_text(encoding="utf-8")
        for word in words:
            assert word not in text, f"{name} has {word}"
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    for word in ("://", "index-url", "find-links", "trusted-host"):
        assert word not in lock, f"requirements.lock has {word}"


def test_help_imports_little() -> None:
    code = (
        "import sys; sys.argv = ['routectl', '--help']\n"
        "from routed.ctl.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('LOADED', *sorted({'pydantic', 'httpx', 'yaml', 'fastapi'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.splitlines()[-1] == "LOADED"


def test_the_readmes_commands_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)$", readme, flags=re.M):
        assert f"\n{target}:" in makefile
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    coded = re.findall(r"`[^`]+`|^    .+$", guide, flags=re.M)
    said = "\n".join([readme, *coded])
    for words in sorted(set(re.findall(r"\b(routed|routectl) ([a-z]+)(?: ([a-z]+))?", said))):
        program = "routed.main" if words[0] == "routed" else "routed.ctl.main"
        group = words[1] in ("lab", "bgp", "ipam", "token", "store", "auth")
        command = [words[1], *([words[2]] if group and words[2] else []), "--help"]
        done = subprocess.run(
            [sys.executable, "-m", program, *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"


def test_every_page_is_in_the_index_and_every_link_leads_somewhere() -> None:
    docs = ROOT / "docs"
    index = (docs / "README.md").read_text(encoding="utf-8")
    for page in docs.glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index, page
    for page in [ROOT / "README.md", *docs.rglob("*.md")]:
        text = re.sub(
            r"^(```.*?^```|    .*?$)", "", page.read_text(encoding="utf-8"), flags=re.M | re.S
        )
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} has {target}"
