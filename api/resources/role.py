"""Role: what the users that have it may do, beside the roles that are built in.

A user has one role; `routectl token create --user NAME --role ROLE` gives it. What no rule allows
is refused. Roles and credentials are an administrator's alone, whatever a rule says.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator

from api.resources.meta import Model, ObjectMeta, Resource, Status
from api.resources.registry import KINDS, by_kind, resource
from api.resources.selectors import SelectorText

BUILT_IN = ("admin", "operator", "viewer", "node", "bootstrap")
Verb = Literal["get", "list", "watch", "create", "update", "patch", "delete", "*"]


def known_kind(value: str) -> str:
    if value != "*" and by_kind(value) is None:
        known = ", ".join(kind.kind for kind in KINDS.values())
        raise ValueError(f"{value!r} is no kind: '*', or one of {known}")
    return value


class RoleRule(Model):
    """`verbs` may be done with the objects of `kinds` whose labels `label_selector` selects, in
    the language of all our selectors. ``*`` stands for all."""

    kinds: list[Annotated[str, AfterValidator(known_kind)]] = Field(min_length=1)
    """Such as IPPool, or * for all."""
    verbs: list[Verb] = Field(min_length=1)
    """get, list, watch, create, update, patch, delete, or * for all."""
    label_selector: SelectorText = "all()"
    """Only objects with these labels, before a change and after it."""


class RoleSpec(Model):
    rules: list[RoleRule] = Field(min_length=1, max_length=100)
    """What is allowed: whatever one of them allows."""


@resource("roles")
class Role(Resource):
    """What the users that have it may do, beside the roles that are built in."""

    KIND: ClassVar[str] = "Role"

    kind: str = Field(default="Role", pattern="^Role$")
    spec: RoleSpec
    """What it allows."""
    status: Status = Field(default_factory=Status)
    """Nothing yet."""

    @field_validator("metadata")
    @classmethod
    def _of_its_own(cls, value: ObjectMeta) -> ObjectMeta:
        if value.name in BUILT_IN:
            raise ValueError(f"a role called {value.name} is built in; take another name")
        return value
