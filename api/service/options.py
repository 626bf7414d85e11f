"""How a write is to be done: the query parameters of the Kubernetes API that every write knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from api.resources.errors import BadRequest

VALIDATION = ("Strict", "Warn", "Ignore")


@dataclass(frozen=True, slots=True)
class Options:
    """`dry`: say what would be, change nothing. `manager`: whose the fields are ("": nobody keeps
    account). `force`: take fields over from others. `unknown`: where fields that are not known are
    noted; None: they are refused."""

    dry: bool = False
    manager: str = ""
    force: bool = False
    unknown: list[str] | None = None
    warned: bool = False

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
