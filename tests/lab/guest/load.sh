# What ordinary users of a healthy mount do to it, for as long as it runs; none of it is a reason for an alarm.
#   load.sh DIRECTORY
# Two of them, one on the client and one on the server, get in each other's way now and then: so do users.
mnt=$1
work=$mnt/work-$$
tree() { mkdir -p "$1"/{a,b,c}/x && for f in a/1 b/2 c/x/3; do echo "$f" >"$1/$f"; done; }
for ((round = 1; ; round++)); do
  tree "$work"                                                  # unpack
  echo "$round" >"$work/state.tmp" && mv "$work/state.tmp" "$work/state"     # write and rename
  cp -r "$work" "$work.copy" && rm -rf "$work.copy/a"           # mirror with deletes
  rm -rf "$work" "$work.copy"
  # Every tenth round everything goes, also what was there before, and comes back under other names.
  if ((round % 10 == 0)); then
    rm -rf "${mnt:?}"/*
    tree "$mnt/generation-$round"
  fi
  sleep 0.5
done
