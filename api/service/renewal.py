"""The service's own certificate, while it runs."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from pathlib import Path

from api.auth import ca

log = logging.getLogger("routed.service")

LOOK_SECONDS = 3600.0


async def keep_certificate(data_dir: Path, names: Sequence[str], context: ssl.SSLContext) -> None:
    """Have the service's own certificate renewed in time, as a start would, and shown to whoever
    connects from then on; connections that are open go on."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            made = ca.ensure(data_dir, names)
            context.load_cert_chain(made.certificate, made.key)
        except (OSError, ValueError) as error:  # of OpenSSL too
            log.error("certificate not renewed why=%s", error)
