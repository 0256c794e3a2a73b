"""What each host's machine told of its hardware. One row per host: the last word counts."""

import json
from datetime import datetime

import attrs
import cattrs
from attrs import evolve, frozen

from provd.domain.hardware import Disk, Hardware
from provd.domain.hosts import HostId, Mac
from provd.store.database import Db, moment, timestamp

_converter = cattrs.Converter()
_converter.register_structure_hook(Mac, lambda text, _: Mac(text))


@frozen
class Reported:
    hardware: Hardware
    at: datetime


def get(db: Db, host_id: HostId) -> Reported | None:
    """None: the machine was never installed by provd, or by one that did not remember."""
    row = db.execute("SELECT report, reported_at FROM hardware WHERE host_id = ?", (host_id,)).fetchone()
    if row is None:
        return None
    return Reported(_converter.structure(json.loads(row["report"]), Hardware), moment(row["reported_at"]))


def keep(db: Db, host_id: HostId, hardware: Hardware, at: datetime) -> None:
    """A machine that asks for its answer. Its disks stay known where it is the one that told them."""
    before = get(db, host_id)
    if hardware.disks is None and before is not None and before.hardware.identity == hardware.identity:
        hardware = evolve(hardware, disks=before.hardware.disks)
    _write(db, host_id, hardware, at)


def keep_disks(db: Db, host_id: HostId, disks: tuple[Disk, ...], at: datetime) -> None:
    """The same machine has been installed, and tells its disks."""
    if (before := get(db, host_id)) is not None:
        _write(db, host_id, evolve(before.hardware, disks=disks), at)


def _write(db: Db, host_id: HostId, hardware: Hardware, at: datetime) -> None:
    document = attrs.asdict(hardware, value_serializer=lambda _, __, value: _plain(value))
    db.execute(
        """INSERT INTO hardware (host_id, reported_at, report) VALUES (?, ?, ?)
           ON CONFLICT (host_id)
           DO UPDATE SET reported_at = excluded.reported_at, report = excluded.report""",
        (host_id, timestamp(at), json.dumps(document, ensure_ascii=False)),
    )


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Mac) else value
