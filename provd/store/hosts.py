"""The hosts, and the machines that were only seen."""

import json
import sqlite3
from collections.abc import Iterable
from datetime import datetime
from ipaddress import ip_address

from provd.domain.errors import Conflict, NotFound
from provd.domain.hosts import Host, HostId, HostOptions, IPAddress, Mac, Sighting
from provd.domain.lifecycle import State
from provd.store.convert import options_from_json, options_to_json
from provd.store.database import Db, moment, optional_moment, timestamp

SIGHTINGS_KEPT = 256
"""A stranger can make up MACs faster than anyone can read them. As many again of those that an operator
ignores: neither kind pushes out the other."""

_HOST = """
    SELECT h.id, hostname, mac, server_type, options, state, state_since, registered_at, ip, hardware_id,
           memory_mib,
           EXISTS (SELECT 1 FROM registrations AS r WHERE r.host_id = h.id) AS inventory_pending,
           (SELECT expires_at FROM retries AS r WHERE r.host_id = h.id) AS retry_until
      FROM hosts AS h
"""


def register(db: Db, hostname: str, mac: Mac, server_type: str, options: HostOptions, at: datetime) -> Host:
    """Raises `Conflict` naming the host that has the MAC or the name already."""
    taken = db.execute(
        "SELECT hostname, mac FROM hosts WHERE mac = ? OR hostname = ?", (str(mac), hostname)
    ).fetchone()
    if taken is not None:
        what = f"MAC {mac}" if taken["mac"] == str(mac) else f"host name {hostname}"
        raise Conflict(f"the {what} belongs to host {taken['hostname']} ({taken['mac']}) already")
    cursor = db.execute(
        """INSERT INTO hosts (hostname, mac, server_type, options, state, state_since, registered_at)
           VALUES (?, ?, ?, ?, ?, ?, ?)""",
        (
            hostname,
            str(mac),
            server_type,
            options_to_json(options),
            State.REGISTERED,
            timestamp(at),
            timestamp(at),
        ),
    )
    db.execute("DELETE FROM sightings WHERE mac = ?", (str(mac),))
    return get(db, HostId(cursor.lastrowid or 0))


def get(db: Db, host_id: HostId) -> Host:
    row = db.execute(f"{_HOST} WHERE h.id = ?", (host_id,)).fetchone()
    if row is None:
        raise NotFound(f"there is no host {host_id}")
    return _host(row)


def named(db: Db, hostname: str) -> Host:
    row = db.execute(f"{_HOST} WHERE hostname = ?", (hostname,)).fetchone()
    if row is None:
        known = ", ".join(sorted(hostnames(db))) or "none at all"
        raise NotFound(f"there is no host {hostname!r}; there are: {known}")
    return _host(row)


def find_by_mac(db: Db, macs: Iterable[Mac]) -> list[Host]:
    """Every host that has one of `macs`, without repetition."""
    marks = [str(mac) for mac in macs]
    rows = db.execute(f"{_HOST} WHERE mac IN ({','.join('?' * len(marks))}) ORDER BY h.id", marks)
    return [_host(row) for row in rows]


def everyone(db: Db) -> list[Host]:
    return [_host(row) for row in db.execute(f"{_HOST} ORDER BY hostname COLLATE NOCASE")]


def hostnames(db: Db) -> set[str]:
    return {row["hostname"].lower() for row in db.execute("SELECT hostname FROM hosts")}


def set_state(db: Db, host_id: HostId, state: State, at: datetime) -> None:
    db.execute("UPDATE hosts SET state = ?, state_since = ? WHERE id = ?", (state, timestamp(at), host_id))


def set_options(db: Db, host_id: HostId, options: HostOptions) -> None:
    db.execute("UPDATE hosts SET options = ? WHERE id = ?", (options_to_json(options), host_id))


def set_address(
    db: Db, host_id: HostId, ip: IPAddress, hardware_id: str, memory_mib: int | None = None
) -> None:
    """What the host said of itself when it called home; an older script does not tell its memory."""
    db.execute(
        """UPDATE hosts SET ip = ?, hardware_id = ?, memory_mib = coalesce(?, memory_mib) WHERE id = ?""",
        (str(ip), hardware_id, memory_mib, host_id),
    )


