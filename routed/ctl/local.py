"""The verbs that go to this host's agent, over its socket."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import typer
import yaml

from api.ipam import local
from api.ipam.table import Table
from api.resources.columns import age
from api.resources.errors import Cause, ConfigError, IntentError, RoutedError
from api.resources.net import parse_address, parse_cidr
from routed.ctl.tables import aligned


class AgentUnreachable(RoutedError):
    """No agent answers on the socket."""


class AgentForbidden(AgentUnreachable):
    """It answers, but not to this user."""


class Local:
    """The agent behind `socket`."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def attach(self, request: dict[str, Any], output: str, *, wait: bool) -> None:
        query = {"wait": "announced"} if wait else {}
        made = self._call("POST", "/v1/attachments", params=query, json=request)
        if output == "json":
            typer.echo(json.dumps(made, indent=4))
        elif output == "yaml":
            typer.echo(yaml.safe_dump(made, sort_keys=False), nl=False)
        elif output == "name":
            typer.echo(f"workload.routed.dev/{made['id']}")
        else:
            addresses = ", ".join(made["addresses"])
            typer.echo(f"workload.routed.dev/{made['id']} attached: {addresses}")

    def detach(self, name: str) -> None:
        gone = self._call("DELETE", f"/v1/attachments/{name}")
        stays = "; it stays for those that share its namespace" if gone.get("leaving") else ""
        typer.echo(f"workload.routed.dev/{gone['id']} detached{stays}")

    def bgp_status(self, output: str) -> None:
        status = self._call("GET", "/v1/status")
        if _structured(status["bgp"], output):
            return
        rows = [["PEER", "ADDRESS", "STATE", "SINCE", "CARRIES", "RECEIVED", "ERROR"]]
        for one in status["bgp"]["sessions"]:
            since = datetime.fromtimestamp(one["since"], UTC).isoformat()
            cells = [one["peer"], one["address"], one["state"], age(since, datetime.now(UTC))]
            carries = ",".join(one.get("families", [])) or "-"
            rows.append([*cells, carries, str(one["received"]), one["error"] or "-"])
        typer.echo(aligned(rows))
        typer.echo(f"advertised: {status['bgp']['advertised']} prefix(es)")

    def bgp_routes(self, output: str, *, peer: str, announced: bool) -> None:
        """What the peers have told us, or what we have told them."""
        if announced:
            told = self._call("GET", "/v1/advertisements")
            if not _structured(told, output):
                typer.echo(aligned([["PREFIX"], *([prefix] for prefix in told["items"])]))
            return
        heard = self._call("GET", "/v1/routes", params={"peer": peer} if peer else {})
        if _structured(heard, output):
            return
        rows = [["PREFIX", "PEER", "NEXT HOPS", "AS PATH", "USED"]]
        for one in heard["items"]:
            path = " ".join(map(str, one["asPath"])) or "-"
            used = "yes" if one["used"] else "no"
            used += ", stale" if one["stale"] else ""
            rows.append([one["prefix"], one["peer"], ",".join(one["nextHops"]), path, used])
        typer.echo(aligned(rows))

    def policy_counters(self, output: str) -> None:
        """What rules of policies have counted on this host."""
        held = self._call("GET", "/v1/counters")
        if _structured(held, output):
            return
        rows = [["TIER", "POLICY", "DIRECTION", "RULE", "ACTION", "PACKETS", "BYTES"]]
        for one in held["items"]:
            whose = [one["tier"] or "-", one["policy"] or "-", one["direction"] or "-", one["rule"]]
            action = f"{one['action']} (staged)" if one["staged"] else one["action"]
            rows.append([*whose, action, str(one["packets"]), str(one["bytes"])])
        typer.echo(aligned(rows))

    def addresses(self) -> local.Local:
        """What this host has: its agent's word, its speaker's, and its kernel's; and what the
        switches tell it."""
        from routed.kernel.netlink import Netlink
        from routed.kernel.observe import foreign_host_routes, host_routes

        with Netlink() as netlink:
            routes = frozenset(host_routes(netlink))
            foreign = frozenset(foreign_host_routes(netlink))
        node = self._call("GET", "/v1/status")["node"]
        items = self._call("GET", "/v1/attachments")["items"]
        told = self._call("GET", "/v1/advertisements")
        peers = self._call("GET", "/v1/received")["peers"]
        return local.Local(
            node=node,
            attached={
                item["id"]: [parse_address(text) for text in item["addresses"]]
                for item in items
                if item["phase"] == "Ready"
            },
            routes=routes,
            advertised=frozenset(map(parse_cidr, told.get("speaker", told["items"]))),
            foreign=foreign,
            tables={
                name: Table(
                    frozenset(one.get("versions", [one["version"]])),  # an agent of 0.1 has one
                    {parse_cidr(text): origin for text, origin in one["prefixes"]},
                )
                for name, one in peers.items()
            },
        )

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        transport = httpx.HTTPTransport(uds=str(self.socket))
        try:
            with httpx.Client(transport=transport, base_url="http://agent", timeout=30) as client:
                response = client.request(method, path, **options)
                document: dict[str, Any] = response.json()
        except (httpx.HTTPError, ValueError) as error:
            if _refused(error):
                raise AgentForbidden(
                    f"cannot use the agent's socket {self.socket}: it is for root and members of "
                    "its group"
                ) from error
            raise AgentUnreachable(
                f"cannot reach the agent at {self.socket}: {error}; is `routed agent` running on "
                "this host, and are you root? To go through the service say --node"
            ) from error
        if response.status_code == 403:
            raise AgentForbidden(str(document.get("message", document)))
        if response.status_code >= 400:
            raise IntentError(str(document.get("message", document)))
        return document


def _refused(error: BaseException | None) -> bool:
    """Whether the kernel said that we may not connect."""
    while error is not None:
        if isinstance(error, PermissionError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _structured(document: dict[str, Any], output: str) -> bool:
    """Print it as JSON or YAML if that is asked for."""
    if output == "json":
        typer.echo(json.dumps(document, indent=4))
    elif output == "yaml":
        typer.echo(yaml.safe_dump(document, sort_keys=False), nl=False)
    elif output not in ("", "wide"):
        raise ConfigError("-o", [Cause("", f"{output!r} is none of wide, yaml, json")])
    return output in ("json", "yaml")
