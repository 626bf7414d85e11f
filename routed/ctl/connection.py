"""Where the service is for one invocation, and as whom: the kubeconfig, and what options change.

A token is never an argument: everybody on the host can read those. Certificates are always
checked: what is skipped for a test is skipped for whoever is in between as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from routed.ctl import environment

if TYPE_CHECKING:
    from api.auth.kubeconfig import Access
    from api.client import Client
    from routed.ctl.contexts import Kubeconfig

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Connection:
    """What the global options say; "" and None: nothing."""

    kubeconfig: Path | None = None
    context: str = ""
    server: str = ""
    ca_file: Path | None = None
    token_file: Path | None = None

    def files(self, *, new: bool = False) -> Kubeconfig:
        """The kubeconfig files; ConfigError. `new`: they are about to be written, in a place of the
        user's own."""
        from routed.ctl.contexts import Kubeconfig, places

        home, named = environment.home(), environment.kubeconfigs()
        paths = places(self.kubeconfig, named, home, new=new)
        return Kubeconfig(paths, must=self.kubeconfig is not None and not new)

    def access(self) -> Access:
        """ConfigError; of a server and a token file alone no kubeconfig is needed."""
        from api.auth import kubeconfig
        from api.auth.kubeconfig import Access
        from routed import secret
        from routed.ctl import execplugin, files, server
        from routed.ctl.contexts import NoContext

        token = secret.one_word(self.token_file) if self.token_file else ""
        ca = files.data(self.ca_file) if self.ca_file else b""
        kubeconfigs = self.files()
        try:
            held = kubeconfigs.context(self.context)
        except NoContext:
            if not (self.server and token) or self.context:
                raise
            return Access(server.url(self.server), ca, "", token)
        whole = kubeconfigs.whole
        if token:
            whole["users"] = [{"name": held.get("user"), "user": {"token": token}}]
        for entry in whole["users"]:
            if entry["name"] == held.get("user") and "exec" in entry["user"]:
                cluster = kubeconfig.entry_of(whole, "clusters", held["cluster"])
                entry["user"] = execplugin.proof(entry["user"]["exec"], cluster)
        access = kubeconfig.access_of(whole, self.context, kubeconfigs.source, public=True)
        if self.server:
            access = replace(access, server=server.url(self.server))
        return replace(access, ca=ca) if ca else access

    def run(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Have it done with a client of the service, which is closed afterwards."""
        from api.client import Client

        # what a daemon would log, a command says itself, or not at all
        logging.getLogger("routed").addHandler(logging.NullHandler())
        access = self.access()

        async def whole() -> T:
            client = Client(access)
            try:
                return await work(client)
            finally:
                await client.close()

        return asyncio.run(whole())
