"""Who one is, where the service is, and how a shell helps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from routed.ctl.commands.options import Header, Output, seconds
from routed.ctl.help import group, verb
from routed.ctl.invocation import connection

app = group()
token = group("token", "Credentials that an administrator makes.")
auth = group("auth", "Who you are, and what you may do.")
config = group("config", "Contexts of the kubeconfig.")
app.add_typer(token)
app.add_typer(auth)
app.add_typer(config)

Node = Annotated[str | None, typer.Option("--node", help="Of this node.")]
User = Annotated[str | None, typer.Option("--user", help="Of this user.")]
To = Annotated[Path | None, typer.Option("--to", help="Write it to this file, mode 0600.")]


@verb(
    app,
    f"routectl login cp.example:6780 --ca-pin sha256:{'4b1f' * 16} --token-file alice.token",
    "routectl login https://192.0.2.1:6780 --certificate-authority ca.crt",
)
def login(
    server: Annotated[str, typer.Argument(metavar="SERVER", help="HOST, HOST:PORT or a URL.")],
    ca_pin: Annotated[
        str, typer.Option("--ca-pin", metavar="PIN", help="sha256:..., as cluster-info prints it.")
    ] = "",
    name: Annotated[
        str, typer.Option("--name", help="Of the context; default USER@HOST:PORT.")
    ] = "",
) -> None:
    """Write a context into the kubeconfig and use it. The token comes from --token-file (0600; -
    for stdin), from stdin, or is asked for; the CA is believed by its pin."""
    from routed.ctl.login import login as written

    here = connection()
    typer.echo(
        written(
            here.files(new=True), server, pin=ca_pin, ca_file=here.ca_file,
            token_file=here.token_file, name=name,
        )
    )  # fmt: skip


@verb(app, "routectl logout", "routectl logout alice@cp.example:6780")
def logout(
    context: Annotated[str, typer.Argument(metavar="[CONTEXT]", help="Default: the current.")] = "",
) -> None:
    """Take a context and its credentials out of the kubeconfig."""
    from routed.ctl.login import logout as removed

    here = connection()
    typer.echo(removed(here.files(), context or here.context))


@verb(
    token,
    "routectl token create --node host1 | ssh host1 routed join --node host1",
    "routectl token create --user alice --role viewer --to alice.kubeconfig",
    "routectl token create --user alice --role viewer -o token --to alice.token",
)
def create(
    node: Node = None,
    ttl: Annotated[str, typer.Option(help="How long a node's is good: 90s, 15m at most.")] = "15m",
    user: User = None,
    role: Annotated[str, typer.Option(help="admin, operator, viewer, or the name of a Role.")] = "",
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="kubeconfig|token", help="Of a user.")
    ] = "kubeconfig",
    to: To = None,
) -> None:
    """Print a token that a node joins with, once; or a kubeconfig for a user in one role.

    What was made before for the same node or user stops to work.
    """
    if (node is None) == (user is None) or (user is None) != (not role):
        raise typer.BadParameter("say --node NAME, or --user NAME with --role ROLE")
    if output not in ("kubeconfig", "token"):
        raise typer.BadParameter(f"-o {output!r} is neither kubeconfig nor token")
    from routed.ctl import credentials

    if node is not None:
        whole = seconds(ttl, "--ttl")
        credentials.bootstrap(connection(), node, int(whole), to)
    else:
        bare = output == "token"
        credentials.kubeconfig(connection(), f"users/{user}", {"role": role}, to, bare=bare)


@verb(token, "routectl token bearer --node host1 --to host1.kubeconfig")
def bearer(
    node: Annotated[str, typer.Option(help="The node that will use it.")], to: To = None
) -> None:
    """Print a kubeconfig with a token for a node that cannot use certificates: one behind a proxy
    that ends TLS. It does not expire; a node that can should `routed join`."""
    from routed.ctl import credentials

    credentials.kubeconfig(connection(), f"nodes/{node}", {}, to)


@verb(token, "routectl token revoke --user alice", "routectl token revoke --node host1")
def revoke(node: Node = None, user: User = None) -> None:
    """End all credentials of a node or a user at once; its open watches end too."""
    if (node is None) == (user is None):
        raise typer.BadParameter("say --node NAME or --user NAME")
    from routed.ctl import credentials

    credentials.revoke(connection(), f"nodes/{node}" if node is not None else f"users/{user}")


@verb(token, "routectl token list", name="list")
def list_() -> None:
    """Who has credentials, and in which role."""
    from routed.ctl import credentials

    credentials.users(connection())


@verb(auth, "routectl auth whoami")
def whoami() -> None:
    """Say who the service takes you for."""
    from routed.ctl import reviews

    reviews.whoami(connection())


@verb(
    auth,
    "routectl auth can-i create workloads",
    "routectl auth can-i delete node/host1",
    "routectl auth can-i --list",
    name="can-i",
)
def can_i(
    words: Annotated[list[str] | None, typer.Argument(metavar="VERB KIND[/NAME]")] = None,
    listed: Annotated[bool, typer.Option("--list", help="All that you may do.")] = False,
    subresource: Annotated[str, typer.Option(metavar="status", help="Of this part.")] = "",
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="The exit code alone.")] = False,
) -> None:
    """Whether you may do something: yes and exit code 0, or no and 1."""
    from routed.ctl import reviews

    if listed:
        reviews.all_i_can(connection())
        return
    if not words or len(words) not in (2, 3):
        raise typer.BadParameter("say VERB KIND, VERB KIND/NAME, or --list")
    what = "/".join(words[1:])
    if not reviews.can_i(connection(), words[0], what, subresource=subresource, quiet=quiet):
        raise typer.Exit(1)


@verb(
    config,
    "routectl config get-contexts",
    "routectl config get-contexts -o name",
    name="get-contexts",
)
def get_contexts(output: Output = "", no_headers: Header = False) -> None:
    """List the contexts; a star marks the current one."""
    from routed.ctl import configuring

    typer.echo(configuring.contexts(connection().files(), output, header=not no_headers))


@verb(config, "routectl config current-context", name="current-context")
def current_context() -> None:
    """Print the current context's name."""
    from routed.ctl import configuring

    typer.echo(configuring.current(connection().files()))


