#!/bin/sh
# First boot of a machine that provd installed: let provd in, tidy up, call home.
#
# The installer's unit runs this again at each boot until it ends with 0, so every step looks before
# it acts and none of them can end the script: no `set -e`, no `set -u`. Output goes to
# `journalctl -u proxmox-first-boot`. PROVD_ROOT is a prefix for all paths and programs of the system,
# so that the script can run inside a directory; on a real machine it is empty.

phone_home_url=@PHONE_HOME_URL@
token=@TOKEN@
key_options=@KEY_OPTIONS@
key_line=@KEY_LINE@
key_body=@KEY_BODY@
gpu=@GPU@
default_hostname=@HOSTNAME@

root="${PROVD_ROOT:-}"
stored="$root/var/lib/proxmox-first-boot/proxmox-first-boot"
umask 077

say() {
    printf 'provd: %s\n' "$*" >&2
}

# A program of the system, if the system has it.
system() {
    for directory in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin; do
        if [ -x "$root$directory/$1" ]; then
            program="$root$directory/$1"
            shift
            "$program" "$@"
            return
        fi
    done
    return 127
}

# Standard input becomes the content of $1, whole or not at all; an existing file keeps its mode.
replace() {
    mkdir -p -- "${1%/*}" || return 1
    if [ -e "$1" ]; then
        cp -p -- "$1" "$1.provd-new" || return 1
    fi
    cat >"$1.provd-new" && mv -f -- "$1.provd-new" "$1"
}

# --- provd's key ---------------------------------------------------------------------------------
# Into the file that only this node has. pve-cluster moves authorized_keys into /etc/pve, and a join
# may carry it from there to every node of the cluster.

let_provd_in() {
    keys="$root/root/.ssh/authorized_keys2"
    wanted="$key_options $key_line"
    mkdir -p "$root/root/.ssh" || return 1
    chmod 0700 "$root/root/.ssh"
    if [ -f "$keys" ] && grep -qxF -- "$wanted" "$keys"; then
        return 0
    fi
    {
        [ -f "$keys" ] && grep -vF -- "$key_body" "$keys"
        printf '%s\n' "$wanted"
    } | replace "$keys" && chmod 0600 "$keys"
}

# --- the kernel's command line -------------------------------------------------------------------

boot_loader_changed=no

# The installer copies the words of its own command line into the new system; initrd= would send the
# boot loader after a file that is not there.
forget_initrd() {
    for file in "$root/etc/kernel/cmdline" "$root/etc/default/grub" "$root"/etc/default/grub.d/*.cfg; do
        [ -f "$file" ] || continue
        sed -E '/^[[:blank:]]*#/!{
            :again
            s/(^|[[:blank:]"'\''])initrd=[^[:blank:]"'\'']*[[:blank:]]*/\1/
            t again
        }' "$file" >"$file.provd-sed"
        if [ -s "$file.provd-sed" ] && ! cmp -s "$file" "$file.provd-sed"; then
            replace "$file" <"$file.provd-sed" && boot_loader_changed=yes && say "removed initrd= from $file"
        fi
        rm -f "$file.provd-sed"
    done
}

iommu_words() {
    if grep -q GenuineIntel "$root/proc/cpuinfo" 2>/dev/null; then
        echo intel_iommu=on iommu=pt
    else
        echo iommu=pt
    fi
}

# Devices for virtual machines: IOMMU on, vfio loaded.
prepare_gpu() {
    modules="$root/etc/modules-load.d/provd-vfio.conf"
    content='vfio
vfio_iommu_type1
vfio_pci'
    if [ "$(cat "$modules" 2>/dev/null)" != "$content" ]; then
        printf '%s\n' "$content" | replace "$modules" && chmod 0644 "$modules"
        system update-initramfs -u -k all || say "update-initramfs failed"
    fi
    for module in $content; do
        system modprobe "$module" || say "cannot load $module now"
    done

    grub="$root/etc/default/grub.d/provd-iommu.cfg"
    # shellcheck disable=SC2016  # expanded by grub-mkconfig
    content="$(printf 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT %s"' "$(iommu_words)")"
    if [ -d "$root/etc/default" ] && [ "$(cat "$grub" 2>/dev/null)" != "$content" ]; then
        printf '%s\n' "$content" | replace "$grub" && chmod 0644 "$grub" && boot_loader_changed=yes
    fi

    cmdline="$root/etc/kernel/cmdline"
    [ -f "$cmdline" ] || return 0
    line="$(head -n 1 "$cmdline")"
    for word in $(iommu_words); do
        case " $line " in
            *" $word "*) ;;
            *) line="$line $word" ;;
        esac
    done
    if [ "$line" != "$(head -n 1 "$cmdline")" ]; then
        printf '%s\n' "$line" | replace "$cmdline" && boot_loader_changed=yes
    fi
}

