"""Scripts for the login shell at the other end of an SSH connection.

PROVD_ROOT is a prefix for the paths in them, so that they can run inside a directory; on a real node
it is empty.
"""

from shlex import quote


def shell(script: str, *values: str) -> str:
    """`values` are $1, $2, … of `script`. The login shell only has to know quotes; it need not be POSIX."""
    return " ".join(["sh", "-c", quote(script), "provd", *map(quote, values)])
