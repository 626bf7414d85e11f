"""One watch of everything of a kind, that goes on wherever it can, from where it was."""

from __future__ import annotations

import time
from collections.abc import Callable

from support.histories.record import Recorder, Seen
from support.histories.web import Web

PAUSE_SECONDS = 0.05


class Watcher:
    def __init__(self, web: Web, plural: str, recorder: Recorder) -> None:
        self.web = web
        self.plural = plural
        self.recorder = recorder
        self.reached = 0  # 0: it has to begin anew

    def run(self, over: Callable[[], bool]) -> None:
        """Until it is over, and no fault any more; then what is there at that time."""
        while not over():
            before = self.reached
            self._follow(over)
            if self.reached == before:
                time.sleep(PAUSE_SECONDS)
        self._follow(lambda: False, timeoutSeconds="1")

    def _follow(self, over: Callable[[], bool], **more: str) -> None:
        query = {"watch": "1", "allowWatchBookmarks": "true", **more}
        if self.reached:
            query["resourceVersion"] = str(self.reached)
        else:
            query["sendInitialEvents"] = "true"
            self._say("BEGIN", 0)
        beginning = not self.reached
        for line in self.web.lines(f"/{self.plural}", **query):
            kind, held = line["type"], line["object"]
            if kind == "ERROR":
                if held.get("code") == 410:
                    self.reached = 0
                return
            metadata = held["metadata"]
            revision = int(metadata["resourceVersion"])
            if kind == "BOOKMARK":
                self._say("END" if beginning else kind, revision)
                beginning = False
            else:
                kind = "PRESENT" if beginning else kind
                self._say(kind, revision, metadata["name"], metadata["uid"])
            if not beginning:
                self.reached = revision
            if over():
                return

    def _say(self, kind: str, revision: int, name: str = "", uid: str = "") -> None:
        self.recorder.seen(Seen(self.recorder.process, self.plural, kind, revision, name, uid))
