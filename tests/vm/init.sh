#!/bin/busybox sh
# Process 1 of the emulated node: makes the machine ready, runs checks.sh in a lab, and switches it off. Verdicts go
# to the second serial line.
busybox=/bin/busybox
say() { echo "vm: $*" >/dev/ttyS1; }

if [ "$1" != again ]; then
  $busybox mount -t devtmpfs dev /dev
  # Linux refuses to exchange the root of processes that still have the first one, made at boot; a copy of its
  # mount will do, and needs no copy of its files.
  $busybox mount --bind / /root
  cd /root
  $busybox mount --move . / || say "cannot move the root"
  exec $busybox chroot . $busybox sh /init again
fi

cd /
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sys /sys
$busybox mount -t devtmpfs dev /dev
$busybox mkdir -p /dev/pts /dev/shm
$busybox mount -t devpts -o ptmxmode=666 pts /dev/pts
$busybox mount -t tmpfs -o mode=1777 shm /dev/shm
$busybox mount -t tmpfs run /run
$busybox chmod 1777 /tmp /var/tmp
for link in fd:fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do
  $busybox ln -s "/proc/self/${link#*:}" "/dev/${link%%:*}"
done
for module in /modules/*; do $busybox insmod "$module" || say "cannot load $module"; done
$busybox stty -F /dev/ttyS1 raw -echo
$busybox chmod 666 /dev/ttyS1
$busybox ip link set lo up
$busybox hostname emulated

export PATH=/usr/bin:/opt/mosix/tools:/opt/mosix/cluster MOSIX_LIBEXEC=/opt/mosix HOME=/root LC_ALL=C TZ=UTC TERM=dumb
: >/tmp/verdicts
$busybox chmod 666 /tmp/verdicts
if [ -x /vm/command.sh ]; then
  cd /tmp
  mosixlab run -n 3 --keep-logs /tmp/logs -- /vm/command.sh >/dev/ttyS1 2>&1 </dev/null
  say "command ended with status $?"
else
  bash /vm/checks.sh all >/dev/console 2>&1 </dev/null
fi
say "done $($busybox wc -l </tmp/verdicts)"
$busybox poweroff -f
