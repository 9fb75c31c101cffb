# `make demo`: a real NFS server and client in this guest, four faults, and what mountwarden says about each next to
# what `df` says. Every line that is printed comes from the programs named; nothing is prepared.
VERS=4.1 MODE=hard OPTIONS=timeo=150,retrans=2 SUBPATH=/ LAYOUT=alone
MNT=/mnt/projects
LIMIT=20                # seconds after which a step is given up

elapsed_since() { awk -v a="$1" -v b="$(uptime_now)" 'BEGIN { printf "%.1f", b - a }'; }
title() { printf '\n=== %s\n' "$*"; }
table() { /run/agent status 2>&1 | sed 's/^/    /'; }
# What the usual check would have said, with the time limit that it needs.
ask_df() {
  local begin answer code
  begin=$(uptime_now)
  answer=$(timeout 5 df --output=size,avail "$MNT" 2>&1)
  code=$?
  case $code in
    0) answer="all well: $(tail -1 <<<"$answer" | awk '{ print $1 " kB, " $2 " free" }')" ;;
    124) answer="nothing at all" ;;
    *) answer=${answer##*: } ;;
  esac
  echo "$answer (after $(elapsed_since "$begin") s)"
}
# step TITLE FAULT STATE: makes the fault, waits for the state and then for its cause, heals, waits until the mount is healthy.
step() {
  local begin verdict noticed explained df
  title "$1"
  fault "$2"
  begin=$(uptime_now)
  ask_df >/run/df &
  df=$!
  /run/runner guest await "$MNT" "$3" $LIMIT >/dev/null || echo "    mountwarden does not say $3 within $LIMIT s"
  noticed=$(elapsed_since "$begin")
  verdict=$(/run/runner guest await --why "$MNT" "$3" $LIMIT) || echo "    mountwarden does not say why within $LIMIT s"
  explained=$(elapsed_since "$begin")
  table
  wait $df
  echo "    mountwarden says:  ${verdict%%/*} (after $noticed s): ${verdict#*/} (after $explained s)"
  echo "    df $MNT says:  $(cat /run/df)"
  printf '%-30s | %-26s | %5s s | %5s s | %s\n' "${1%%:*}" "$verdict" "$noticed" "$explained" "$(cat /run/df)" >>/run/summary
  begin=$(uptime_now)
  heal "$2" 2>/dev/null
  verdict=$(/run/runner guest await "$MNT" healthy $LIMIT)
  echo "    repaired: $verdict again after $(elapsed_since "$begin") s"
}

load_modules nfsv4 nfsd veth sch_netem
net_up
backing tmpfs
fill $EXP
serve
client_mount || exit 1
title "An NFS server and a client that has mounted it; mountwarden watches every 2 s, deadline 1 s"
printf 'slow: 500ms\nbackoff_max: 8s\n' >/run/agent.yaml
/run/agent run --config /run/agent.yaml --interval 2s --timeout 1s --listen 127.0.0.1:12049 --listen-ui 127.0.0.1:12050 \
  >/run/agent.log 2>&1 &
agent=$!
/run/runner guest await "$MNT" healthy $LIMIT >/run/first || { echo "    the agent does not start:"; cat /run/agent.log; }
# One round more, in which the agent learns what the directory holds.
sleep 3
table

step "The server goes silent: every packet is dropped" drop hung
step "Another filesystem is exported: empty, under the old name, after a restart of the server" swap_tmpfs lost
step "Another directory is exported: with older data in it, say" swap_dir stale
step "The export is removed: the server goes on with nothing for us" unexport stale

title "Summary"
printf '    %-30s | %-26s | %7s | %7s | %s\n' fault mountwarden 'state' 'cause' df
sed 's/^/    /' /run/summary
begin=$(uptime_now)
kill -TERM $agent
wait $agent
echo
echo "    SIGTERM: the agent ended with exit code $? after $(elapsed_since "$begin") s"
touch /run/out/complete
