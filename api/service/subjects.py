"""The body of a request for selections: what is asked for, and what of it the reader has.

    {"selectors": [{"selector": "app == 'web'", "version": "..."}],
     "ports": [{"name": "http", "selector": "", "version": "..."}]}

Everything that is wrong is told at once, with its place; of a selector with the column. What a
later release may add is passed over.
"""

from __future__ import annotations

from typing import Any

from api.resources.errors import Cause, Invalid
from api.resources.selectors import SUBJECTS_MOST, SelectorError, parse
from api.service.members import Subject

PORT_NAME_MOST = 63
VERSION_MOST = 64


def subjects_of(body: Any) -> dict[Subject, str]:
    """The version that the reader has of each ("": none); Invalid."""
    causes: list[Cause] = []
    found: dict[Subject, str] = {}
    for name in ("selectors", "ports"):
        listed = body.get(name, [])
        if not isinstance(listed, list):
            causes.append(Cause(name, "must be a list"))
            continue
        for place, one in enumerate(listed[: SUBJECTS_MOST + 1]):
            _add(found, one, f"{name}[{place}]", causes, named=name == "ports")
    if len(found) > SUBJECTS_MOST:
        causes = [Cause("", f"more than {SUBJECTS_MOST} selectors and ports in all")]
    if causes:
        said = "; ".join(map(str, causes[:3])) + (" …" if len(causes) > 3 else "")
        raise Invalid(f"cannot follow selections: {said}", causes=causes[:100])
    return found


def _add(
    found: dict[Subject, str], one: Any, path: str, causes: list[Cause], *, named: bool
) -> None:
    if not isinstance(one, dict):
        causes.append(Cause(path, "must be an object"))
        return
    selector, version = one.get("selector", "" if named else None), one.get("version", "")
    port = one.get("name") if named else ""
    if not isinstance(selector, str):
        causes.append(Cause(f"{path}.selector", "must be a selector, as text"))
        return
    try:
        parse(selector)
    except SelectorError as error:
        causes.append(Cause(f"{path}.selector", str(error)))
    if not isinstance(version, str) or len(version) > VERSION_MOST:
        causes.append(Cause(f"{path}.version", "must be a version that a line said before"))
    elif not isinstance(port, str) or len(port) > PORT_NAME_MOST or (named and not port):
        causes.append(Cause(f"{path}.name", "must be the name of a port"))
    else:
        found[Subject(selector, port)] = version
