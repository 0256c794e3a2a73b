#!/bin/busybox sh
# The kernel's first process in a machine of the lab: devices, modules, and the host's root file system.
# What comes then is in /stage, one for the installer and one for the installed system.

/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /run /host /system
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=0755 run /run
mkdir -p /run/lock /run/sshd /run/provd/lease
cp /bin/busybox /run/provd/busybox
# Seen on the serial port whatever `console=` says.
exec </dev/null >/dev/ttyS0 2>&1

say() {
    echo "$stage: $*"
}

# Where the original opens a root shell: only the power switch leads on from here.
stuck() {
    say "$*"
    say "waits for somebody at its console"
    while :; do sleep 3600; done
}

# One of the settings that came with QEMU's arguments.
setting() {
    cat "/sys/firmware/qemu_fw_cfg/by_name/opt/provd/$1/raw" 2>/dev/null
}

# The names that systemd's udev gives (systemd.net-naming-scheme(7)): by hot-plug slot, or else by PCI path.
name_links() {
    for link in /sys/class/net/*; do
        [ -e "$link/device" ] || continue
        address=$(readlink -f "$link/device" | grep -oE '[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]' | tail -n 1)
        [ -n "$address" ] || continue
        device=${address#*:} function=${address#*.}
        device=${device%.*}
        name=enp$((0x${device%:*}))s$((0x${device#*:}))
        for slot in /sys/bus/pci/slots/*; do
            [ "$(cat "$slot/address" 2>/dev/null)" != "${address%.*}" ] || name=ens${slot##*/}
        done
        [ "$function" = 0 ] || name="${name}f$function"
        ip link set "${link##*/}" name "$name"
    done
}

# /system: the host's root, with all that is written going to $1.
cover_host() {
    mkdir -p "$1" "$2"
    mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 hostroot /host ||
        stuck "no 9p share hostroot: start the machine with the lab's QEMU arguments"
    mount -t overlay -o "lowerdir=/host,upperdir=$1,workdir=$2" overlay /system || stuck "cannot cover the host's root"
    for directory in dev proc sys run; do
        mkdir -p "/system/$directory"
        mount --rbind "/$directory" "/system/$directory"
    done
}

# Run a module of the checkout with the Python that built the lab.
python() {
    chroot /system /run/provd/busybox env -i \
        HOME=/root LANG=C.UTF-8 PYTHONPATH="$(setting project)" TERM=dumb \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        "$(setting python)" -u -m "$@"
}

# Everybody gets a moment to say goodbye, so that nobody waits at the other end of a connection.
leave() {
    say "$1"
    kill -TERM -1
    sleep 1
    kill -KILL -1
    sync
    echo u >/proc/sysrq-trigger
    "$1" -f
}

for module in /modules/*; do
    insmod "$module" || echo "init: cannot load $module"
done
name_links
. /stage
