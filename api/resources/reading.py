"""Objects of another release, read with what this one knows.

Whoever asks for something is taken at his word (`api.resources.decode` refuses what it does not
know). What was said already, by a control plane, a store or a file that a newer release has
written to, is read as far as it is understood:

- a field that is not known is left out; who writes the object back must not take it away;
- a value of `status` that is not known is left out with its field: it is only a report;
- a value of anything else that is not known decides something that cannot be carried out here: the
  object is `Unreadable`, and the reader goes on with what it knew last.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError

from api.resources.decode import cause_of, without
from api.resources.errors import Cause, RoutedError
from api.resources.meta import Resource

R = TypeVar("R", bound=Resource)


class Unreadable(RoutedError):
    """An object that this release cannot read; `causes` name what it does not understand."""

    def __init__(self, message: str, causes: list[Cause]) -> None:
        super().__init__(message)
        self.causes = causes


def read(model: type[R], document: Any) -> R:
    """The object in `document`; Unreadable."""
    try:
        return model.model_validate(document, extra="ignore")
    except ValidationError as error:
        problems = error.errors()
        places = {problem["loc"][:2] for problem in problems}
        if all(len(place) == 2 and place[0] == "status" for place in places):
            return read(model, without(document, list(places)))
        causes = [cause_of(problem) for problem in problems]
        listed = "; ".join(map(str, causes))
        raise Unreadable(f"cannot read a {model.KIND}: {listed}", causes) from error


def keeping(before: Any, known: Any, after: Any) -> Any:
    """`after`, the changed `known`, with what only `before` has: all three are of one object, and
    `known` is as much of `before` as this release has read.

    A list is one value: one that was changed is as it was changed.
    """
    if known == after:
        return before
    if not (isinstance(before, dict) and isinstance(known, dict) and isinstance(after, dict)):
        return after
    made = {
        name: keeping(before[name], known[name], value)
        if name in before and name in known
        else value
        for name, value in after.items()
    }
    only = {name: value for name, value in before.items() if name not in known}
    return {**only, **made}
