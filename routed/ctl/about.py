"""version and cluster-info."""

from __future__ import annotations

from importlib import metadata

from api.auth import certificates
from api.client import Client
from routed.ctl.connection import Connection


def version(connection: Connection | None) -> str:
    """Of this program, and with a connection of the service."""
    lines = [f"Client Version: v{metadata.version('routed')}"]
    if connection is not None:

        async def asked(client: Client) -> str:
            return str((await client.raw("GET", f"{client.server}/version"))["gitVersion"])

        lines.append(f"Server Version: {connection.run(asked)}")
    return "\n".join(lines)


def cluster(connection: Connection) -> str:
    """Unreachable if it does not answer."""
    access = connection.access()

    async def asked(client: Client) -> str:
        return str((await client.raw("GET", f"{client.server}/version"))["gitVersion"])

    lines = [f"The control plane {connection.run(asked)} answers at {access.server}"]
    if access.ca:
        pin = certificates.pin(access.ca)
        lines += [f"Its CA has the pin sha256:{pin}", ""]
        lines.append(f"routectl login {access.server} --ca-pin sha256:{pin}")
    return "\n".join(lines)
