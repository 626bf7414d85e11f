"""The command line; what a command needs is imported when it runs, so `--help` is quick.

Exit codes: 0 done; 1 refused or out of reach; 2 wrong use, or a file with mistakes in it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from routed.ctl.remote import Remote

DEFAULT_KUBECONFIG = Path("/etc/routed/admin.kubeconfig")
DEFAULT_SOCKET = Path("/run/routed/agent.sock")

app = typer.Typer(
    name="routectl",
    help="Workloads, address pools and BGP peerings of routed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
ipam = typer.Typer(help="Pools, blocks and addresses.", no_args_is_help=True)
bgp = typer.Typer(help="BGP as this host's speaker sees it.", no_args_is_help=True)
token = typer.Typer(help="Credentials.", no_args_is_help=True)
app.add_typer(ipam, name="ipam")
app.add_typer(bgp, name="bgp")
app.add_typer(token, name="token")

Output = Annotated[str, typer.Option("-o", "--output", help="wide, yaml, json or name.")]
Selector = Annotated[str, typer.Option("-l", "--selector", help="Label selector, as kubectl's.")]
Files = Annotated[
    list[Path] | None, typer.Option("-f", "--filename", help="File, directory, or - for stdin.")
]
Validate = Annotated[str, typer.Option(help="strict, warn, ignore: what of unknown fields.")]
Forced = Annotated[bool, typer.Option("--force", help="The node is off for good.")]
Statement = Annotated[str, typer.Option(metavar="TEXT", help="With --force: how you know.")]
Socket = Annotated[Path | None, typer.Option("--agent", metavar="SOCK", help="The agent's socket.")]


class Globals:
    kubeconfig: Path | None = None
    server: str | None = None


@app.callback()
def common(
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Default: $KUBECONFIG, else /etc/routed/admin.kubeconfig.")
    ] = None,
    server: Annotated[str | None, typer.Option(metavar="URL", help="Instead of its URL.")] = None,
) -> None:
    """Remember where the service is."""
    named = os.environ.get("KUBECONFIG", "")
    Globals.kubeconfig = kubeconfig or (Path(named) if named else DEFAULT_KUBECONFIG)
    Globals.server = server


def _remote() -> Remote:
    from routed.ctl import remote

    return remote.Remote(Globals.kubeconfig or DEFAULT_KUBECONFIG, Globals.server)


@app.command()
def get(
    kind: Annotated[str, typer.Argument(help="Such as workloads, pool, nodes.")],
    names: Annotated[list[str] | None, typer.Argument()] = None,
    output: Output = "",
    selector: Selector = "",
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Go on with changes.")] = False,
) -> None:
    """Show objects."""
    _remote().get(kind, names or [], output, selector, watch=watch)


@app.command()
def describe(kind: str, names: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Show objects in full, for people."""
    _remote().describe(kind, names or [])


@app.command()
def apply(filename: Files = None, validate: Validate = "strict") -> None:
    """Create or change objects so that they are as the files say."""
    _remote().apply(filename or [], validate)


@app.command()
def create(filename: Files = None, validate: Validate = "strict") -> None:
    """Create the objects of files; those that exist are refused."""
    _remote().create(filename or [], validate)


@app.command()
def delete(
    kind: Annotated[str | None, typer.Argument()] = None,
    names: Annotated[list[str] | None, typer.Argument()] = None,
    filename: Files = None,
    selector: Selector = "",
    force: Forced = False,
    statement: Statement = "",
) -> None:
    """Delete objects by name, selector or file; with --force a node that is off for good."""
    if force or statement:
        from routed.ctl.space import Force

        if kind not in ("node", "nodes", "no") or filename or selector or not names:
            raise typer.BadParameter("--force is for nodes: delete node NAME --force --statement T")
        _remote().delete_node(names, Force.of(statement, force=force))
        return
    _remote().delete(kind, names or [], filename or [], selector)


@app.command()
def cordon(node: str) -> None:
    """Have nothing more attached on a node."""
    _remote().cordon(node, on=True)


@app.command()
def uncordon(node: str) -> None:
    """Let a node attach again."""
    _remote().cordon(node, on=False)


@app.command()
def drain(
    node: str,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for its blocks.")] = 300.0,
) -> None:
    """Empty a node: delete what was declared for it, wait until it has given its blocks back."""
    _remote().drain(node, timeout)


