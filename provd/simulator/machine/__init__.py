"""A simulated bare-metal machine: firmware, iPXE, Proxmox installer, installed system with a real sshd."""
