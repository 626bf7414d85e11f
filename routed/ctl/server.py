"""Where a service is, as options say it."""

from __future__ import annotations

from urllib.parse import urlsplit

from api.resources.errors import Cause, ConfigError

PORT = 6780


def url(server: str) -> str:
    """HOST, HOST:PORT or https://HOST:PORT as a URL; the port is the service's own by default."""
    whole = server if "://" in server else f"https://{server}"
    try:
        parts = urlsplit(whole)
        port = parts.port
    except ValueError as error:
        raise ConfigError(
            "the server", [Cause("", f"{server!r} is no address: {error}")]
        ) from error
    if parts.scheme != "https" or not parts.hostname:
        said = f"{server!r} is not https://HOST:PORT; nothing is said without TLS"
        raise ConfigError("the server", [Cause("", said)])
    if "://" in server or port is not None:
        return whole.rstrip("/")
    return f"{whole.rstrip('/')}:{PORT}"
