#!/usr/bin/env python3
"""Draws docs/demo.svg, a picture of a terminal in which evbus runs.

    docs/demo.py BINARY            runs the session with this binary, and writes the picture
    docs/demo.py BINARY --check    exits 1 if the picture is not what the session gives now

The commands really run, in a temporary folder. Ids, times, durations and paths are replaced by
fixed ones, so that the same output gives the same file, byte for byte.
"""
import os
import re
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

PICTURE = Path(__file__).with_name("demo.svg")
SESSION = [
    "evbus init /srv/bus",
    "evbus emit order.new --subject order/1 -F total=99.5",
    "evbus emit order.new --subject order/2 -F total=12",
    "evbus drain -g mail -t 'order.*' --from earliest -- ./send-mail",
    "evbus drain -g billing -t 'order.*' --from earliest --max-attempts 2 --wait -- ./charge",
    "evbus status",
]
HANDLERS = {
    "send-mail": 'echo "sent a mail about $EVBUS_SUBJECT"',
    "charge": '[ "$EVBUS_SUBJECT" != order/2 ] || { echo "declined" >&2; exit 1; }',
}
IDS = ["7kq3f9x2m7qa5w", "whyny377nne65c", "m108en1mz8nm74", "dfb2zbjcrp0bjh"]

# How the picture looks: sizes in pixels, colours by what a line or a word is.
LINE, CHAR, LEFT, TOP = 20, 8.4, 22, 62
TEXT, DIM, PROMPT, GOOD, BAD, BACK = "#d5d9e0", "#7d8590", "#7ee787", "#79c0ff", "#ff7b72", "#0d1117"
COLOURS = [
    (BAD, re.compile(r"(?:attempt \d+ failed|dead after \d+ attempts|1 dead\b|failing|declined)")),
    (GOOD, re.compile(r"(?:\d+ done|\bok\b|sent a mail about \S+)")),
    (DIM, re.compile(r"(?:20261123T\d+-\w+|^help:.*|#\d+\||· \S+$|^GROUP.*)")),
]


def run(binary):
    """Runs the session; returns its lines as they were printed."""
    with tempfile.TemporaryDirectory() as folder:
        srv, tools = Path(folder, "srv"), Path(folder, "tools")
        srv.mkdir()
        tools.mkdir()
        (tools / "evbus").symlink_to(Path(binary).resolve())
        for name, line in HANDLERS.items():
            (srv / name).write_text(f"#!/bin/sh\n{line}\n")
            (srv / name).chmod(0o755)
        bus = f"{srv}/bus"
        env = {"PATH": f"{tools}:/usr/bin:/bin", "HOME": folder, "EVBUS_URL": bus, "TZ": "UTC", "LC_ALL": "C.UTF-8"}
        lines = []
        for command in SESSION:
            really = command.replace("/srv/bus", bus)
            ran = subprocess.run(really, shell=True, cwd=srv, env=env, stdin=subprocess.DEVNULL, timeout=60,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
            if ran.returncode != 0:
                sys.exit(f"{command}: exit {ran.returncode}\n{ran.stdout}")
            lines += [f"$ {command}", *ran.stdout.replace(str(srv), "/srv").splitlines()]
    return lines


def normalised(lines):
    """The lines with fixed ids, times and durations."""
    known = {}
    text = "\n".join(lines)
    text = re.sub(r"\d{8}T\d{6}-(\w{14})", lambda id: "20261123T062113-" + known.setdefault(
        id[1], IDS[len(known)]), text)
    text = re.sub(r"next \d\d:\d\d:\d\d", "next 06:21:14", text)
    text = re.sub(r"· (?:\d+ms|[\d.]+s)$", "· 24ms", text, flags=re.MULTILINE)
    return re.sub(r"oldest [\d.]+m?s", "oldest 2.1s", text).splitlines()


def text(part):
    """Text for SVG, with no-break spaces, because viewers fold other ones."""
    return escape(part, False).replace(" ", "\u00a0")


def spans(line):
    """The line as SVG, its words coloured."""
    if line.startswith("$ "):
        return f'<tspan fill="{PROMPT}">$</tspan><tspan fill="#ffffff">\u00a0{text(line[2:])}</tspan>'
    found = sorted((m.start(), m.end(), colour) for colour, words in COLOURS for m in words.finditer(line))
    parts, at = [], 0
    for start, end, colour in found:
        if start >= at:
            parts += [text(line[at:start]), f'<tspan fill="{colour}">{text(line[start:end])}</tspan>']
            at = end
    return "".join(parts) + text(line[at:])


def picture(lines):
    width, height = round(2 * LEFT + CHAR * max(map(len, lines))), TOP + LINE * len(lines) + 4
    dots = "".join(f'<circle cx="{24 + 20 * n}" cy="21" r="6" fill="{c}"/>'
                   for n, c in enumerate(("#ff5f56", "#ffbd2e", "#27c93f")))
    rows = "".join(f'<text x="{LEFT}" y="{TOP + LINE * n}" textLength="{len(line) * CHAR:.1f}">'
                   f'{spans(line)}</text>\n'
                   for n, line in enumerate(lines) if line)
    font = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            f'role="img" aria-label="evbus in a terminal">\n'
            f'<rect width="{width}" height="{height}" rx="10" fill="{BACK}"/>\n{dots}\n'
            f'<g font-family="{font}" font-size="14" fill="{TEXT}">\n{rows}</g>\n</svg>\n')


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["--check"]):
        sys.exit(__doc__)
    drawn = picture(normalised(run(sys.argv[1])))
    if sys.argv[2:] and (not PICTURE.exists() or PICTURE.read_text("utf-8") != drawn):
        sys.exit(f"{PICTURE} is not what the session gives: run docs/demo.py BINARY")
    if not sys.argv[2:]:
        PICTURE.write_text(drawn, "utf-8")
