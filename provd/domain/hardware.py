"""What a machine told of its hardware, in its own words, when it was installed last.

Its NICs come with the question for an answer, its disks with the report of a finished installation:
no installer up to 9.2 tells its disks before it has wiped them, and none tells how large they are.
All of it are a stranger's texts. They help to warn; they prove nothing.
"""

from attrs import frozen

from provd.domain.hosts import Mac
from provd.domain.installation import disk_property


@frozen
class Link:
    """A network link as the installer's kernel names it. The name is a stranger's text."""

    name: str
    mac: Mac


@frozen(kw_only=True)
class Disk:
    """A disk, by what udev says of it; empty where it says nothing."""

    device: str
    """`/dev/nvme0n1`"""
    model: str = ""
    serial: str = ""
    """As short as it is printed on the disk."""
    serial_id: str = ""
    """udev's ID_SERIAL, which links like ata-… are made of."""
    wwn: str = ""
    wwn_id: str = ""
    """udev's ID_WWN_WITH_EXTENSION, which links like wwn-… are made of."""

    def is_called(self, name: str) -> bool:
        """Whether a plan's `name` of a disk, a device or a link in /dev/disk/by-id, means this one."""
        named = disk_property(name)
        if named is None:
            return name == self.device
        key, value = named
        said = {"ID_SERIAL": self.serial_id, "ID_WWN": self.wwn, "ID_WWN_WITH_EXTENSION": self.wwn_id}
        return said.get(key) == value

    @property
    def described(self) -> str:
        """`/dev/sda (WDC WD40EFRX, serial WX1)`"""
        about = [self.model, f"serial {self.serial}" if self.serial else ""]
        inside = ", ".join(word for word in about if word)
        return f"{self.device} ({inside})" if inside else self.device


@frozen(kw_only=True)
class Hardware:
    identity: str
    """The same for the same machine: what is known of another one does not count."""
    product: str
    """What the firmware calls the machine, e.g. `NUC11TNHi5`."""
    installer: tuple[int, int]
    """The release of the installer that asked last, e.g. (9, 2)."""
    links: tuple[Link, ...]
    disks: tuple[Disk, ...] | None = None
    """None: this machine has not finished an installation yet, so nobody knows."""

    def describe_disk(self, name: str) -> str:
        """What a plan calls `name`, with model and serial number where this machine told them."""
        disk = next((disk for disk in self.disks or () if disk.is_called(name)), None)
        if disk is None:
            return name
        return disk.described if disk.device == name else f"{name}, last seen as {disk.described}"

    def link_of(self, name: str | None, boot_mac: Mac) -> Link | None:
        """The link that a plan calls `name`; without a name, the one that the host is registered with."""
        return next(
            (
                link
                for link in self.links
                if (link.name == name if name is not None else link.mac == boot_mac)
            ),
            None,
        )
