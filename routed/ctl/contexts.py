"""The kubeconfig files that kubectl would read, merged as it merges them, and written as it writes.

Of each named cluster, user and context the first file that has it counts, and the first
`current-context` that is not empty. A change is made in the file that has the entry, a new entry in
the first file that exists; everything else in it stays. Who writes holds FILE.lock meanwhile, which
kubectl respects as well, reads the file anew, and replaces it at once, mode 0600.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from api.auth.ca import write_secret
from api.auth.kubeconfig import ENTRIES, load
from api.resources.errors import Cause, ConfigError

Document = dict[str, Any]
SYSTEM = Path("/etc/routed/admin.kubeconfig")  # of a host without ~/.kube/config


class NoContext(ConfigError):
    """There is no kubeconfig, or nothing in it that says where the service is."""


def places(
    named: Path | None, environment: Sequence[Path], home: Path | None, *, new: bool = False
) -> list[Path]:
    """The files, in order: `named`, else those of $KUBECONFIG, else the user's, else the host's,
    which is not for `new` contexts of users."""
    if named is not None:
        return [named]
    if environment:
        return list(environment)
    users = home / ".kube" / "config" if home else None
    if users is None or (not new and not users.exists() and SYSTEM.exists()):
        return [SYSTEM]
    return [users]


def merged(documents: Sequence[Document]) -> Document:
    """One document out of those of several files. Pure."""
    whole: Document = {"apiVersion": "v1", "kind": "Config"}
    for plural in ENTRIES:
        found: dict[str, Document] = {}
        for document in documents:
            for entry in document.get(plural) or ():
                found.setdefault(entry["name"], entry)
        whole[plural] = list(found.values())
    current = (document.get("current-context") for document in documents)
    whole["current-context"] = next((name for name in current if name), "")
    return whole


@dataclass(frozen=True, slots=True)
class Entry:
    """A named one of clusters, users or contexts; `inside` None: it is to go."""

    plural: str
    name: str
    inside: Document | None = None


@dataclass
class Kubeconfig:
    """The files as they are; `must` exist: those that were named by option."""

    paths: Sequence[Path]
    must: bool = False
    documents: dict[Path, Document] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in self.paths:
            if self.must or path.exists():
                self.documents[path] = load(path)

    @property
    def whole(self) -> Document:
        return merged(list(self.documents.values()))

    @property
    def source(self) -> str:
        """As messages name it."""
        return "kubeconfig " + os.pathsep.join(map(str, self.paths))

    def context(self, name: str = "") -> Document:
        """What is inside a context ("": the current one). NoContext."""
        whole = self.whole
        wanted = name or whole["current-context"]
        known = [entry["name"] for entry in whole["contexts"]]
        if wanted not in known:
            if not self.documents:
                problem = "there is none"
            elif not wanted:
                problem = "it has no current context"
            else:
                problem = f"it has no context {wanted!r}; it has: {', '.join(known) or 'none'}"
            raise NoContext(self.source, [Cause("", problem)])
        found: Document = whole["contexts"][known.index(wanted)]["context"]
        return found

    def change(self, entries: Sequence[Entry], current: str | None = None) -> None:
        """Have entries in place or gone, and (unless None) a context in use, "" for none: each file
        is written once."""
        places = [(self._place(entry), entry) for entry in entries]
        holders = [p for p, d in self.documents.items() if d.get("current-context")]
        chosen = [self.default] if current else holders if current == "" else []
        for path in dict.fromkeys([path for path, _ in places if path] + chosen):
            with _changed(path) as document:
                for entry in (entry for place, entry in places if place == path):
                    _put(document, entry)
                if path in chosen:
                    document["current-context"] = current
        self.documents = {path: load(path) for path in self.paths if path.exists()}

    def _place(self, entry: Entry) -> Path | None:
        """The file that has it, or that it goes into; None for one that is gone already."""
        for path, document in self.documents.items():
            if _index(document, entry) is not None:
                return path
        return None if entry.inside is None else self.default

    @property
    def default(self) -> Path:
        """Where new entries go."""
        return next(iter(self.documents), self.paths[-1])


@contextlib.contextmanager
def _changed(path: Path) -> Iterator[Document]:
    """The document of `path` as it is on disk now, written when the block ends."""
    path = path.resolve()  # of a symbolic link the file is replaced, not the link
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path):
            document = _raw(path) or {"apiVersion": "v1", "kind": "Config"}
            yield document
            write_secret(path, yaml.safe_dump(document, sort_keys=False).encode())
    except OSError as error:
        problem = f"cannot write it: {error.strerror}"
        raise ConfigError(f"kubeconfig {path}", [Cause("", problem)]) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = path.with_name(f"{path.name}.lock")
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError as error:
        problem = f"somebody is writing it; if nobody is: rm {lock}"
        raise ConfigError(f"kubeconfig {path}", [Cause("", problem)]) from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _raw(path: Path) -> Document | None:
    """The file with its paths as they stand there; that it is a kubeconfig has been seen."""
    try:
        load(path)
        document: Document | None = yaml.safe_load(path.read_text(encoding="utf-8"))
    except ConfigError:
        if path.exists():
            raise
        return None
    return document


def _put(document: Document, entry: Entry) -> None:
    entries = list(document.get(entry.plural) or ())
    at = _index(document, entry)
    if at is not None:
        del entries[at]
    if entry.inside is not None:
        made = {"name": entry.name, ENTRIES[entry.plural][0]: entry.inside}
        entries.insert(len(entries) if at is None else at, made)
    document[entry.plural] = entries


def _index(document: Document, entry: Entry) -> int | None:
    names = [one["name"] for one in document.get(entry.plural) or ()]
    return names.index(entry.name) if entry.name in names else None
