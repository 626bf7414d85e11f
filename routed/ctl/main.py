"""The command line; what a command needs is imported when it runs, so `--help` is quick.

Exit codes: 0 done; 1 refused or out of reach; 2 wrong use, or a file with mistakes in it. An error
is one line on stderr, or one for each mistake, and what to do next.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from routed.ctl import argv, help
from routed.ctl.commands import access, host, nodes, people, policies, reading, writing
from routed.ctl.connection import Connection
from routed.ctl.invocation import Said

app = help.group(help.NAME, "Workloads, address pools and BGP peerings of routed.")
for commands in (reading, writing, host, nodes, policies, access, people):
    app.add_typer(commands.app, name=None)


@app.callback()
def common(
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            metavar="F",
            help="Instead of the files of $KUBECONFIG, else ~/.kube/config, else "
            "/etc/routed/admin.kubeconfig.",
        ),
    ] = None,
    context: Annotated[str, typer.Option(help="Of the kubeconfig; default: the current.")] = "",
    server: Annotated[
        str, typer.Option("-s", "--server", metavar="URL", help="Instead of the context's.")
    ] = "",
    certificate_authority: Annotated[
        Path | None, typer.Option(metavar="F", help="The CA to trust, instead of the context's.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="F", help="With a token, mode 0600; - for stdin.")
    ] = None,
    token: Annotated[str, typer.Option(hidden=True)] = "",
    insecure_skip_tls_verify: Annotated[bool, typer.Option(hidden=True)] = False,
    namespace: Annotated[str, typer.Option("-n", "--namespace", hidden=True)] = "",
) -> None:
    """Remember where the service is."""
    if token:
        raise typer.BadParameter(
            "--token: everybody on this host could read it just now; revoke it, make another, and "
            "say --token-file F"
        )
    if insecure_skip_tls_verify:
        raise typer.BadParameter(
            "--insecure-skip-tls-verify: whoever is in between would get your token; say "
            "--certificate-authority F, or `login SERVER --ca-pin PIN`"
        )
    Said.connection = Connection(kubeconfig, context, server, certificate_authority, token_file)


def main() -> None:
    """Entry point, of `kubectl-routed` too."""
    root, words = typer.main.get_command(app), sys.argv[1:]
    if words[:1] != ["__complete"]:
        words = argv.normal(words, _flags(root))
    try:
        root(words, prog_name=help.program())
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except Exception as error:
        code = _told(error)
        if code is None:
            raise
        raise SystemExit(code) from None


def _flags(root: Any) -> set[str]:
    """The options without a value, of all commands."""
    left: list[Any] = [root]
    found: set[str] = set()
    while left:
        command = left.pop()
        left += getattr(command, "commands", {}).values()
        options = (one for one in command.params if getattr(one, "is_flag", False))
        found |= {name.removeprefix("--") for one in options for name in one.opts}
    return found


def _told(error: Exception) -> int | None:
    """Say an error of ours and return its exit code; None for any other."""
    from api.resources.errors import ConfigError, RoutedError

    if not isinstance(error, RoutedError):
        return None
    from routed.ctl.hints import hints

    typer.echo(f"Error: {error}", err=True)
    for hint in hints(error):
        typer.echo(f"  {help.called(hint)}", err=True)
    return 2 if isinstance(error, ConfigError) else Said.failing


if __name__ == "__main__":
    main()