@app.command()
def attach(
    name: Annotated[str, typer.Argument(help="A DNS label.")],
    netns: Annotated[str, typer.Option(help="Name under /run/netns, or a path.")],
    pool: Annotated[list[str] | None, typer.Option(help="Repeatable.")] = None,
    ip: Annotated[list[str] | None, typer.Option(help="Exactly this address; repeatable.")] = None,
    lease: Annotated[str, typer.Option(help="The address of this AddressLease.")] = "",
    family: Annotated[
        list[str] | None, typer.Option(help="IPv4, IPv6; repeatable for one address of each.")
    ] = None,
    mode: Annotated[str, typer.Option(help="veth, ipvlan-l3 or ipvlan-l3s.")] = "veth",
    ifname: Annotated[str, typer.Option(help="Inside the namespace.")] = "eth0",
    label: Annotated[list[str] | None, typer.Option(help="K=V; repeatable.")] = None,
    node: Annotated[str | None, typer.Option(help="Through the service, on this node.")] = None,
    agent: Socket = None,
    wait: Annotated[bool, typer.Option(help="Until it is announced.")] = False,
    output: Output = "",
) -> None:
    """Give a namespace an interface and an address of its own."""
    labels = _labels(label or [])
    if node is not None:
        spec = {
            "node": node,
            "netns": netns,
            "ifName": ifname,
            "mode": mode,
            "pools": pool or [],
            "addresses": ip or [],
            "ipFamilies": family or [],
            "lease": lease,
        }
        _remote().attach(name, spec, labels, output)
        return
    from routed.ctl.local import Local

    request = {
        "name": name,
        "netns": netns,
        "ifName": ifname,
        "mode": mode,
        "pools": pool or [],
        "addresses": ip or [],
        "ipFamilies": family or [],
        "lease": lease,
        "labels": labels,
    }
    Local(agent or DEFAULT_SOCKET).attach(request, output, wait=wait)


@app.command()
def detach(
    name: str,
    node: Annotated[str | None, typer.Option(help="Through the service.")] = None,
    agent: Socket = None,
) -> None:
    """Take a workload's interface away; its address cools down."""
    if node is not None:
        _remote().delete("workload", [name], [], "")
        return
    from routed.ctl.local import Local

    Local(agent or DEFAULT_SOCKET).detach(name)


