"""The inside of a lab's virtual machine: an installer ISO like Proxmox VE's, and the system it installs.

Real firmware boots it, a real kernel runs it, and its root file system is a part of the host's own, shared
read-only and covered with an overlay. So the machine has the host's Python, curl and sshd, and this checkout,
but no home and no secret of the host's.

`iso` builds the ISO, `shown` what a machine sees of the host, `qemu` says how to start it: these run on the
host. `installer` and `installed` run in the machine; the scripts in `guest/` lead there from the kernel's
first process.
"""
