"""Checks the table of helm/README.md against helm/values.yaml and its schema; `--write` regenerates it."""

import json
import pathlib
import re
import sys

CHART = pathlib.Path("helm")
README = CHART / "README.md"
BEGIN, END = "<!-- values: made by .ci/chart-readme.py --write -->", "<!-- end -->"


def rows():
    """Yields each value of values.yaml with its default and the comment above it."""
    path, comment = [], []
    for line in (CHART / "values.yaml").read_text().splitlines():
        text = line.strip()
        if text.startswith("#"):
            comment.append(text.lstrip("# "))
            continue
        pair = re.match(r"( *)([A-Za-z]+):(?: (.*))?$", line)
        if not text:
            comment = []
        # Lines below a list value belong to that value.
        if pair is None or (path and path[-1][1] == "to" and len(pair[1]) > path[-1][0]):
            continue
        indent, name, default = len(pair[1]), pair[2], pair[3]
        path = [(depth, key) for depth, key in path if depth < indent] + [(indent, name)]
        if default is not None or comment:
            yield ".".join(key for _, key in path), default, " ".join(comment)
        comment = []


def table():
    lines = ["| value | default | |", "|---|---|---|"]
    for name, default, comment in rows():
        cells = [f"`{name}`", f"`{default}`" if default else "", comment.replace("|", "\\|")]
        lines.append("| " + " | ".join(cells) + " |")
    settings = json.loads((CHART / "values.schema.json").read_text())["properties"]["settings"]["properties"]
    lines += ["", "Settings and their flags, which `stacktoken serve --help` explains:", ""]
    lines += ["| value | flag |", "|---|---|"]
    for name in settings:
        flag = re.sub(r"([A-Z])", r"-\1", name).lower()
        lines.append(f"| `settings.{name}` | `--{flag}` |")
    return "\n".join(lines)


def main():
    text = README.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    wanted = f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"
    if "--write" in sys.argv[1:]:
        README.write_text(wanted)
    elif text != wanted:
        sys.exit("helm/README.md is not as values.yaml has it: run python3 .ci/chart-readme.py --write")


if __name__ == "__main__":
    main()
