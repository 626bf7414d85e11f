"""Settings: one frozen value per program, from a YAML file and flags.

Every field has a default and a documentation; all problems of a file are reported at once
(`ConfigError`, exit code 2). Flags override the file. Nothing else in the program reads the
environment.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from api.resources.errors import Cause, ConfigError
from api.resources.meta import DNSSubdomain, Model
from api.resources.net import Address, IPAddress
from api.store import places
from api.store.etcd.place import Tls
from policies.failsafe import INBOUND, OUTBOUND, Failsafe, failsafe, port
from routed.addressing import Method

S = TypeVar("S", bound=Model)


def own_name() -> str:
    """The host's name as a DNS subdomain: what a node is called unless told otherwise."""
    return socket.gethostname().lower().replace("_", "-").strip(".-") or "localhost"


class AgentSettings(Model):
    """`routed agent`; also read by `routed speaker`, which needs its two directories."""

    node: DNSSubdomain = Field(default_factory=own_name, description="this host's Node object")
    server: str | None = Field(
        default=None,
        pattern="^https://.+",
        description="URL of the control plane; default: the one in the kubeconfig",
    )
    servers: list[Annotated[str, Field(pattern="^https://.+")]] = Field(
        default_factory=list,
        description="URLs of more control planes on the same store: one that does not answer is "
        "left for the next",
    )
    kubeconfig: Path = Field(
        default=Path("/etc/routed/node.kubeconfig"),
        description="credentials of this node, mode 0600",
    )
    run_dir: Path = Field(
        default=Path("/run/routed"), description="sockets and records, gone with a reboot"
    )
    state_dir: Path = Field(
        default=Path("/var/lib/routed"), description="last good intent, kept over a reboot"
    )
    speaker_run_dir: Path | None = Field(
        default=None,
        description="the speaker's sockets, where it runs as a user of its own; default: runDir",
    )
    speaker_state_dir: Path | None = Field(
        default=None, description="the peers that it remembers, likewise; default: stateDir"
    )
    addresses: list[Address] = Field(
        default_factory=list,
        description="the host's own addresses, listed; default: those that addressMethod finds",
    )
    address_method: str = Field(
        default="control-plane",
        description="how the host's own addresses are found: control-plane (those that it reaches "
        "that from), can-reach=DEST, interface=REGEX, cidr=CIDR, skip-interface=REGEX, first-found",
    )
    nat_addresses: list[Address] = Field(
        default_factory=list,
        max_length=2,
        description="the source of what leaves pools with natOutgoing, an address of this host for "
        "each family; default: that of the link it leaves by",
    )
    manage_sysctls: bool = Field(
        default=True, description="set net.ipv4.ip_forward and its v6 twin"
    )
    mtu: int | None = Field(
        default=None, ge=1280, le=65_535, description="of workload links; default: the uplink's"
    )
    ipvlan_parent: str = Field(
        default="",
        pattern=r"^[^/\s]{0,15}$",
        description="the link whose slaves ipvlan workloads get; default: the first by name of "
        "those that lead off this host",
    )
    policy_default: Literal["Allow", "Deny"] = Field(
        default="Allow", description="what becomes of packets that no tier of policies decides on"
    )
    failsafe_inbound_ports: list[str] = Field(
        default_factory=lambda: list(INBOUND),
        max_length=100,
        description="ports of the host, as 22/tcp, that no policy of a HostEndpoint closes; BGP "
        "and BFD always are among them; default: " + ", ".join(INBOUND),
    )
    failsafe_outbound_ports: list[str] = Field(
        default_factory=lambda: list(OUTBOUND),
        max_length=100,
        description="likewise of others, for what the host sends there; the control plane's, BGP "
        "and BFD always are among them; default: " + ", ".join(OUTBOUND),
    )
    allow_unenforced_policies: bool = Field(
        default=False,
        description="attach workloads of mode ipvlan-l3 also where policies select them, which "
        "nobody enforces there",
    )
    flush_conntrack: bool = Field(
        default=False,
        description="end flows that policies may not allow any more: after a change those of the "
        "endpoints that it concerns are judged anew",
    )
    policy_log: bool = Field(
        default=False,
        description="write what policies deny and log to policy.log in stateDir, a line of JSON "
        "each, 128 MiB at most; nobody else can listen to group 82 of nflog then",
    )
    low_water: int = Field(
        default=16, ge=0, le=4096, description="free addresses to hold ready for an outage"
    )
    resync_seconds: float = Field(
        default=30.0, ge=0.5, le=3600, description="seconds between full reads of the kernel"
    )
    socket_group: str | None = Field(
        default=None,
        description="group that may use the agent's socket, beside root; default: routed, if there "
        "is one; root: nobody else",
    )

    @field_validator("nat_addresses")
    @classmethod
    def _one_of_each_family(cls, addresses: list[IPAddress]) -> list[IPAddress]:
        if len({address.version for address in addresses}) != len(addresses):
            raise ValueError("names two addresses of one family")
        return addresses

    @field_validator("failsafe_inbound_ports", "failsafe_outbound_ports")
    @classmethod
    def _are_ports(cls, texts: list[str]) -> list[str]:
        for text in texts:
            port(text)
        return texts

    @field_validator("address_method")
    @classmethod
    def _is_method(cls, text: str) -> str:
        Method.parse(text)
        return text

    def failsafe_ports(self, servers: Iterable[str]) -> Failsafe:
        """What host endpoints let pass before any policy, these URLs of the control plane too."""
        ports = {urlsplit(url).port or 443 for url in servers if url}
        return failsafe(self.failsafe_inbound_ports, self.failsafe_outbound_ports, ports)

    @property
    def agent_socket(self) -> Path:
        return self.run_dir / "agent.sock"

    @property
    def speaker_run(self) -> Path:
        return self.speaker_run_dir or self.run_dir

    @property
    def speaker_state(self) -> Path:
        return self.speaker_state_dir or self.state_dir

    @property
    def speaker_socket(self) -> Path:
        return self.speaker_run / "speaker.sock"

    @property
    def speaker_metrics_socket(self) -> Path:
        return self.speaker_run / "speaker-metrics.sock"


