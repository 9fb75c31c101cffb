#!/bin/bash
# PID 1 of a lab guest: a User-Mode Linux machine whose root is the host's root, read-only, over hostfs.
#
# The kernel hands its unknown VAR=VALUE arguments to init as environment:
#   LAB_DIR     tests/lab of the checkout
#   LAB_OUT     directory on the host that the guest may write
#   LAB_AGENT   the mountwarden binary under test
#   LAB_RUNNER  the lab's own program, whose `guest` commands watch and measure
#   LAB_SCRIPT  what to run, relative to LAB_DIR
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
# The checkout may lie anywhere, also below a directory that is covered next: take hold of it first.
mkdir /run/lab /run/out
touch /run/agent /run/runner
mount --bind "$LAB_DIR" /run/lab
mount --bind "$LAB_AGENT" /run/agent
mount --bind "$LAB_RUNNER" /run/runner
mount -t hostfs -o "$LAB_OUT" none /run/out
for dir in /mnt /tmp /var/lib/nfs; do mount -t tmpfs lab "$dir"; done
cd /
. /run/lab/guest/lib.sh
. /run/lab/guest/faults.sh
. "/run/lab/$LAB_SCRIPT"
# Not `poweroff -f`: its sync waits for ever for the dirty pages of a dead mount.
busybox poweroff -n -f
