"""By which connections requests go."""

from __future__ import annotations

import ssl

import httpx

HEARTBEAT = "/heartbeat"  # what the paths of these end with
# a heartbeat by a connection that is there costs a tenth of one with a handshake. The service
# closes it later than we do (`api/service/connections.py`), and it is no use between rare ones
BEATS = httpx.Limits(max_connections=2, max_keepalive_connections=1, keepalive_expiry=60.0)


class Transport(httpx.AsyncBaseTransport):
    """Heartbeats have a connection for themselves, which stays between them. Nothing else goes by
    it: if the service has gone without a word, a heartbeat waits for its answer in vain and is said
    again, while a request that must not be sent twice fails as soon as it cannot connect."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._requests = httpx.AsyncHTTPTransport(verify=context, trust_env=False)
        self.beats = httpx.AsyncHTTPTransport(verify=context, trust_env=False, limits=BEATS)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        by = self.beats if request.url.path.endswith(HEARTBEAT) else self._requests
        return await by.handle_async_request(request)

    async def aclose(self) -> None:
        await self._requests.aclose()
        await self.beats.aclose()