class ServerSettings(Model):
    """`routed server`."""

    data_dir: Path = Field(
        default=Path("/var/lib/routed"),
        description="database, CA, certificate and admin.kubeconfig; mode 0700",
    )
    listen: str = Field(
        default="127.0.0.1:6780",
        pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$",
        description="HOST:PORT to serve TLS on",
    )
    store: str | None = Field(
        default=None,
        description="sqlite:///PATH, or etcd://HOST:PORT,HOST:PORT,... with /PREFIX if it is not "
        "/routed; default: routed.db in dataDir",
    )
    store_ca: Path | None = Field(
        default=None,
        alias="storeCA",
        description="whom to trust as etcd; default: the authorities that the system trusts",
    )
    store_certificate: Path | None = Field(
        default=None, description="our certificate for etcd, where it asks for one"
    )
    store_key: Path | None = Field(default=None, description="the key of storeCertificate")
    store_user: str = Field(default="", description="our user in etcd; default: none")
    store_password_file: Path | None = Field(
        default=None, description="the password of storeUser, mode 0600"
    )
    store_insecure: bool = Field(
        default=False, description="speak to etcd without TLS also where it is on other hosts"
    )
    advertise: list[str] = Field(
        default_factory=list, description="more names and addresses for the certificate"
    )
    certificate_seconds: int = Field(
        default=30 * 86_400,
        ge=5,
        le=366 * 86_400,
        description="for how long a node's certificate is good; it is renewed after two thirds",
    )
    user_certificate_seconds: int = Field(
        default=90 * 86_400,
        ge=5,
        le=366 * 86_400,
        description="for how long a user's certificate is good; its holder renews it",
    )
    audit_log: bool = Field(
        default=True, description="log every write to audit.log in dataDir, 128 MiB at most"
    )
    requests_per_second: float = Field(
        default=500,
        ge=1,
        le=1e6,
        description="that one user or node may make in the long run; an administrator ten times as "
        "many",
    )
    request_burst: int = Field(
        default=1000, ge=1, le=10**6, description="that it may make at once; likewise"
    )
    stranger_requests_per_second: float = Field(
        default=200,
        ge=1,
        le=1e6,
        description="that may come from one address (IPv6: a /64) without valid credentials",
    )
    stranger_request_burst: int = Field(
        default=2000, ge=1, le=10**6, description="of these at once"
    )

    @field_validator("store")
    @classmethod
    def _is_store(cls, url: str | None) -> str | None:
        if url is not None:
            places.parse(url)
        return url

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.store_certificate is None) != (self.store_key is None):
            raise ValueError("storeCertificate and storeKey belong together")
        if bool(self.store_user) != (self.store_password_file is not None):
            raise ValueError("storeUser and storePasswordFile belong together")
        if self.store_insecure and (self.store_ca or self.store_certificate):
            raise ValueError("storeInsecure contradicts storeCA and storeCertificate")
        return self

    @property
    def place(self) -> places.Place:
        """Where the store is. An etcd is spoken to over TLS, but for one on this host alone."""
        if self.store is None:
            return places.SqlitePlace(self.data_dir / "routed.db")
        return self.place_of(self.store)

    def place_of(self, url: str) -> places.Place:
        """What `url` means with these settings; ValueError."""
        place = places.parse(url)
        if isinstance(place, places.SqlitePlace):
            return place
        tls = Tls(self.store_ca, self.store_certificate, self.store_key)
        clear = self.store_insecure or (tls == Tls() and places.is_local(place))
        return replace(
            place,
            tls=None if clear else tls,
            user=self.store_user,
            password_file=self.store_password_file,
        )


def load(model: type[S], path: Path | None, overrides: dict[str, Any]) -> S:
    """Read `path` (YAML, camelCase keys; None: defaults only), apply `overrides`, validate.

    `overrides` has Python field names; None values are ignored. Raises ConfigError with every
    problem at once.
    """
    source = str(path) if path else "the command line"
    data: dict[str, Any] = {}
    if path is not None:
        try:
            loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(source, [Cause("", f"cannot read it: {error}")]) from error
        except yaml.YAMLError as error:
            raise ConfigError(source, [Cause("", f"is not YAML: {error}")]) from error
        if loaded is not None and not isinstance(loaded, dict):
            raise ConfigError(source, [Cause("", "must be a mapping of settings")])
        data = dict(loaded or {})
    for name, value in overrides.items():
        if value is not None:
            alias = model.model_fields[name].alias or name
            data[alias] = value
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(source, [_cause(problem) for problem in error.errors()]) from error


def _cause(problem: Any) -> Cause:
    field = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return Cause(field, "is not a setting", "FieldValueForbidden")
    return Cause(field, str(problem["msg"]).removeprefix("Value error, "))
