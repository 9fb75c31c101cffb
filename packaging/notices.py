#!/usr/bin/env python3
"""Writes the licences of everything that is in the binary: packaging/notices.py FILE

MIT, BSD and Apache want their texts to go along with a binary. Equal texts are written once. Needs no network once cargo has built.
"""

import collections
import json
import os
import pathlib
import re
import subprocess
import sys

CARGO = os.environ.get("CARGO", "cargo")
TEXT = re.compile(r"(un)?licen[cs]e|copying|notice|copyright", re.IGNORECASE)


def run(*arguments):
    return subprocess.run([CARGO, *arguments], check=True, capture_output=True, text=True).stdout


def main():
    lines = run("tree", "--locked", "--edges", "normal", "--target", "x86_64-unknown-linux-musl", "--prefix", "none", "--format", "{p}").splitlines()
    # NAME vVERSION (proc-macro); what is compiled into the binary and what only helps to compile it are not told apart.
    wanted = {(words[0], words[1].removeprefix("v")) for words in map(str.split, lines) if len(words) > 1}
    packages = json.loads(run("metadata", "--locked", "--format-version", "1"))["packages"]
    members = [one for one in packages if (one["name"], one["version"]) in wanted and one["source"]]
    texts, silent = collections.defaultdict(list), []
    for one in sorted(members, key=lambda one: (one["name"], one["version"])):
        name = f'{one["name"]} {one["version"]} ({one["license"] or "see its text"})'
        folder = pathlib.Path(one["manifest_path"]).parent
        found = sorted(path for path in folder.iterdir() if path.is_file() and TEXT.match(path.name))
        for path in found:
            texts[path.read_text(errors="replace").strip()].append(name)
        if not found:
            silent.append(f'{name}, {one["repository"] or "no repository named"}')
    with open(sys.argv[1], "w") as out:
        print("Third-party software in mountwarden, and its licences. Beside the crates below: Rust's standard library", file=out)
        print("(MIT OR Apache-2.0, rust-lang.org/policies/licenses), and in the static binary musl (MIT, musl.libc.org).", file=out)
        for text, names in texts.items():
            print("\n" + "=" * 80, *names, "-" * 80, text, sep="\n", file=out)
        if silent:
            print("\n" + "=" * 80, "These bring no text along; their licence is the one named:", *silent, sep="\n", file=out)
    print(f"{sys.argv[1]}: {len(members)} crates, {len(texts)} texts, {len(silent)} without one")


if __name__ == "__main__":
    main()
