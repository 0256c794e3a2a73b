# The installer, from the initrd on. Its order and its refusals are those of Proxmox VE's own init and
# unconfigured.sh (8.2 to 9.2); the Python part is provd.simulator.vm.installer.
stage=installer
say "starts"

mkdir /run/provd/iso
if [ ! -f /proxmox.iso ] || ! mount -t iso9660 -o ro,loop /proxmox.iso /run/provd/iso; then
    stuck "Installation aborted - no device with valid ISO found"
fi
if [ ! -s /run/provd/iso/.cd-info ] || [ ! -d /run/provd/iso/lab ]; then
    stuck "Installation aborted - /proxmox.iso is none of the lab's"
fi

automatic=no
for word in $(cat /proc/cmdline); do
    case "$word" in
        proxmox-start-auto-installer | proxauto) [ "$automatic" = tui ] || automatic=yes ;;
        proxmox-tui-mode | proxtui) automatic=tui ;;
    esac
done
[ "$automatic" = yes ] || stuck "the graphical installer waits for somebody to click"

mkdir /run/provd/scratch
mount -t tmpfs scratch /run/provd/scratch
cover_host /run/provd/scratch/upper /run/provd/scratch/work
rm -f /system/etc/resolv.conf

for link in /sys/class/net/*; do
    [ -e "$link/device" ] || continue
    ip link set "${link##*/}" up
    udhcpc -f -q -n -t 5 -T 2 -i "${link##*/}" -s /lease -O 250 >/dev/null 2>&1 &
done
python provd.simulator.vm.installer
case $? in
    0) leave reboot ;;
    3) leave poweroff ;;
    *) stuck "stopped" ;;
esac
