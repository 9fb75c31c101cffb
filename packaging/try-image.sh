#!/bin/sh
# Runs an image as k8s/ does, without a cluster: packaging/try-image.sh TARBALL
#
# `check` as the user of the image, then the agent as its pod has it, `status` inside it, SIGTERM. Needs root, podman and runc.
set -eu

tarball=${1:?the image, from make image}
image=mountwarden:$(sed -n 's/^version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml" | head -n 1)
store=$(mktemp -d)
name=mountwarden-try-$$
run() { podman --runtime runc --root "$store/root" --runroot "$store/run" --storage-driver vfs --cgroup-manager cgroupfs "$@" 2>>"$store/log"; }
end() {
    run rm --force --time 1 "$name" >/dev/null || true
    rm -rf "$store"
}
trap end EXIT
trap 'tail -n 20 "$store/log" >&2' INT TERM
fail() {
    echo "try-image.sh: $1" >&2
    tail -n 20 "$store/log" >&2
    exit 1
}

run load --quiet --input "$tarball" >/dev/null || fail "the image cannot be loaded"
echo "size: $(run image inspect "$image" --format '{{.Size}}') bytes"
# The limits of this process, which may not raise them.
limits="--ulimit nofile=$(ulimit -n):$(ulimit -n) --ulimit nproc=1000:1000"
# shellcheck disable=SC2086 # lists of words
{
    host="$limits --network host --pid host"
    code=0
    words=$(run run --rm $host "$image" check) || code=$?
    # 0 to 2 say how the mounts of this host are, 3 that root could tell more.
    [ "$code" -le 3 ] || fail "check ended with $code"
    echo "check: exit code $code, $(echo "$words" | tail -n 1)"
    run run --detach --name "$name" $host --user 0 --read-only --security-opt no-new-privileges --cap-drop all \
        --cap-add SYS_PTRACE,SYS_ADMIN,DAC_READ_SEARCH,NET_BIND_SERVICE,SYSLOG "$image" \
        run --listen 127.0.0.1:12949 --listen-ui 127.0.0.1:12950 >/dev/null || fail "the agent does not start"
}
tries=0
until run exec "$name" mountwarden status --address 127.0.0.1:12950 >"$store/status"; do
    # Its exit codes say how the mounts are; 3 alone may mean that it does not answer yet.
    [ $? -ne 3 ] && break
    tries=$((tries + 1))
    [ "$tries" -lt 50 ] || fail "the agent does not answer: $(run logs "$name")"
    sleep 0.2
done
pid=$(run inspect "$name" --format '{{.State.Pid}}')
echo "run: $(sed -n 's/^VmRSS:[[:space:]]*//p' "/proc/$pid/status") resident; status says: $(tail -n 1 "$store/status")"
begin=$(date +%s%3N)
run stop --time 20 "$name" >/dev/null
echo "SIGTERM: exit code $(run inspect "$name" --format '{{.State.ExitCode}}') after $(($(date +%s%3N) - begin)) ms"
