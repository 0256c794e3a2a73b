"""provd, the control plane of a Proxmox homelab cluster."""

__version__ = "0.1.0"
