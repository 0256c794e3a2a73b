"""Small stand-ins for Proxmox' ISOs: the same layout and marks, made-up contents."""

import io
import shutil
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path

import pycdlib

KERNEL = b"\x7fa kernel\n" * 5_000
INITRD = b"(\xb5/\xfdan initrd\n" * 9_000
XORRISO = shutil.which("xorriso")


def contents(product: str = "pve", release: str = "9.2", iso_release: str = "1") -> dict[str, bytes]:
    """The files of an ISO, by path."""
    names = {"pve": ("proxmox-ve", "Proxmox VE"), "pbs": ("proxmox-backup-server", "Proxmox Backup Server")}
    name, full_name = names[product]
    info = (
        f"RELEASE='{release}'\nISORELEASE='{iso_release}'\nISONAME='{name}'\n"
        f"PRODUCT='{product}'\nPRODUCTLONG='{full_name}'\n"
    )
    return {
        "/.cd-info": info.encode(),
        "/.pve-cd-id.txt": b"8f0e7f5a-6c3b-4c0e-9d6d-6c1f0f3a7a11\n",
        "/auto-installer-capable": b"",
        "/EULA": b"made up\n",
        "/efi.img": bytes(32_768),
        "/boot/linux26": KERNEL,
        "/boot/initrd.img": INITRD,
        "/boot/eltorito.img": b"not a boot loader".ljust(4096, b"\0"),
        "/proxmox/country.dat": b"at:Austria:de:\n",
        "/proxmox/packages/pve-manager_9.2.1_all.deb": b"!<arch>\n" * 500,
        "/proxmox/packages/libpve-a-rather-long-name-perl_1.2.3+deb13u1_amd64.deb": b"!<arch>\n",
        "/pve-base.squashfs": bytes(range(256)) * 2_000,
    }


def make_iso(
    path: Path,
    product: str = "pve",
    release: str = "9.2",
    iso_release: str = "1",
    *,
    without: Collection[str] = (),
    more: Mapping[str, bytes] | None = None,
    joliet: bool = False,
) -> Path:
    """An ISO with Rock Ridge names and an El Torito record; `more` adds files or replaces them."""
    files = {
        name: content
        for name, content in (contents(product, release, iso_release) | dict(more or {})).items()
        if name not in without
    }
    image = pycdlib.PyCdlib()
    image.new(interchange_level=3, rock_ridge="1.09", vol_ident="PVE", joliet=3 if joliet else None)
    made: dict[str, str] = {"": ""}
    for number, (name, content) in enumerate(files.items()):
        folder = ""
        for part in name.split("/")[1:-1]:
            parent, folder = folder, f"{folder}/{part}"
            if folder not in made:
                made[folder] = f"{made[parent]}/D{len(made):03}"
                image.add_directory(made[folder], rr_name=part, **({"joliet_path": folder} if joliet else {}))
        iso_path = f"{made[folder]}/F{number:05}.BIN;1"
        known = {"rr_name": name.rpartition("/")[2]} | ({"joliet_path": name} if joliet else {})
        image.add_fp(io.BytesIO(content), len(content), iso_path, **known)
        if name == "/boot/eltorito.img":
            image.add_eltorito(iso_path, bootcatfile="/BOOT.CAT;1", rr_bootcatname="boot.cat")
    image.add_symlink("/DEBIAN.;1", rr_symlink_name="debian", rr_path=".")
    image.write(str(path))
    image.close()
    return path


def make_hybrid_iso(path: Path, tree: Path, *, joliet: bool = False) -> Path:
    """As Proxmox makes it: xorriso, with GRUB's MBR, GPT, APM and HFS+ beside the ISO. Needs xorriso."""
    assert XORRISO is not None
    for name, content in contents().items():
        file = tree / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (tree / "debian").symlink_to(".")
    (tree / ".workdir").mkdir()
    boot_record = tree.parent / "iso.mbr"
    boot_record.write_bytes(bytes(range(256)) * 2)
    options = (
        *("-V", "PVE", "-hfsplus", "-iso-level", "3", "--grub2-mbr", boot_record, "-partition_offset", "0"),
        *("-partition_cyl_align", "off", "-apm-block-size", "2048", "-efi-boot-part", "--efi-boot-image"),
        *("-c", "boot/boot.cat", "-b", "boot/eltorito.img", "-no-emul-boot", "-boot-load-size", "4"),
        *("-boot-info-table", "--grub2-boot-info", "-eltorito-alt-boot", "-e", "efi.img", "-no-emul-boot"),
        *(("-J", "-joliet-long") if joliet else ()),
    )
    subprocess.run([XORRISO, "-as", "mkisofs", *options, "-o", path, tree], check=True, capture_output=True)
    return path
