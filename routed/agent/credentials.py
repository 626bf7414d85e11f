"""What this node shows of itself, kept good.

A certificate is renewed after two thirds of its life, with a key of its own each time; the file is
replaced as a whole before the new one is used, so a restart at any moment finds one that is good.
A file that somebody else has replaced, by joining again, is taken in as it is. A certificate that
has ended proves nothing: the host must join again, and until then this says so.

Race: a host that joins again while its agent renews. What the service had answered is not written
then, for it is of the identity before.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import replace

from api.auth import certificates, kubeconfig
from api.auth.bootstrap import said
from api.auth.certificates import Life
from api.client import Client
from api.resources.errors import RoutedError
from routed.agent.records import write_atomic
from routed.settings import AgentSettings

log = logging.getLogger("routed.credentials")

LOOK_SECONDS = 1.0  # between looks at file and clock, at most
LONGEST_SECONDS = 60.0  # between tries, with jitter


class Credentials:
    """Those of `client`, which are in the kubeconfig of the settings."""

    def __init__(self, settings: AgentSettings, client: Client) -> None:
        self.settings = settings
        self.client = client
        self.problem = ""  # why they are not good, or could not be made so
        self._seen = self._signature()
        self._draw = random.random()  # noqa: S311 - jitter
        self._failures = 0
        self._next_try = 0.0

    @property
    def life(self) -> Life | None:
        """Of the certificate; a token does not end."""
        held = self.client.access.certificate
        return certificates.life_of(held) if held else None

    async def serve(self) -> None:
        """Look for ever."""
        while True:
            problem = ""
            try:
                await self._take_in()
                problem = await self._renewed()
            except (RoutedError, OSError, ValueError) as error:
                problem = str(error)
            if problem != self.problem:
                self.problem = problem
                log.log(logging.ERROR if problem else logging.INFO, problem or "credentials good")
            await asyncio.sleep(LOOK_SECONDS)

    async def _take_in(self) -> None:
        """Use the file, if it is another one than before."""
        signature = self._signature()
        if signature is None or signature == self._seen:
            return  # what was read works without its file as well
        access = kubeconfig.read(self.settings.kubeconfig)
        if self.settings.server:
            access = replace(access, server=self.settings.server)
        await self.client.use(access)
        self._seen, self._next_try, self._failures = signature, 0.0, 0
        log.info("credentials replaced path=%s", self.settings.kubeconfig)

    async def _renewed(self) -> str:
        """Renew what is due; the problem, if there is one."""
        life, now = self.life, time.time()
        if life is None or now < life.renewal(self._draw):
            return ""
        if now >= life.expires:
            node = self.settings.node
            return (
                f"the certificate of node {node} ended at {said(life.expires)}: join again, with "
                f"routectl token create --node {node}, and here: routed join"
            )
        loop = asyncio.get_running_loop()
        if loop.time() < self._next_try:
            return self.problem
        try:
            await self._renew()
        except (RoutedError, OSError):
            self._failures += 1
            wait = min(LONGEST_SECONDS, 2.0**self._failures) * random.uniform(0.5, 1)  # noqa: S311
            self._next_try = loop.time() + wait
            raise
        self._failures, self._draw = 0, random.random()  # noqa: S311 - jitter
        return ""

    async def _renew(self) -> None:
        key, request = certificates.key_and_request()
        signed = await self.client.certificate(self.settings.node, request)
        if self._signature() != self._seen:
            return  # somebody has joined meanwhile
        access = replace(self.client.access, certificate=signed, key=key)
        write_atomic(self.settings.kubeconfig, kubeconfig.render(access).encode(), durable=True)
        self._seen = self._signature()
        await self.client.use(access)
        ends = certificates.life_of(signed).expires
        log.info("certificate renewed until=%s", said(ends))

    def _signature(self) -> tuple[int, int, int] | None:
        """What tells one file from the next."""
        try:
            found = self.settings.kubeconfig.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
