"""Checks that names that look like other values are strings wherever the chart writes them.

Takes rendered files. `no` is a boolean in YAML 1.1, `1e5` is a number in YAML 1.2, and `123` is a
number in both. Clusters, GitOps tools and linters do not all use the same version. So each file is
parsed with both versions: the results must be equal, and every name, label and annotation must be
valid text.
"""

import itertools
import pathlib
import re
import sys

import yaml

# The name of every object except a service can begin with a digit. All names are cut to the length
# of a label, because Kubernetes uses most of them as labels.
SERVICE = r"[a-z]([-a-z0-9]*[a-z0-9])?"
NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{NAME}(\.{NAME})*"
LABEL = r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
ACCOUNTS = {"ServiceAccount"}


class Core(yaml.SafeLoader):
    """The core schema of YAML 1.2, which has fewer forms of a boolean and more of a number."""

    yaml_implicit_resolvers = {}


for tag, pattern, first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.0123456789")),
):
    Core.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), first)


def whole(loader, node):
    """Returns an integer. In contrast to YAML 1.1, leading zeros do not make it octal."""
    text = loader.construct_scalar(node)
    return int(text, 0) if text[1:2] in ("o", "x") else int(text)


Core.add_constructor("tag:yaml.org,2002:int", whole)


def paths(value, path=""):
    """Yields each scalar, and each key, with its path."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield f"{path}/{key} (key)", key
            yield from paths(below, f"{path}/{key}")
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from paths(below, f"{path}/{index}")
    else:
        yield path, value


def difference(one, other):
    """Yields a message for each value that the two versions of YAML parse differently."""
    for (path, mine), (_, its) in itertools.zip_longest(paths(one), paths(other), fillvalue=("", None)):
        if type(mine) is not type(its) or mine != its:
            yield f"{path} is {mine!r} in YAML 1.1 and {its!r} in YAML 1.2"


def invalid_text(value, pattern, longest):
    return not isinstance(value, str) or len(value) > longest or not re.fullmatch(pattern, value)


def invalid_metadata(kind, metadata):
    pattern = SERVICE if kind == "Service" else SUBDOMAIN if kind in ACCOUNTS else NAME
    if invalid_text(metadata.get("name"), pattern, 63):
        yield f"{kind} has the name {metadata.get('name')!r}"
    if invalid_text(metadata.get("namespace"), NAME, 63):
        yield f"{kind} is in the namespace {metadata.get('namespace')!r}"


def invalid_maps(value):
    """Yields a message for each label, selector, annotation or variable, at any depth, that is invalid."""
    if isinstance(value, list):
        for below in value:
            yield from invalid_maps(below)
    if not isinstance(value, dict):
        return
    for key, below in value.items():
        if key in ("labels", "matchLabels", "nodeSelector") and isinstance(below, dict):
            yield from (f"{key} has {name!r}: {text!r}" for name, text in below.items() if invalid_text(text, LABEL, 63))
        if key == "annotations" and isinstance(below, dict):
            yield from (f"annotation {name!r} is {text!r}" for name, text in below.items() if not isinstance(text, str))
        if key == "env":
            yield from (f"variable {one}" for one in below if not all(isinstance(text, str) for text in one.values()))
        yield from invalid_maps(below)


def faults(path):
    text = pathlib.Path(path).read_text()
    older = [one for one in yaml.safe_load_all(text) if one]
    newer = [one for one in yaml.load_all(text, Core) if one]
    yield from difference(older, newer)
    for one in older:
        yield from invalid_metadata(one["kind"], one["metadata"])
        yield from invalid_maps(one)


def main():
    found = [f"{pathlib.Path(path).name}: {fault}" for path in sys.argv[1:] for fault in faults(path)]
    for fault in found:
        print(f"chart: {fault}", file=sys.stderr)
    print(f"names: {len(sys.argv) - 1} renderings are the same in YAML 1.1 and 1.2")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
