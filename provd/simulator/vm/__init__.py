"""The inside of a lab's virtual machine: an installer ISO like Proxmox VE's, and the system it installs.

Real firmware boots it, a real kernel runs it, and its root file system is the host's own, shared read-only
and covered with an overlay. So the machine has the host's Python, curl and sshd, and this checkout. Whoever
has root in such a machine can read what its QEMU can read on the host: keep its network apart.

`iso` builds the ISO, `qemu` says how to start a machine; both run on the host. `installer` and `installed`
run in the machine; the scripts in `guest/` lead there from the kernel's first process.
"""
