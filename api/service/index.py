"""FastAPI, with a shorter way to the handlers of objects.

FastAPI compares a path with the pattern of one route after the other, works out what the handler
depends on, and does all that inside four layers: more work than all the rest of a request. The
routes stay declared with FastAPI, which documents them, and anything else goes its way; these are
found here by two look-ups and called at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import FastAPI, Request, Response

Answer = Callable[[Request], Awaitable[Response]]
Scope = MutableMapping[str, Any]
NAME = "/{name}"


class IndexedAPI(FastAPI):
    """`add` declares a path without a parameter, or with one: ``/{name}``, and fixed after it.
    `before` may answer what goes FastAPI's way in its place."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.before: Callable[[Scope], Response | None] = lambda scope: None
        self._plain: dict[tuple[str, str], Answer] = {}
        self._named: dict[tuple[str, str, str], Answer] = {}
        self._methods: set[str] = set()

    def add(self, path: str, method: str, answer: Answer, summary: str) -> None:
        self.add_api_route(path, answer, methods=[method], summary=summary, response_model=None)
        self._methods.add(method)
        base, name, rest = path.partition(NAME)
        if name:
            self._named[method, base, rest] = answer
        else:
            self._plain[method, base] = answer

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        answer = self._found(scope) if scope["type"] == "http" else None
        if answer is not None:
            response = await answer(Request(scope, receive, send))
        elif scope["type"] != "http" or (refusal := self.before(scope)) is None:
            await super().__call__(scope, receive, send)
            return
        else:
            response = refusal
        await response(scope, receive, send)

    def allowed(self, path: str) -> list[str]:
        """The methods of a path that was added."""
        scopes = ({"method": method, "path": path} for method in sorted(self._methods))
        return [scope["method"] for scope in scopes if self._found(scope)]

    def _found(self, scope: Scope) -> Answer | None:
        method, path = scope["method"], scope["path"]
        plain = self._plain.get((method, path))
        if plain is not None:
            return plain
        base, _, name = path.rpartition("/")
        answer = self._named.get((method, base, ""))
        if answer is None:
            rest = f"/{name}"
            base, _, name = base.rpartition("/")
            answer = self._named.get((method, base, rest))
        if answer is None or not name:
            return None
        scope["path_params"] = {"name": name}
        return answer
