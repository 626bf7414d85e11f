"""What a check says, and what all of them together mean. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """`Fail`: attaching will not work. `Warn`: it will, something else may not."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` names it, `found` says what is, `remedy` what to do (empty where nothing is)."""

    check: str
    verdict: Verdict
    found: str
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    return Finding(check, Verdict.OK, found)


def warn(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, Verdict.WARN, found, remedy)


def fail(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, Verdict.FAIL, found, remedy)


def skipped(check: str, why: str) -> Finding:
    return Finding(check, Verdict.SKIPPED, why)


def exit_code(findings: Iterable[Finding]) -> int:
    """0: attaching will work; 1: it will not."""
    return int(any(one.verdict is Verdict.FAIL for one in findings))


def documents(findings: Iterable[Finding]) -> list[dict[str, str]]:
    """JSON-ready, in the order of the checks."""
    return [{key: str(value) for key, value in asdict(one).items()} for one in findings]
