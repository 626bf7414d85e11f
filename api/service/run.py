"""Serving: first start, TLS, the store, uvicorn."""

from __future__ import annotations

import asyncio
import ipaddress
import resource
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

import uvicorn
import uvloop

from api import memory
from api.auth import ca, kubeconfig, tokens
from api.auth.certificates import Authority
from api.auth.kubeconfig import Access
from api.resources.errors import Cause, ConfigError
from api.resources.versions import HEADER, VERSION
from api.service.app import application
from api.service.audit import AuditLog
from api.service.connections import Connection
from api.service.renewal import keep_certificate
from api.service.throttle import Rates
from api.store.places import Place, open_store

GRACE_SECONDS = 2  # for what is under way when stopping


def run(
    data_dir: Path,
    listen: str,
    place: Place,
    advertise: Sequence[str],
    *,
    certificate_seconds: int,
    user_certificate_seconds: int,
    audit_log: bool,
    rates: Rates,
) -> None:
    """Serve until SIGTERM or SIGINT. ConfigError if it cannot start."""
    host, port = _listen(listen)
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = _names(host, advertise)
    certificates = ca.ensure(data_dir, names)
    store = open_store(place)
    url = f"https://{_bracketed(names[0])}:{port}"
    lives = (certificate_seconds, user_certificate_seconds)
    authority = Authority(*ca.authority(certificates), *lives)
    admin = data_dir / "admin.kubeconfig"
    audit = AuditLog(data_dir / "audit.log") if audit_log else None

    async def serve() -> None:
        await store.scan("/none/")  # an error is said here in one line
        if not admin.exists():
            token = await tokens.issue(store, tokens.ADMIN)
            access = Access(url, authority.pem, tokens.ADMIN.user, token)
            ca.write_secret(admin, kubeconfig.render(access).encode())
        config = uvicorn.Config(
            application(store, authority=authority, server_url=url, audit=audit, rates=rates),
            host=host,
            port=port,
            ssl_certfile=str(certificates.certificate),
            ssl_keyfile=str(certificates.key),
            ssl_ca_certs=str(certificates.ca),  # of clients: no other CA is theirs
            ssl_cert_reqs=ssl.CERT_OPTIONAL,  # beside tokens
            http=Connection,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            headers=[(HEADER, VERSION)],
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        config.load()
        assert config.ssl is not None
        renewing = asyncio.create_task(keep_certificate(data_dir, names, config.ssl))
        await _Server(config).serve()
        renewing.cancel()

    _check_port(host, port)
    memory.keep_buffers_apart()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each connection is a descriptor
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


class _Server(uvicorn.Server):
    """Watches end when it stops; uvicorn would wait for them as for any other answer."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.end_watches()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def _check_port(host: str, port: int) -> None:
    """A port that is taken is a mistake of configuration, said in one line."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            problem = f"cannot listen on {host}:{port}: {error.strerror}"
            raise ConfigError("routed server", [Cause("listen", problem)]) from error


def _listen(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not port.isdigit() or not 1 <= int(port) <= 65_535:
        raise ConfigError("routed server", [Cause("listen", f"{listen!r} is not HOST:PORT")])
    return host.strip("[]"), int(port)


def _names(host: str, advertise: Sequence[str]) -> list[str]:
    """What the certificate is for; the first is what clients are told."""
    found = [*advertise]
    if host not in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        found.append(host)
    elif not advertise:
        found.append(socket.gethostname())
    found += ["localhost", "127.0.0.1", "::1"]
    return list(dict.fromkeys(found))


def _bracketed(name: str) -> str:
    try:
        return f"[{name}]" if ipaddress.ip_address(name).version == 6 else name
    except ValueError:
        return name