@verb(config, "routectl config use-context alice@cp.example:6780", name="use-context")
def use_context(name: Annotated[str, typer.Argument(metavar="CONTEXT")]) -> None:
    """Make a context the current one."""
    from routed.ctl import configuring

    typer.echo(configuring.use(connection().files(), name))


@verb(config, "routectl config delete-context alice@cp.example:6780", name="delete-context")
def delete_context(name: Annotated[str, typer.Argument(metavar="CONTEXT")]) -> None:
    """Take a context away; its user and its cluster stay (`logout` takes them too)."""
    from routed.ctl import configuring

    typer.echo(configuring.remove(connection().files(), name))


@verb(config, "routectl config view", "routectl config view --minify -o json")
def view(
    output: Output = "",
    minify: Annotated[bool, typer.Option("--minify", help="Of the context in use alone.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="With secrets.")] = False,
) -> None:
    """Show what the kubeconfig files say together, without secrets."""
    from routed.ctl import configuring

    here = connection()
    typer.echo(configuring.view(here.files(), here.context, output, minify=minify, raw=raw))


@verb(
    app,
    "source <(routectl completion bash)",
    "routectl completion zsh > ~/.zfunc/_routectl",
    "routectl completion fish | source",
)
def completion(shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish")]) -> None:
    """Print what makes a shell complete commands, kinds, names and contexts."""
    from routed.ctl.shells import SCRIPTS

    if shell not in SCRIPTS:
        raise typer.BadParameter(f"{shell!r} is none of {', '.join(SCRIPTS)}")
    typer.echo(SCRIPTS[shell], nl=False)


@app.command(
    "__complete",
    hidden=True,
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def complete(context: typer.Context) -> None:
    """Asked by the shells; never by people."""
    from routed.ctl import completion

    typer.echo(completion.complete(completion.root(), context.args))


def plugin() -> None:
    """`kubectl_complete-routed`: kubectl asks it what completes `kubectl routed`."""
    from routed.ctl import completion

    typer.echo(completion.complete(completion.root(), sys.argv[1:]))
