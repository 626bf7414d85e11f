"""What every resource shares: metadata, conditions, and the base of all models.

The shapes are those of the Kubernetes API conventions (types `ObjectMeta`, `Condition`);
field names are camelCase on the wire and snake_case in Python. Values are frozen: a changed
object is a new one (`model_copy(update=...)`).
"""

from __future__ import annotations

import re
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic.alias_generators import to_camel

API_GROUP = "routed.dev"
API_VERSION = "routed.dev/v1"
ANNOTATIONS_BYTES = 256 * 1024

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")
_INTERFACE_BAD = re.compile(r"[/:\s\x00-\x1f]|[^\x00-\x7f]")


def dns_label(value: str) -> str:
    """RFC 1123 label: what a workload, a node's first label, or a pool is called."""
    if not _LABEL.match(value):
        raise ValueError(
            f"{value!r} is not a DNS label: at most 63 of a-z, 0-9 and '-', "
            "beginning and ending with a letter or digit"
        )
    return value


def dns_subdomain(value: str) -> str:
    """RFC 1123 subdomain: labels joined by dots, 253 characters at most."""
    if not value or len(value) > 253:
        raise ValueError(f"{value[:60]!r} has {len(value)} characters; a name has 1 to 253")
    for label in value.split("."):
        dns_label(label)
    return value


def interface_name(value: str) -> str:
    """A Linux interface name (`dev_valid_name` in net/core/dev.c; IFNAMSIZ is 16 with the NUL)."""
    if not 1 <= len(value) <= 15:
        raise ValueError(
            f"{value!r} has {len(value)} characters; an interface name has 1 to 15 (IFNAMSIZ)"
        )
    if value in (".", "..") or _INTERFACE_BAD.search(value):
        raise ValueError(f"{value!r} is no interface name: no '/', ':', blanks or non-ASCII")
    return value


def _wrong_word(text: str) -> str:
    """Why a text is not the name of a label; empty if it is."""
    if not 1 <= len(text) <= 63:
        return f"has {len(text)} characters; 1 to 63 are possible"
    if not _NAME.match(text):
        return "may have letters, digits, '-', '_' and '.', with a letter or digit at both ends"
    return ""


def label_key(value: str) -> str:
    """A label's or an annotation's key: a name, after an optional DNS subdomain and '/'
    (Kubernetes: Labels and Selectors, Syntax)."""
    prefix, slash, name = value.rpartition("/")
    if slash:
        try:
            dns_subdomain(prefix)
        except ValueError as error:
            raise ValueError(f"{value[:80]!r} is no key: before its '/', {error}") from error
    wrong = _wrong_word(name)
    if wrong:
        raise ValueError(f"{value[:80]!r} is no key: its name {wrong}")
    return value


def label_value(value: str) -> str:
    """A label's value: empty, or written like a label's name (Kubernetes: Labels and Selectors)."""
    wrong = _wrong_word(value) if value else ""
    if wrong:
        raise ValueError(f"{value[:80]!r} is no label value: it {wrong}")
    return value


def label_set(labels: dict[str, str]) -> dict[str, str]:
    """Labels of which every key and value is one; ValueError names each that is not."""
    wrong = []
    for key, value in labels.items():
        try:
            label_key(key)
            label_value(value)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("; ".join(wrong))
    return labels


def annotation_set(annotations: dict[str, str]) -> dict[str, str]:
    """Keys are written like labels', values are free; all together have a bound (Kubernetes:
    `TotalAnnotationSizeLimitB`)."""
    for key in annotations:
        label_key(key)
    size = sum(len(key) + len(value.encode()) for key, value in annotations.items())
    if size > ANNOTATIONS_BYTES:
        raise ValueError(f"have {size} bytes; {ANNOTATIONS_BYTES} are possible together")
    return annotations


DNSLabel = Annotated[str, AfterValidator(dns_label)]
DNSSubdomain = Annotated[str, AfterValidator(dns_subdomain)]
InterfaceName = Annotated[str, AfterValidator(interface_name)]
Labels = Annotated[dict[str, str], AfterValidator(label_set)]
Annotations = Annotated[dict[str, str], AfterValidator(annotation_set)]


_PLAIN: dict[type, tuple[tuple[type, ...], str]] = {
    int: ((int,), "must be a whole number"),
    float: ((int, float), "must be a number"),
    bool: ((bool,), "must be true or false"),
}


class Model(BaseModel):
    """Base of every wire model: camelCase, frozen, unknown fields and wrong types refused: a text
    is no number, and a number is neither true nor false."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        use_attribute_docstrings=True,
        frozen=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _typed(cls, value: Any, info: ValidationInfo) -> Any:
        plain = _plain(cls, info.field_name or "")
        if plain is not None and value is not None:
            types, said = plain
            if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
                raise ValueError(f"{said}, not {value!r}")
        return value

    def wire(self) -> dict[str, Any]:
        """The JSON-ready form, without fields that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


@cache
def _plain(model: type[Model], field: str) -> tuple[tuple[type, ...], str] | None:
    """What `field` takes, if that is a number or a boolean (or nothing)."""
    annotation: Any = model.model_fields[field].annotation
    if get_origin(annotation) is UnionType:
        others = [part for part in get_args(annotation) if part is not NoneType]
        annotation = others[0] if len(others) == 1 else None
    return _PLAIN.get(annotation)


class ObjectMeta(Model):
    name: DNSSubdomain
    """Unique among the objects of its kind; a DNS name. Immutable."""
    labels: Labels = Field(default_factory=dict)
    """What selectors look at. A key is a name with an optional DNS prefix, such as `rack` or
    `example.com/rack`; a value has at most 63 letters, digits, '-', '_' and '.'."""
    annotations: Annotations = Field(default_factory=dict)
    """Notes of people and programs; nothing selects by them."""
    uid: str = ""
    """Tells this object from an earlier one of the same name. The service makes it."""
    resource_version: str = ""
    """The revision of the last change; an update has to name it."""
    generation: int = 0
    """Grows with every change of the spec."""
    creation_timestamp: str | None = None
    """When it was created (RFC 3339, UTC)."""
    deletion_timestamp: str | None = None
    """Since when it is wanted back from who still uses it (RFC 3339, UTC)."""
    managed_fields: list[dict[str, Any]] = Field(default_factory=list)
    """Who set which field, for server-side apply. The service keeps it."""


class Condition(Model):
    """Kubernetes `metav1.Condition`; `last_transition_time` is RFC 3339 in UTC."""

    type: str
    """What it is about, such as Ready."""
    status: str = Field(pattern="^(True|False|Unknown)$")
    """True, False or Unknown."""
    reason: str = ""
    """Why, in one word for programs."""
    message: str = ""
    """Why, for people."""
    last_transition_time: str | None = None
    """When `status` last changed (RFC 3339, UTC)."""
    observed_generation: int | None = None
    """The generation that it was said of."""


class Status(Model):
    conditions: list[Condition] = Field(default_factory=list)
    """What those who carry the object out say of it."""


class Resource(Model):
    """An object of the API: subclasses narrow `kind`, `spec` and `status`."""

    KIND: ClassVar[str]

    api_version: str = API_VERSION
    """routed.dev/v1."""
    kind: str
    metadata: ObjectMeta
    """Name, labels, and what the service keeps of every object."""
