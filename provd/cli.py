"""The commands. They start the daemon, or look after the files that it lives on."""

import argparse
import os
import pwd
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import trio

from provd import __version__, cluster_cli, daemon, doctor_cli, images_cli, journal, rehearse_cli
from provd.config import Config, describe, load_config, read_credential
from provd.credentials import credentials_dir, read_cluster_credentials
from provd.domain.errors import ConfigError, ProvdError, Refused, leaves_of
from provd.server_types import load_server_types
from provd.store.database import Store, open_store
from provd.web import access

EXIT_FAILED = 1
EXIT_CONFIG = 2
"""It is the files, not the program, that have to change."""

DEFAULT_CONFIG = Path("/etc/provd/provisioning.yaml")

Command = Callable[[Config, argparse.Namespace], None]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    errors: Sequence[Exception] = ()
    try:
        command: Command = options.command
        command(load_config(options.config, os.environ), options)
    except* (ProvdError, OSError) as group:
        errors = leaves_of(group)
    for error in errors:
        print(f"provd: {error}", file=sys.stderr)
    if not errors:
        return 0
    return EXIT_CONFIG if any(isinstance(error, ConfigError) for error in errors) else EXIT_FAILED


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="provd",
        description="Boots bare-metal machines over the network, installs Proxmox VE on them and joins "
        "them to the cluster.",
    )
    top.add_argument("--version", action="version", version=f"provd {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    token = commands.add_parser("token", help="tokens for the REST API")
    actions = token.add_subparsers(required=True, metavar="ACTION")

    add(commands.add_parser("serve", help="run the daemon, until SIGTERM or Ctrl-C"), serve)
    add(commands.add_parser("check-config", help="say what is in force, or what is wrong"), check_config)
    add(commands.add_parser("sign-in", help="print a link that signs a browser in, once"), sign_in)
    add(actions.add_parser("create", help="make a token and print it, this once"), create_token, "name")
    add(actions.add_parser("list", help="who has a token, and when it was used last"), list_tokens)
    doctor_cli.add_commands(commands, add)
    images_cli.add_commands(commands, add, open_state)
    cluster_cli.add_commands(commands, add, open_state)
    rehearse_cli.add_commands(commands, add, open_state)
    add(actions.add_parser("revoke", help="refuse a token from now on"), revoke_token, "name")
    return top


def add(one: argparse.ArgumentParser, command: Command, *names: str) -> None:
    for name in names:
        one.add_argument(name)
    one.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help=f"default: {DEFAULT_CONFIG}"
    )
    one.set_defaults(command=command)


def serve(config: Config, _: argparse.Namespace) -> None:
    must_be_ours(config.paths.state_dir)
    journal.set_up(sys.stderr, os.environ)
    trio.run(daemon.run, config, os.environ)


def check_config(config: Config, _: argparse.Namespace) -> None:
    credentials = credentials_dir(os.environ)
    read_cluster_credentials(config.credentials, credentials)
    read_credential(config.credentials.infrastructure_token_file, "infrastructure-token", credentials)
    types = load_server_types(config.paths.server_types)
    print(describe(config))
    print(f"{config.paths.server_types}: {len(types)} server types: {', '.join(sorted(types))}")


def sign_in(config: Config, _: argparse.Namespace) -> None:
    with open_state(config) as store:
        link = trio.run(access.create_sign_in_link, store, config.server.public_url)
    print(link.reveal())
    print("It signs one browser in, within a quarter of an hour.", file=sys.stderr)


def create_token(config: Config, options: argparse.Namespace) -> None:
    with open_state(config) as store:
        token = trio.run(access.create_token, store, options.name)
    print(token.reveal())
    print("Keep it now: provd stores only a hash of it.", file=sys.stderr)


def list_tokens(config: Config, _: argparse.Namespace) -> None:
    with open_state(config) as store:
        for token in access.list_tokens(store):
            used = f"{token.last_used_at:%Y-%m-%d %H:%M}" if token.last_used_at else "never"
            state = "revoked" if token.revoked_at else "valid"
            print(f"{token.name:30} {state:8} made {token.created_at:%Y-%m-%d %H:%M}  last used {used}")


def revoke_token(config: Config, options: argparse.Namespace) -> None:
    with open_state(config) as store:
        trio.run(access.revoke_token, store, options.name)
    print(f"{options.name} is refused from now on")


@contextmanager
def open_state(config: Config) -> Iterator[Store]:
    """The database, beside a daemon that may be running."""
    must_be_ours(config.paths.state_dir)
    with open_store(daemon.database_path(config)) as store:
        yield store


def must_be_ours(directory: Path) -> None:
    """Raise `Refused` for root where another user's state is: that user could not open what root writes.

    Nobody else needs such care; they fail at the first file.
    """
    if os.geteuid() != 0 or not directory.exists() or (uid := directory.stat().st_uid) == 0:
        return
    try:
        owner = pwd.getpwuid(uid).pw_name
    except KeyError:
        owner = f"#{uid}"
    as_owner = shlex.join(["runuser", "-u", owner, "--", "provd", *sys.argv[1:]])
    raise Refused(f"{directory} belongs to {owner}, who cannot open what root writes there; run {as_owner}")
