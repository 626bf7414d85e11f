"""How `-o` wants objects printed, read once into a value that can be carried out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.resources.errors import Cause, ConfigError
from routed.ctl import files, jsonpath

Document = dict[str, Any]
PLAIN = ("", "wide", "yaml", "json", "name")
FORMS = (*PLAIN[1:], "jsonpath=TEMPLATE", "jsonpath-as-json=PATH", "custom-columns=NAME:PATH,...")


@dataclass(frozen=True, slots=True)
class Output:
    """`form` is one of PLAIN, or how `template` is to be read."""

    form: str = ""
    template: str = ""
    columns: tuple[tuple[str, jsonpath.Path], ...] = ()

    @property
    def tabular(self) -> bool:
        return self.form in ("", "wide", "custom-columns")

    @property
    def whole(self) -> bool:
        """Whether several objects are printed as one list."""
        return self.form in ("yaml", "json", "jsonpath", "jsonpath-as-json")

    @classmethod
    def of(cls, text: str) -> Output:
        """ConfigError."""
        form, _, template = text.partition("=")
        if text in PLAIN:
            return cls(text)
        if form.endswith("-file") and template:
            form, template = form.removesuffix("-file"), files.text(Path(template))
            if form == "custom-columns":
                template = _of_lines(template)
        if form in ("jsonpath", "jsonpath-as-json") and template:
            jsonpath.rendered(template, {})
            return cls(form, template)
        if form == "custom-columns" and template:
            return cls(form, template, _columns(template))
        problem = f"{text!r} is none of {', '.join(FORMS)}"
        raise ConfigError("-o", [Cause("", problem)])


def _columns(spec: str) -> tuple[tuple[str, jsonpath.Path], ...]:
    made = []
    for part in spec.split(","):
        name, colon, where = part.partition(":")
        if not name or not colon or not where:
            problem = f"{part!r} is not NAME:PATH, such as CIDR:.spec.cidr"
            raise ConfigError("-o custom-columns", [Cause("", problem)])
        made.append((name, jsonpath.path(where)))
    return tuple(made)


def _of_lines(text: str) -> str:
    """A file has the names in one line, the paths in the next."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    names, paths = (*lines, [], [])[:2]
    return ",".join(f"{name}:{where}" for name, where in zip(names, paths, strict=False))


def cells(columns: Sequence[tuple[str, jsonpath.Path]], document: Document) -> list[str]:
    """A row of custom columns."""
    row = []
    for _, where in columns:
        values = [jsonpath.said(value) for value in jsonpath.found(where, document)]
        row.append(",".join(values) or "<none>")
    return row
