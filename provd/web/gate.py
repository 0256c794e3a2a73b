"""Skeleton: final signatures, body follows."""

from collections.abc import Collection

from attrs import frozen
from quart import Quart

from provd.store.database import Store


@frozen(kw_only=True)
class GateConfig:
    public_url: str
    """Its host is always allowed."""
    allowed_hosts: Collection[str] = ()
    """More names or addresses, with or without port (ports are not compared)."""
    auth: bool = True


def install(app: Quart, config: GateConfig, store: Store) -> None:
    """Checks before each request, headers after it, and the /sign-in and /sign-out pages.

    In handlers: g.actor (str), g.auth_off (bool). Bodies of guarded routes are already read and limited:
    `await request.get_data()` returns at once.
    """
    raise NotImplementedError


def unclassified(app: Quart) -> list[str]:
    """Rules that stand in no class (they are refused): call it when all routes are there, assert it is empty."""
    raise NotImplementedError
