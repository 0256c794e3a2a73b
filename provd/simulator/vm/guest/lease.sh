#!/bin/busybox sh
# Called by udhcpc with what the DHCP server said in its environment.
[ "$1" = bound ] || exit 0
ip address replace "$ip/$mask" dev "$interface"
[ -z "$router" ] || ip route add default via "${router%% *}" dev "$interface" 2>/dev/null
{
    [ -z "$domain" ] || echo "search $domain"
    for server in $dns; do echo "nameserver $server"; done
} >>/system/etc/resolv.conf
draft=/run/provd/lease/.$interface
for name in ip mask router dns hostname domain opt250; do
    eval "printf '%s=%s\n' $name \"\$$name\""
done >"$draft"
mv "$draft" "/run/provd/lease/$interface"
