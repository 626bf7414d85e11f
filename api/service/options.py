"""How a request is to be carried out: the query parameters of the Kubernetes API, and the body of
a deletion. Values that are not of a parameter's type are refused (400), whether it has a meaning in
this request or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from api.resources.errors import BadRequest

PRECONDITIONS = ("uid", "resourceVersion")
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
BOOLEANS = ("watch", "allowWatchBookmarks", "sendInitialEvents")
NUMBERS = ("limit", "timeoutSeconds", "resourceVersion")
TRUE, FALSE = ("1", "true"), ("0", "false", "")


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
        force=boolean(query, "force"),
        unknown=None if validation == "Strict" else [],
        warned=validation == "Warn",
    )


def boolean(query: Mapping[str, str], name: str) -> bool:
    """BadRequest if it is neither true nor false."""
    said = query.get(name, "")
    if said not in (*TRUE, *FALSE):
        raise BadRequest(f"cannot read {name} {said[:40]!r}: it must be true or false")
    return said in TRUE


def number(query: Mapping[str, str], name: str) -> int:
    """0 where it is not said; BadRequest if it is none, or negative."""
    said = query.get(name) or "0"
    if not (said.isascii() and said.isdigit()) or len(said) > 18:
        raise BadRequest(f"cannot read {name} {said[:40]!r}: it must be a number")
    return int(said)


def read(query: Mapping[str, str]) -> None:
    """BadRequest if one of those that lists and watches know is not of its type."""
    for name in BOOLEANS:
        boolean(query, name)
    for name in NUMBERS:
        number(query, name)


def deletion(body: Mapping[str, Any]) -> dict[str, Any]:
    """The preconditions of DeleteOptions; BadRequest names what is not of its type."""
    said = body.get("preconditions")
    preconditions = {} if said is None else said
    if not isinstance(preconditions, dict):
        raise BadRequest("cannot read the request: preconditions must be an object")
    texts = [(name, body.get(name)) for name in ("apiVersion", "kind", "propagationPolicy")]
    texts += [(f"preconditions.{name}", preconditions.get(name)) for name in PRECONDITIONS]
    for name, value in texts:
        if not isinstance(value, str | None):
            raise BadRequest(f"cannot read the request: {name} must be a text")
    seconds = body.get("gracePeriodSeconds")
    if not isinstance(seconds, int | None) or isinstance(seconds, bool) or abs(seconds or 0) >> 63:
        raise BadRequest("cannot read the request: gracePeriodSeconds must be a whole number")
    dry = body.get("dryRun")
    if not (
        dry is None
        or isinstance(dry, str)
        or (isinstance(dry, list) and all(isinstance(one, str) for one in dry))
    ):
        raise BadRequest("cannot read the request: dryRun must be a list of texts")
    return preconditions


def deleting(query: Mapping[str, str], body: Mapping[str, Any]) -> Options:
    """Of a deletion: the body's dryRun counts as the query's; `statement` is there alone."""
    dry, statement = body.get("dryRun"), body.get("statement") or ""
    if dry:
        said = ",".join(map(str, dry)) if isinstance(dry, list) else str(dry)
        query = {**query, "dryRun": said}
    if not isinstance(statement, str) or len(statement) > STATEMENT_MOST:
        raise BadRequest(f"cannot read statement: at most {STATEMENT_MOST} characters of text")
    return replace(of(query), statement=statement.strip())
