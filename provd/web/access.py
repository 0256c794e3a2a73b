"""Skeleton: final signatures, body follows."""

from datetime import timedelta

from provd.domain.secrets import Secret
from provd.store.access import Token
from provd.store.database import Store


async def create_token(store: Store, name: str) -> Secret:
    """`provd_<43 characters>`. Raises Invalid, Conflict."""
    raise NotImplementedError


async def accept_token(store: Store, name: str, token: Secret) -> bool:
    """Make a token known that was given in the environment; False: it was revoked and stays so."""
    raise NotImplementedError


def list_tokens(store: Store) -> list[Token]:
    raise NotImplementedError


async def revoke_token(store: Store, name: str) -> None:
    """Raises NotFound."""
    raise NotImplementedError


async def create_sign_in_link(
    store: Store, public_url: str, lifetime: timedelta = timedelta(minutes=15)
) -> Secret:
    """The URL, good for one sign-in. A Secret: reveal() it where it is printed."""
    raise NotImplementedError
