"""What a simulated machine is made of: the part lists that an installer sees through udev and DMI.

Nothing here behaves. The property names are udev's; the values are those of machines that do not exist.
"""

from collections.abc import Mapping

from attrs import evolve, field, frozen

HOSTILE = 'O\'Brien "<b>&amp;</b>"\r\n<script>alert(1)</script> ${net0/mac} \x1b[31m'
"""A text that breaks whoever pastes it into a log line, a page, a shell word or an HTTP header."""


@frozen(kw_only=True)
class Disk:
    """One block device. `size` is in bytes; `name` is the kernel's, without `/dev/`."""

    name: str
    size: int
    serial: str
    model: str
    wwn: str | None = None

    @property
    def device(self) -> str:
        return f"/dev/{self.name}"

    @property
    def udev(self) -> dict[str, str]:
        """The properties a disk filter is matched against."""
        properties = {
            "DEVNAME": self.device,
            "DEVTYPE": "disk",
            "ID_MODEL": self.model.replace(" ", "_"),
            "ID_SERIAL": f"{self.model.replace(' ', '_')}_{self.serial}",
            "ID_SERIAL_SHORT": self.serial,
            "SUBSYSTEM": "block",
        }
        if not self.name.startswith("nvme"):  # NVMe devices carry neither of the two
            properties |= {"ID_BUS": "ata", "ID_TYPE": "disk"}
        if self.wwn is not None:
            properties["ID_WWN"] = self.wwn
        return properties


@frozen(kw_only=True)
class Nic:
    """One network link. `mac` is lower-case with colons, as the kernel prints it."""

    name: str
    mac: str
    driver: str = "igc"
    wired: bool = True

    @property
    def udev(self) -> dict[str, str]:
        """The properties a NIC filter is matched against."""
        prefix = "enx" if self.wired else "wlx"
        return {
            "ID_NET_DRIVER": self.driver,
            "ID_NET_NAME": self.name,
            "ID_NET_NAME_MAC": prefix + self.mac.replace(":", ""),
            "ID_NET_NAME_PATH": self.name,
            "INTERFACE": self.name,
            "SUBSYSTEM": "net",
        }


@frozen(kw_only=True)
class Lease:
    """What the LAN's DHCP server gives the machine. The installer freezes it into a static address."""

    cidr: str
    gateway: str
    dns: str
    hostname: str | None = None
    domain: str | None = None


@frozen(kw_only=True)
class Hardware:
    """A whole machine. The first NIC is the one it boots from and the one that holds the default route."""

    disks: tuple[Disk, ...]
    nics: tuple[Nic, ...] = field()
    lease: Lease
    system: Mapping[str, str]
    baseboard: Mapping[str, str]
    chassis: Mapping[str, str]
    cpu_model: str = "13th Gen Intel(R) Core(TM) i5-1340P"
    cores: int = 12
    threads: int = 16
    memory: int = 32 << 30

    @nics.validator
    def some_nic(self, attribute: object, value: tuple[Nic, ...]) -> None:
        if not value:
            raise ValueError("a machine that boots from the network has a NIC")


def nuc(mac: str, ip: str) -> Hardware:
    """A small box with one NVMe disk, a wired and a wireless NIC."""
    tail = mac.replace(":", "").upper()[-6:]
    return Hardware(
        disks=(
            Disk(
                name="nvme0n1",
                size=1_000_204_886_016,
                serial=f"S6B0NX{tail}",
                model="Samsung SSD 980 PRO 1TB",
                wwn=f"eui.002538{tail.lower()}0001",
            ),
        ),
        nics=(
            Nic(name="enp2s0", mac=mac),
            Nic(name="wlp0s20f3", mac=_sibling(mac), driver="iwlwifi", wired=False),
        ),
        lease=lease_of(ip),
        system={
            "name": "NUC13ANHi5",
            "serial": f"G6AN{tail}",
            "sku": "RNUC13ANHI50000",
            "uuid": f"9f1c2b00-5d3a-4c86-9be1-{mac.replace(':', '')}",
        },
        baseboard={"asset_tag": "", "name": "NUC13ANBi5", "serial": f"BTAN{tail}"},
        chassis={"asset_tag": "", "serial": "Default string", "sku": ""},
    )


def gpu_node(mac: str, ip: str) -> Hardware:
    """A tower with an NVMe disk to boot from, two SATA disks for data and two wired NICs."""
    small = nuc(mac, ip)
    tail = mac.replace(":", "").upper()[-6:]
    data = (
        Disk(
            name=name,
            size=4_000_787_030_016,
            serial=f"ZW6{number}{tail}",
            model="ST4000VN006 3CW104",
            wwn=f"0x5000c500{tail.lower()}{number:02x}",
        )
        for number, name in enumerate(("sda", "sdb"))
    )
    return evolve(
        small,
        disks=(*small.disks, *data),
        nics=(Nic(name="enp2s0", mac=mac, driver="r8169"), Nic(name="enp3s0", mac=_sibling(mac))),
        system=dict(small.system) | {"name": "To Be Filled By O.E.M.", "sku": "To Be Filled By O.E.M."},
        cpu_model="AMD Ryzen 9 7950X 16-Core Processor",
        cores=16,
        threads=32,
        memory=128 << 30,
    )


def lease_of(ip: str) -> Lease:
    """A lease as a home router hands it out: an address, itself as gateway and resolver, no host name."""
    gateway = ip.rpartition(".")[0] + ".1"
    return Lease(cidr=f"{ip}/24", gateway=gateway, dns=gateway)


def hostile(hardware: Hardware) -> Hardware:
    """The same machine with vendor strings and a further NIC name that nobody should trust."""
    evil = Nic(name=HOSTILE, mac="02:66:66:66:66:66", wired=False)
    return evolve(
        hardware,
        nics=(*hardware.nics, evil),
        system=dict(hardware.system) | {"name": HOSTILE, "serial": HOSTILE},
        baseboard=dict(hardware.baseboard) | {"asset_tag": HOSTILE},
        chassis=dict(hardware.chassis) | {"serial": HOSTILE},
    )


def _sibling(mac: str) -> str:
    """The address of the second NIC, in a range of its own so that it is never another machine's first."""
    octets = mac.split(":")
    return ":".join([f"{int(octets[0], 16) ^ 0x10:02x}", *octets[1:]])
