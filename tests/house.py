"""The example's configuration, as a test without a network and without an image can use it."""

from pathlib import Path

from attrs import evolve

from provd.config import Config, PxeSection, load_config

EXAMPLES = Path(__file__).parents[1] / "deploy" / "examples"


def quiet_config(directory: Path, *, server_types: str | None = None) -> Config:
    """State in `directory`; neither DHCP nor TFTP, and the installer on another web server."""
    (directory / "provisioning.yaml").write_text((EXAMPLES / "provisioning.yaml").read_text())
    if server_types is None:
        server_types = (EXAMPLES / "server-types.yaml").read_text()
    (directory / "server-types.yaml").write_text(server_types)
    config = load_config(directory / "provisioning.yaml", {"STATE_DIRECTORY": str(directory / "state")})
    elsewhere = evolve(config.proxmox, installer_url="http://192.0.2.1/pve")
    return evolve(config, pxe=PxeSection(enabled=False), proxmox=elsewhere)