refresh_boot_loader() {
    [ "$boot_loader_changed" = yes ] || return 0
    system update-grub || say "update-grub failed"
    # Present where proxmox-boot-tool keeps the boot partitions (ZFS, systemd-boot).
    if [ -s "$root/etc/kernel/proxmox-boot-uuids" ]; then
        system proxmox-boot-tool refresh || say "proxmox-boot-tool refresh failed"
    fi
}

# True when the running kernel was not started with the words it shall have.
reboot_needed() {
    [ "$gpu" = yes ] || return 1
    for word in $(iommu_words); do
        grep -qwF -- "$word" "$root/proc/cmdline" 2>/dev/null || return 0
    done
    return 1
}

# provd restarts the host before it joins. Asked for once, and in /run, which a restart empties.
ask_for_restart() {
    asked="${stored%/*}/provd-restart-asked"
    if reboot_needed && [ ! -e "$asked" ]; then
        mkdir -p "${asked%/*}" "$root/run" && : >"$asked" && : >"$root/run/provd-restart-wanted"
    fi
}

# --- the call home -------------------------------------------------------------------------------

# What /etc/network/interfaces says of vmbr0: the first word behind $1.
bridge() {
    awk -v key="$1" '
        $1 == "iface" { inside = ($2 == "vmbr0") }
        inside && $1 == key { print $2; exit }
    ' "$root/etc/network/interfaces" 2>/dev/null
}

# The installer writes the address down even when it came from DHCP.
own_address() {
    address="$(bridge address)"
    if [ -z "$address" ]; then # no packet is sent: this asks the routing table
        address="$(ip -4 -o route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p')"
    fi
    printf '%s' "${address%%/*}"
}

# Names the machine where its firmware has no UUID: the NIC under the bridge.
own_mac() {
    cat "$root/sys/class/net/$(bridge bridge-ports)/address" 2>/dev/null ||
        cat "$root/sys/class/net/vmbr0/address" 2>/dev/null
}

# A JSON string. What the values here may not contain anyway is dropped: nothing is left to escape.
json_string() {
    printf '"%s"' "$(printf '%s' "$1" | LC_ALL=C tr -cd 'A-Za-z0-9 ._:/@+=-')"
}

host_keys() {
    separator=''
    for file in "$root"/etc/ssh/ssh_host_*_key.pub; do
        [ -r "$file" ] || continue
        algorithm='' body=''
        read -r algorithm body _ <"$file" || [ -n "$body" ] || continue
        printf '%s' "$separator"
        json_string "$algorithm $body"
        separator=','
    done
}

# In MiB, as the kernel counts it: a little less than what is plugged in.
own_memory() {
    awk '$1 == "MemTotal:" { printf "%d", $2 / 1024 }' "$root/proc/meminfo" 2>/dev/null
}

call() {
    hostname="$(head -n 1 "$root/etc/hostname" 2>/dev/null)"
    reboot=false
    reboot_needed && reboot=true
    memory="$(own_memory)"
    printf '{"ip":%s,"uuid":%s,"mac":%s,"hostname":%s,"host_keys":[%s],"reboot_needed":%s,"memory_mib":%s}' \
        "$(json_string "$1")" \
        "$(json_string "$(cat "$root/sys/class/dmi/id/product_uuid" 2>/dev/null)")" \
        "$(json_string "$(own_mac)")" \
        "$(json_string "${hostname:-$default_hostname}")" \
        "$(host_keys)" \
        "$reboot" \
        "${memory:-null}"
}

# Prints the HTTP status, 000 without one. The token goes through a pipe: arguments can be seen in `ps`.
post() {
    printf 'header = "Authorization: Bearer %s"\n' "$token" |
        curl --disable --config - --silent --show-error --noproxy '*' --proto '=http,https' \
            --connect-timeout 10 --max-time 30 --output /dev/null --write-out '%{http_code}' \
            --header 'Content-Type: application/json' --data-binary "$1" "$phone_home_url"
}

forget_token() {
    [ -f "$stored" ] || return 0
    sed "s|^token=.*|token=''|" "$stored" | replace "$stored"
}

phone_home() {
    [ -n "$token" ] || return 0
    delay=1
    waited=0
    while :; do
        address="$(own_address)"
        status=000
        [ -n "$address" ] && status="$(post "$(call "$address")")"
        case "$status" in
            2??)
                say "called home as $address"
                forget_token
                return 0
                ;;
            408 | 425 | 429) ;;
            4??)
                say "was refused with HTTP $status and does not call again"
                forget_token
                return 0
                ;;
        esac
        if [ "$waited" -ge 900 ]; then
            say "gave up calling $phone_home_url; once it can be reached, run $stored"
            return 0
        fi
        say "no success yet (${address:-no address}, HTTP $status), trying again in $delay s"
        sleep "$delay"
        waited=$((waited + delay))
        delay=$((delay * 2))
        [ "$delay" -le 30 ] || delay=30
    done
}

let_provd_in || say "could not store provd's key"
forget_initrd
[ "$gpu" = yes ] && prepare_gpu
refresh_boot_loader
ask_for_restart
phone_home
exit 0
