"""How a write is to be done: the query parameters of the Kubernetes API that every write knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from api.resources.errors import BadRequest

STATEMENT_MOST = 1024
VALIDATION = ("Strict", "Warn", "Ignore")


@dataclass(frozen=True, slots=True)
class Options:
    """`dry`: say what would be, change nothing. `manager`: whose the fields are ("": nobody keeps
    account). `force`: take fields over from others. `unknown`: where fields that are not known are
    noted; None: they are refused. `statement`: of an operator who deletes a block, that its node is
    off for good."""

    dry: bool = False
    manager: str = ""
    force: bool = False
    unknown: list[str] | None = None
    warned: bool = False
    statement: str = ""

    @property
    def warnings(self) -> list[str]:
        """What the client is to be told."""
        return list(dict.fromkeys(self.unknown or [])) if self.warned else []


PLAIN = Options()
OUR_OWN = b"fieldValidation=Strict"  # the query of api.client's writes: it is PLAIN


def of(query: Mapping[str, str]) -> Options:
    """BadRequest names the parameter. Who says nothing of unknown fields is warned of them, as by
    Kubernetes."""
    dry = query.get("dryRun", "")
    if dry not in ("", "All"):
        raise BadRequest(f"cannot read dryRun {dry[:40]!r}: it can only be All")
    validation = query.get("fieldValidation") or "Warn"
    if validation not in VALIDATION:
        raise BadRequest(
            f"cannot read fieldValidation {validation[:40]!r}: one of {', '.join(VALIDATION)}"
        )
    manager = query.get("fieldManager", "")
    if len(manager) > 128 or not manager.isprintable():
        raise BadRequest("cannot read fieldManager: at most 128 printable characters")
    return Options(
        dry=bool(dry),
        manager=manager,
        force=query.get("force") in ("1", "true"),
        unknown=None if validation == "Strict" else [],
        warned=validation == "Warn",
    )


def deleting(query: Mapping[str, str], body: Mapping[str, Any]) -> Options:
    """Of a deletion: the body's dryRun counts as the query's; `statement` is there alone."""
    dry, statement = body.get("dryRun"), body.get("statement") or ""
    if dry:
        said = ",".join(map(str, dry)) if isinstance(dry, list) else str(dry)
        query = {**query, "dryRun": said}
    if not isinstance(statement, str) or len(statement) > STATEMENT_MOST:
        raise BadRequest(f"cannot read statement: at most {STATEMENT_MOST} characters of text")
    return replace(of(query), statement=statement.strip())
