"""Which machines stand in the lab."""

from attrs import frozen


@frozen(kw_only=True)
class Seat:
    """A machine of the lab. `register` is False for the one that nobody told the daemon about.

    One with a `hostname` is a member of the cluster from the start.
    """

    mac: str
    ip: str
    server_type: str
    register: bool
    hostname: str | None = None


SEATS = (
    Seat(mac="02:00:00:00:00:01", ip="127.77.0.11", server_type="nuc", register=True),
    Seat(mac="02:00:00:00:00:02", ip="127.77.0.12", server_type="gpu-node", register=True),
    Seat(mac="02:00:00:00:00:03", ip="127.77.0.13", server_type="nuc", register=False),
    Seat(mac="02:00:00:00:00:04", ip="127.77.0.3", server_type="nuc", register=True, hostname="pve3"),
)
