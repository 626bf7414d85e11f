"""Files of objects: YAML or JSON, several documents, directories, standard input.

Everything is read and checked before anything is sent: all mistakes of all files are reported at
once (ConfigError, exit code 2), each with its file, document, object and field.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from api.resources.decode import decode
from api.resources.errors import Cause, ConfigError, IntentError
from api.resources.registry import KINDS, Kind, by_kind

Document = dict[str, Any]
SUFFIXES = (".yaml", ".yml", ".json")


# what becomes of unknown fields, by what kubectl calls it and we do
VALIDATION = {"strict": "Strict", "true": "Strict", "warn": "Warn", "ignore": "Ignore",
              "false": "Ignore"}  # fmt: skip


def validation(text: str) -> str:
    """The service's word for `--validate`; ConfigError if there is none."""
    if text not in VALIDATION:
        known = ", ".join(VALIDATION)
        raise ConfigError("--validate", [Cause("", f"{text!r} is none of {known}")])
    return VALIDATION[text]


def read(
    files: Sequence[Path],
    unknown: list[str] | None = None,
    *,
    recursive: bool = False,
    aside: Mapping[str, list[tuple[str, Document]]] = MappingProxyType({}),
) -> list[tuple[Kind, Document]]:
    """Every object of `files`, checked; `recursive` looks into directories of directories. Fields
    that are not known are mistakes, or go to `unknown`. Documents of a kind in `aside`, which is
    none of the service's, go there, with where they are from."""
    if not files:
        raise ConfigError("the command line", [Cause("-f", "say which file (or - for stdin)")])
    problems: list[Cause] = []
    found: list[tuple[Kind, Document]] = []
    for source, text in _texts(files, recursive, problems):
        for place, document in enumerate(_documents(source, text, problems), 1):
            where = f"{source}: document {place}"
            if isinstance(document, dict) and document.get("kind") in aside:
                aside[document["kind"]].append((where, document))
                continue
            kind = _kind(where, document, problems)
            if kind is None:
                continue
            strange: list[str] | None = None if unknown is None else []
            try:
                decode(kind, document, strange)
                found.append((kind, document))
            except IntentError as error:
                name = (document.get("metadata") or {}).get("name", "")
                causes = error.causes or (Cause("", str(error)),)
                problems.extend(
                    Cause(
                        f"{where}: {kind.kind} {name!r}: {cause.field}".rstrip(": "), cause.message
                    )
                    for cause in causes
                )
            if unknown is not None and strange:
                unknown += [f"{where}: {text}" for text in strange]
    if not found and not problems and not any(aside.values()):
        problems.append(Cause("", "no objects in it"))
    if problems:
        raise ConfigError(", ".join(map(str, files)), problems)
    return found


def _texts(
    files: Sequence[Path], recursive: bool, problems: list[Cause]
) -> Iterator[tuple[str, str]]:
    for path in files:
        if str(path) == "-":
            yield "stdin", sys.stdin.read()
            continue
        for one in _inside(path, recursive) if path.is_dir() else [path]:
            try:
                yield str(one), one.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                problems.append(Cause(str(one), f"cannot be read: {error}"))


def _inside(directory: Path, recursive: bool) -> list[Path]:
    found = directory.rglob("*") if recursive else directory.iterdir()
    return sorted(path for path in found if path.suffix in SUFFIXES and path.is_file())


def _documents(source: str, text: str, problems: list[Cause]) -> list[Any]:
    try:
        documents = [d for d in yaml.safe_load_all(text) if d is not None]
    except yaml.YAMLError as error:
        problems.append(Cause(source, f"is not YAML: {' '.join(str(error).split())}"))
        return []
    found: list[Any] = []
    for document in documents:
        if isinstance(document, dict) and str(document.get("kind", "")).endswith("List"):
            found.extend(document.get("items") or [])
        else:
            found.append(document)
    return found


def _kind(where: str, document: Any, problems: list[Cause]) -> Kind | None:
    if not isinstance(document, dict) or not isinstance(document.get("metadata", {}), dict):
        problems.append(Cause(where, "is not an object"))
        return None
    kind = by_kind(str(document.get("kind", "")))
    if kind is None:
        known = ", ".join(one.kind for one in KINDS.values())
        problems.append(Cause(where, f"has kind {document.get('kind')!r}; known are: {known}"))
    return kind
