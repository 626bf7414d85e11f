"""What a client asks of the service, written down as operations."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from support.histories.record import (
    ADDRESSES,
    FULL,
    GONE,
    NO,
    OK,
    THERE,
    UNKNOWN,
    UNSENT,
    Operation,
    Recorder,
)
from support.histories.web import Answer, Unanswered, Unsent, Web

Document = dict[str, Any]
REFUSED = {400, 403, 409, 422, 429}


@dataclass
class Asking:
    """`count` is called for each operation."""

    recorder: Recorder
    count: Callable[[], None]

    def note(self, verb: str, plural: str, outcome: str, invoked: float, **more: Any) -> None:
        if outcome == UNSENT:
            return
        made = Operation(
            self.recorder.process, verb, plural, outcome, invoked, time.monotonic(), **more
        )
        self.recorder.operation(made)
        if (plural, outcome) != (ADDRESSES, FULL):  # which asks nobody, and does nothing
            self.count()

    def create(
        self, web: Web, plural: str, document: Document, *, pool: str = "", name: str = ""
    ) -> tuple[str, Document]:
        """The outcome, and the object if it is there now. THERE: the claim has found a block that
        is the node's already; that is no creation."""
        invoked = time.monotonic()
        answer, outcome = self._asked(web, "POST", f"/{plural}", document)
        made: Document = answer.document if answer is not None and outcome == OK else {}
        if answer is not None and answer.reason == "PoolExhausted":
            outcome = FULL
        if answer is not None and answer.code == 200:
            return THERE, made
        held = _about(plural, made) if made else {"name": name}
        self.note("create", plural, outcome, invoked, pool=pool, **held)
        return outcome, made

    def delete(self, web: Web, plural: str, name: str, uid: str) -> str:
        invoked = time.monotonic()
        body = {"preconditions": {"uid": uid}}
        answer, outcome = self._asked(web, "DELETE", f"/{plural}/{name}", body)
        if answer is not None and outcome == NO:
            another = answer.code == 403 or "precondition failed" in answer.text
            outcome = GONE if another else NO
        self.note("delete", plural, outcome, invoked, name=name, uid=uid)
        return outcome

    def get(self, web: Web, plural: str, name: str) -> Document | None:
        """None: nobody knows; empty: it is not there."""
        invoked = time.monotonic()
        answer, outcome = self._asked(web, "GET", f"/{plural}/{name}")
        if outcome not in (OK, GONE) or answer is None:
            return None
        found = answer.document if outcome == OK else {}
        uid = found["metadata"]["uid"] if found else ""
        self.note("get", plural, OK, invoked, name=name, uid=uid)
        return found

    def list(self, web: Web, plural: str, node: str) -> list[Document] | None:
        """All of `node`; None: nobody knows."""
        invoked = time.monotonic()
        answer, outcome = self._asked(web, "GET", f"/{plural}?fieldSelector=spec.node%3D{node}")
        if answer is None or outcome != OK:
            return None
        items: list[Document] = answer.document["items"]
        found = tuple((one["metadata"]["name"], one["metadata"]["uid"]) for one in items)
        self.note("list", plural, OK, invoked, found=found)
        return items

    def adopt(self, plural: str, document: Document, pool: str, invoked: float) -> None:
        """An object of ours whose making was not answered was found by reading."""
        self.note("adopt", plural, OK, invoked, pool=pool, **_about(plural, document))

    def report(self, web: Web, plural: str, document: Document) -> tuple[str, Document]:
        """Replace its status."""
        invoked = time.monotonic()
        name, uid = document["metadata"]["name"], document["metadata"]["uid"]
        answer, outcome = self._asked(web, "PUT", f"/{plural}/{name}/status", document)
        if answer is not None and answer.code == 403:
            outcome = GONE  # another's
        self.note("report", plural, outcome, invoked, name=name, uid=uid)
        return outcome, answer.document if answer is not None and outcome == OK else {}

    def _asked(
        self, web: Web, method: str, path: str, body: Any = None
    ) -> tuple[Answer | None, str]:
        try:
            answer = web.ask(method, path, body)
        except Unsent:
            return None, UNSENT
        except Unanswered:
            return None, UNKNOWN
        if answer.code < 300:
            return answer, OK
        if answer.code == 404:
            return answer, GONE
        if answer.code in REFUSED:
            return answer, NO
        if answer.code in (503, 507):
            return answer, UNKNOWN
        self.broken(f"{method} {path}: {answer.code} {answer.text}")
        return None, UNKNOWN

    def broken(self, said: str) -> None:
        """The service failed in a way that no fault explains."""
        self.note("broken", "", UNKNOWN, time.monotonic(), name=said)


def _about(plural: str, made: Document) -> dict[str, Any]:
    metadata, spec = made["metadata"], made["spec"]
    what = {"ipblocks": metadata["name"], "addressleases": spec.get("address", "")}
    return {
        "name": metadata["name"],
        "uid": metadata["uid"],
        "what": what.get(plural, ""),
        "revision": int(metadata["resourceVersion"]),
    }
