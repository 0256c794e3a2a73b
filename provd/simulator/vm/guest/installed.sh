# The installed system, from the initrd on: its files lie on the disk, over the host's root.
stage=system
say "starts"

disk=
for word in $(cat /proc/cmdline); do
    case "$word" in root=*) disk=$(findfs "${word#root=}") ;; esac
done
mkdir /run/provd/disk
# Whoever pulls the plug finds files with their content, as if everybody had used fsync.
mount -t ext4 -o nodelalloc,commit=1 "$disk" /run/provd/disk || stuck "there is no root file system"
cover_host /run/provd/disk/system /run/provd/disk/work

# At the host's own path, since a simulated cluster has paths in its documents.
cluster=$(setting cluster)
if [ -n "$cluster" ]; then
    mkdir -p "/system$cluster"
    mount -t 9p -o trans=virtio,version=9p2000.L,cache=none,msize=512000 cluster "/system$cluster" ||
        stuck "no 9p share cluster: start the machine with the lab's QEMU arguments"
fi

python provd.simulator.vm.installed "$cluster"
case $? in
    0) leave reboot ;;
    3) leave poweroff ;;
    *) stuck "stopped" ;;
esac
