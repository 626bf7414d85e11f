"""`routed store`: backup, restore, migrate."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from api.auth.ca import write_secret
from api.resources.errors import Cause, ConfigError
from api.store import backup as backups
from api.store import transfer
from api.store.places import Place
from routed.settings import ServerSettings, load

app = typer.Typer(
    help="The control plane's store: backup, restore, migrate.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Config = Annotated[
    Path | None, typer.Option("--config", metavar="F", help="Settings of the control plane.")
]
DataDir = Annotated[Path | None, typer.Option(help="Its data (default /var/lib/routed).")]
Store = Annotated[str | None, typer.Option(help="sqlite:///PATH or etcd://HOST:PORT,HOST:PORT.")]


@app.command()
def backup(
    file: Path, config: Config = None, data_dir: DataDir = None, store: Store = None
) -> None:
    """Write what the store holds at this moment to FILE (0600). The control plane may be running.

    Example: routed store backup /var/backups/routed-$(date +%F).jsonl
    """
    if file.exists():
        raise ConfigError(f"backup {file}", [Cause("", "exists already")])
    held = asyncio.run(transfer.read(_settings(config, data_dir, store).place))
    try:
        write_secret(file, backups.render(held))
    except OSError as error:
        problem = f"cannot write it: {error.strerror}"
        raise ConfigError(f"backup {file}", [Cause("", problem)]) from error
    _say(held)


@app.command()
def restore(
    file: Path, config: Config = None, data_dir: DataDir = None, store: Store = None
) -> None:
    """Fill an empty store from FILE. Control planes are started on it afterwards.

    Example: routed store restore /var/backups/routed-2026-01-31.jsonl --data-dir /var/lib/routed
    """
    held = backups.parse(file)
    asyncio.run(transfer.restore(held, _settings(config, data_dir, store).place))
    _say(held)


@app.command()
def migrate(
    source: Annotated[str, typer.Option("--from", help="sqlite:///PATH or etcd://HOST:PORT,...")],
    target: Annotated[str, typer.Option("--to", help="The same; it must be empty.")],
    config: Config = None,
) -> None:
    """Move everything into another store, compared object by object. Stop the control planes first:
    one that has the file open is found out; those on an etcd cannot write any more.

    Example: routed store migrate --from sqlite:///var/lib/routed/routed.db --to etcd://127.0.0.1:2379
    """
    settings = load(ServerSettings, config, {})
    places = [_place(settings, "--from", source), _place(settings, "--to", target)]
    _say(asyncio.run(transfer.migrate(*places)))


def _settings(config: Path | None, data_dir: Path | None, store: str | None) -> ServerSettings:
    return load(ServerSettings, config, {"data_dir": data_dir, "store": store})


def _place(settings: ServerSettings, option: str, url: str) -> Place:
    try:
        return settings.place_of(url)
    except ValueError as error:
        raise ConfigError("the command line", [Cause(option, str(error))]) from error


def _say(held: backups.Backup) -> None:
    for kind, found in backups.sums(held.objects).items():
        typer.echo(f"{kind:<20} {found.count:>8}  sha256 {found.digest[:16]}")