def set_host_keys(db: Db, host_id: HostId, keys: tuple[str, ...]) -> None:
    db.execute("UPDATE hosts SET host_keys = ? WHERE id = ?", (json.dumps(keys), host_id))


def host_keys(db: Db, host_id: HostId) -> tuple[str, ...]:
    """The SSH host keys that the present installation has told us, in OpenSSH's one-line form."""
    row = db.execute("SELECT host_keys FROM hosts WHERE id = ?", (host_id,)).fetchone()
    return tuple(json.loads(row["host_keys"])) if row is not None else ()


def remove(db: Db, host_id: HostId) -> None:
    db.execute("DELETE FROM hosts WHERE id = ?", (host_id,))


def note_sighting(db: Db, mac: Mac, address: str, via: str, at: datetime, firmware: str = "") -> bool:
    """Remember that an unregistered machine made itself heard; True when it is a new face.

    Without `firmware` what was known of that stays.
    """
    seen = db.execute("SELECT 1 FROM sightings WHERE mac = ?", (str(mac),)).fetchone()
    db.execute(
        """INSERT INTO sightings (mac, address, via, first_seen, last_seen, times, firmware)
           VALUES (:mac, :address, :via, :at, :at, 1, :firmware)
           ON CONFLICT (mac) DO UPDATE
              SET address = :address, via = :via, last_seen = :at, times = times + 1,
                  firmware = CASE :firmware WHEN '' THEN firmware ELSE :firmware END""",
        {"mac": str(mac), "address": address, "via": via, "at": timestamp(at), "firmware": firmware},
    )
    _forget_the_silent(db, mac)
    return seen is None


def ignore_sighting(db: Db, mac: Mac, ignored: bool) -> bool:
    """Whether that is news. Raises `NotFound` for a machine that was never heard, or is registered by now."""
    row = db.execute("SELECT ignored FROM sightings WHERE mac = ?", (str(mac),)).fetchone()
    if row is None:
        raise NotFound(f"no unknown machine {mac} was heard")
    db.execute("UPDATE sightings SET ignored = ? WHERE mac = ?", (ignored, str(mac)))
    _forget_the_silent(db, mac)
    return bool(row["ignored"]) is not ignored


def _forget_the_silent(db: Db, present: Mac) -> None:
    """Of too many of a kind, those silent longest; never the one that this is about."""
    db.execute(
        """DELETE FROM sightings WHERE mac IN
                  (SELECT mac FROM
                          (SELECT mac, row_number() OVER (PARTITION BY ignored
                                       ORDER BY mac = :present DESC, last_seen DESC, mac) AS place
                             FROM sightings)
                    WHERE place > :kept)""",
        {"present": str(present), "kept": SIGHTINGS_KEPT},
    )


def sightings(db: Db) -> list[Sighting]:
    rows = db.execute("SELECT * FROM sightings ORDER BY last_seen DESC, mac")
    return [
        Sighting(
            mac=Mac(row["mac"]),
            address=row["address"],
            via=row["via"],
            first_seen=moment(row["first_seen"]),
            last_seen=moment(row["last_seen"]),
            times=row["times"],
            firmware=row["firmware"],
            ignored=bool(row["ignored"]),
        )
        for row in rows
    ]


def _host(row: sqlite3.Row) -> Host:
    return Host(
        id=HostId(row["id"]),
        hostname=row["hostname"],
        mac=Mac(row["mac"]),
        server_type=row["server_type"],
        options=options_from_json(row["options"]),
        state=State(row["state"]),
        state_since=moment(row["state_since"]),
        registered_at=moment(row["registered_at"]),
        ip=ip_address(row["ip"]) if row["ip"] else None,
        hardware_id=row["hardware_id"],
        memory_mib=row["memory_mib"],
        inventory_pending=bool(row["inventory_pending"]),
        retry_until=optional_moment(row["retry_until"]),
    )