@app.command()
def diags(
    to: Annotated[
        Path | None, typer.Option("--to", help="Default: routed-diags-HOST-TIME.tar.gz here.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="F", help="The agent's settings.")
    ] = None,
    log: Annotated[list[Path] | None, typer.Option(help="A log to take along; repeatable.")] = None,
) -> None:
    """Pack what somebody who helps would ask for into one archive, without secrets."""
    from datetime import datetime

    from routed.ctl import diags as archive
    from routed.settings import AgentSettings, load

    settings = load(AgentSettings, config, {})
    path = to or Path(f"routed-diags-{settings.node}-{datetime.now():%Y%m%d-%H%M%S}.tar.gz")
    admin = Globals.kubeconfig if Globals.kubeconfig and Globals.kubeconfig.exists() else None
    parts = archive.collect(settings, config, admin, log or [])
    try:
        archive.write(path, parts)
    except OSError as error:
        raise typer.BadParameter(f"--to {path}: cannot write it: {error.strerror}") from error
    typer.echo(f"{path}: {len(parts)} parts; look at it before you give it away")


@ipam.command("show")
def ipam_show(
    heat: Annotated[bool, typer.Option("--map", help="A cell a block, darker the fuller.")] = False,
) -> None:
    """Pools, their blocks, who owns them, and how full they are."""
    _remote().ipam_show(heat=heat)


@ipam.command("check")
def ipam_check(
    fix: Annotated[bool, typer.Option("--fix", help="Delete what nobody can be using.")] = False,
    agent: Socket = None,
    output: Annotated[str, typer.Option("-o", "--output", help="json.")] = "",
) -> None:
    """Whether pools, blocks, nodes, workloads and what agents say agree; on a host also whether its
    attachments, routes and announcements do, and the switches' tables as it receives them.

    Exit code 0: all agrees. 1: it does not, and is listed. 2: it could not be looked at.
    """
    from api.resources.errors import RoutedError
    from routed.ctl.local import Local

    if output not in ("", "json"):
        raise typer.BadParameter(f"-o {output!r} is not json")
    socket = agent or (DEFAULT_SOCKET if DEFAULT_SOCKET.exists() else None)
    here = Local(socket).addresses if socket else None
    try:
        agrees = _remote().ipam_check(here, fix=fix, output=output)
    except RoutedError as error:
        _told(error)
        raise typer.Exit(2) from error
    if not agrees:
        raise typer.Exit(1)


@ipam.command("release")
def ipam_release(
    what: Annotated[str, typer.Argument(help="A block, or an address in it.")],
    force: Forced = False,
    statement: Statement = "",
) -> None:
    """Ask a block's owner for it; with --force take it from a node that is off for good."""
    from routed.ctl.space import Force

    _remote().ipam_release(what, Force.of(statement, force=force))


@bgp.command("status")
def bgp_status(agent: Socket = None, output: Output = "") -> None:
    """The sessions of this host."""
    from routed.ctl.local import Local

    Local(agent or DEFAULT_SOCKET).bgp_status(output)


Node = Annotated[str | None, typer.Option("--node", help="Of this node.")]
User = Annotated[str | None, typer.Option("--user", help="Of this user.")]
To = Annotated[Path | None, typer.Option("--to", help="Write it to this file, mode 0600.")]


@token.command("create")
def token_create(
    node: Node = None,
    ttl: Annotated[str, typer.Option(help="How long a node's is good: 90s, 15m at most.")] = "15m",
    user: User = None,
    role: Annotated[str, typer.Option(help="admin, operator, viewer, or the name of a Role.")] = "",
    to: To = None,
) -> None:
    """Print a token that a node joins with, once; or a kubeconfig for a user in one role.

    What was made before for the same node or user stops to work.

        routectl token create --node host1 | ssh host1 routed join --node host1

        routectl token create --user alice --role viewer --to alice.kubeconfig
    """
    if (node is None) == (user is None) or (user is None) != (not role):
        raise typer.BadParameter("say --node NAME, or --user NAME with --role ROLE")
    if node is not None:
        _remote().bootstrap(node, _seconds(ttl), to)
    else:
        _remote().kubeconfig(f"users/{user}", {"role": role}, to)


@token.command("bearer")
def token_bearer(
    node: Annotated[str, typer.Option(help="The node that will use it.")], to: To = None
) -> None:
    """Print a kubeconfig with a token for a node that cannot use certificates: one behind a proxy
    that ends TLS. It does not expire; a node that can should `routed join`."""
    _remote().kubeconfig(f"nodes/{node}", {}, to)


@token.command("revoke")
def token_revoke(node: Node = None, user: User = None) -> None:
    """End all credentials of a node or a user at once; its open watches end too."""
    if (node is None) == (user is None):
        raise typer.BadParameter("say --node NAME or --user NAME")
    _remote().revoke(f"nodes/{node}" if node is not None else f"users/{user}")


@token.command("list")
def token_list() -> None:
    """Who has credentials, and in which role."""
    _remote().users()


def _seconds(text: str) -> int:
    """90s, 15m, 1h."""
    number, unit = text[:-1], {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    if unit is None or not (number.isascii() and number.isdigit()) or len(number) > 6:
        raise typer.BadParameter(f"--ttl {text!r} is not like 90s or 15m")
    return int(number) * unit


def _labels(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"--label {text!r} is not KEY=VALUE")
        found[key] = value
    return found


def main() -> None:
    """Entry point."""
    try:
        app()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except Exception as error:
        code = _told(error)
        if code is None:
            raise
        raise SystemExit(code) from None


def _told(error: Exception) -> int | None:
    """Say an error of ours and return its exit code; None for any other."""
    from api.resources.errors import ConfigError, IntentError, RoutedError

    if not isinstance(error, RoutedError):
        return None
    typer.echo(f"Error: {error}", err=True)
    if isinstance(error, IntentError) and error.reason == "Unauthorized":
        typer.echo("The credentials in the kubeconfig are not valid any more.", err=True)
    return 2 if isinstance(error, ConfigError) else 1


if __name__ == "__main__":
    main()
