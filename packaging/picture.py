#!/usr/bin/env python3
"""Draws what a program printed as a terminal: `make demo | packaging/picture.py COMMAND > docs/demo.svg`.

Every line comes from standard input. Colours say what a line is; words are not changed. Lines that are wider than the picture are cut
and end with an ellipsis.
"""
import sys
import unicodedata
from xml.sax.saxutils import escape

COLUMNS, SIZE, LINE = 132, 13, 18
CELL = SIZE * 0.602  # advance of the usual monospaced fonts
BACK, TEXT, SOFT = "#14171b", "#d7dce2", "#8b96a3"
COLOURS = [("HEALTHY", "#5fd07f"), ("HUNG", "#ff8a80"), ("STALE", "#ff8a80"), ("LOST", "#ff8a80")]


def colour(line):
    """Titles are bold, what nobody has to read is soft, a state has its colour."""
    words = line.split()
    if line.startswith("==="):
        return "#8ec2ff", True
    for word, shade in COLOURS:
        if word in line or (words and words[0] == word.lower()) or f"says:  {word.lower()}" in line:
            return shade, False
    if line.lstrip().startswith(("repaired:",)):
        return "#5fd07f", False
    return TEXT, False


def clean(line):
    """Tabs and control characters have no place in a picture."""
    line = line.expandtabs(8).rstrip()
    line = "".join(c for c in line if not unicodedata.category(c).startswith("C"))
    return line if len(line) <= COLUMNS else line[: COLUMNS - 1] + "\u2026"


def main():
    command = sys.argv[1] if len(sys.argv) > 1 else "make demo"
    lines = [clean(line) for line in sys.stdin.read().splitlines()]
    while lines and not lines[0].startswith("==="):
        lines.pop(0)  # what building says
    if not any(line.startswith("=== Summary") for line in lines):
        sys.exit("picture.py: the output has no summary: the demo did not end well")
    lines = [f"$ {command}"] + lines
    width, height = round(COLUMNS * CELL + 40), (len(lines) + 2) * LINE + 20
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="Output of {escape(command)}">',
        f'<rect width="{width}" height="{height}" rx="8" fill="{BACK}"/>',
        "".join(f'<circle cx="{20 + 18 * i}" cy="18" r="5" fill="#3a424b"/>' for i in range(3)),
        f'<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,DejaVu Sans Mono,monospace" font-size="{SIZE}" xml:space="preserve">',
    ]
    for number, line in enumerate(lines):
        shade, bold = (SOFT, False) if number == 0 else colour(line)
        weight = ' font-weight="700"' if bold else ""
        out.append(f'<text x="20" y="{(number + 2) * LINE + 12}" fill="{shade}"{weight}>{escape(line)}</text>')
    out.append("</g>\n</svg>")
    print("\n".join(out))


main()
