#!/bin/sh
# What the binary writes about itself: packaging/extras.sh BINARY DIRECTORY makes completions/ and man/ there.
set -eu
binary=${1:?the binary} directory=${2:?where they go}
mkdir -p "$directory/completions" "$directory/man"
"$binary" completions bash >"$directory/completions/mountwarden.bash"
"$binary" completions zsh >"$directory/completions/_mountwarden"
"$binary" completions fish >"$directory/completions/mountwarden.fish"
"$binary" man-pages "$directory/man"
