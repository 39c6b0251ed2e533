"""Checks of the Helm chart that are too complex for a shell script. `.ci/chart` calls them.

Each command prints what it has checked, or prints every fault and exits with 1.
"""

import argparse
import json
import pathlib
import re
import socket
import sys

import jsonschema
import yaml

CHART = pathlib.Path("helm")
RULES = CHART / "files/rules.yaml"
DASHBOARD = CHART / "files/dashboard.json"
SCHEMA = CHART / "values.schema.json"
# Labels that Prometheus adds when it scrapes, and the label of histogram buckets.
SCRAPED_LABELS = {"namespace", "job", "instance", "le"}


def documents(paths):
    for path in paths:
        for document in yaml.safe_load_all(pathlib.Path(path).read_text()):
            if document:
                yield path, document


def strict(schema):
    """Returns a schema that refuses unknown fields, like strict validation by the API server."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(value) for key, value in schema.items()}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    return schema


def resources(args):
    """Checks custom resources against the schemas of their definitions."""
    schemas = {}
    for _, crd in documents(args.crds):
        for version in crd["spec"]["versions"]:
            key = (f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"])
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            schemas[key] = jsonschema.Draft202012Validator(schema)
    faults, seen = [], set()
    for path, document in documents(args.rendered):
        validator = schemas.get((document["apiVersion"], document["kind"]))
        if validator is None:
            continue
        seen.add(document["kind"])
        for error in validator.iter_errors(document):
            faults.append(f"{path}: {document['kind']}: {error.json_path}: {error.message}")
    kinds = {kind for _, kind in schemas}
    faults += [f"no values file renders a {kind}" for kind in sorted(kinds - seen)]
    return faults, f"custom resources: {', '.join(sorted(seen))}"


def rules(_):
    """Checks that each alert fires in a test, is silent in a healthy system, and has a runbook."""
    tests = [yaml.safe_load(path.read_text()) for path in (CHART / "tests/rules").glob("*.yaml")]
    fires, silent = set(), set()
    for test in (test for file in tests for test in file["tests"]):
        for case in test["alert_rule_test"]:
            if case["exp_alerts"]:
                labels = case["exp_alerts"][0]["exp_labels"]
                fires.add((case["alertname"], labels["severity"]))
            elif test["name"] == "a healthy system":
                silent.add(case["alertname"])
    runbook = re.findall(r"^## (\w+)$", pathlib.Path("docs/alerts.md").read_text(), re.M)
    faults, names = [], set()
    for rule in (rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]):
        name = rule["alert"]
        names.add(name)
        if (name, rule["labels"]["severity"]) not in fires:
            faults.append(f"{name} ({rule['labels']['severity']}) fires in no test of helm/tests/rules")
        if name not in silent:
            faults.append(f"{name} is not seen silent in a healthy system (helm/tests/rules/healthy.yaml)")
        if rule["annotations"]["runbook"] != f"docs/alerts.md#{name.lower()}":
            faults.append(f"{name}: its runbook should be docs/alerts.md#{name.lower()}")
        if name not in runbook:
            faults.append(f"{name} has no section in docs/alerts.md")
    faults += [f"docs/alerts.md has a section on {name}, which is no alert" for name in set(runbook) - names]
    return faults, f"rules: {len(names)} alerts fire in a test and have a runbook"


def expressions():
    """Yields every PromQL expression of the rules and of the dashboard."""
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']!r}", target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", variable["query"]["query"]


def exposed(path):
    """Returns the metrics in the output of a scrape, with the names of their labels."""
    metrics = {}
    for line in pathlib.Path(path).read_text().splitlines():
        sample = re.match(r"([a-z_]+)(?:\{(.*)\})? ", line)
        if sample:
            labels = re.findall(r'(\w+)="', sample[2] or "")
            metrics.setdefault(sample[1], set()).update(labels)
    return metrics


def source(path, pattern):
    """Returns the matches of a pattern in a source file. Fails if there are none, because then the pattern is outdated."""
    found = set(re.findall(pattern, pathlib.Path(path).read_text()))
    if not found:
        sys.exit(f"chart: {path} no longer has {pattern!r}: fix .ci/chart.py")
    return found


def label_values():
    """Returns the reasons of Envoy's checks, and the values that each label can have.

    The values are given by label and metric. `None` stands for all metrics that are not listed.
    """
    errors = source("proto/stacktoken/v1/reason.proto", r"\bERROR_REASON_(\w+) =")
    verdicts = source("crates/core/src/verdict.rs", r'Self::\w+ => "([A-Z_]+)",')
    own = source("src/grpc/ext_authz/refusal.rs", r'(?m)^    \w+ (?:Credential|StackKey|Permission) "([A-Z_]+)"')
    outcomes = source("src/grpc/ext_authz/mod.rs", r'(?:answer|count)\("([A-Z]+)"')
    leaks = source("src/domain/incident.rs", r'Self::\w+ => "([A-Z]+)",')
    # A check has the reason OK, its own reason, the reason of the verdict, or the reason of an
    # error.
    checks = {"OK"} | own | verdicts | errors
    methods = source("src/auth/policy.rs", r'\("/([\w.]+/\w+)"')
    return own, {
        ("reason", None): errors,
        ("reason", "stacktoken_checks_total"): checks,
        ("outcome", "stacktoken_checks_total"): outcomes,
        ("outcome", "stacktoken_leak_reports_total"): leaks,
        ("rpc_method", None): methods,
    }


def unknown_values(name, matchers, known):
    """Yields a message for each alternative in a metric's matchers that matches no possible value."""
    for label, _, text in re.findall(r'(\w+) ?(=~|=)"([^"$]*)"', matchers):
        values = known.get((label, name), known.get((label, None)))
        for one in text.split("|") if values else []:
            if not any(re.fullmatch(one, value) for value in values):
                yield f"{name} has no {label} {one}"


def metrics(args):
    """Checks that the program has each metric, label and label value that the expressions use."""
    there, faults, used = exposed(args.exposed), [], set()
    labels_there = set().union(*there.values())
    own, known = label_values()
    page = pathlib.Path("docs/envoy.md").read_text()
    faults += [f"docs/envoy.md does not have the reason {reason}" for reason in own if f"`{reason}`" not in page]
    for where, text in expressions():
        for name, matchers in re.findall(r"\b((?:stacktoken|rpc|db_client|process)_[a-z_]+)(?:\{([^}]*)\})?", text):
            if name in labels_there:
                continue
            used.add(name)
            if name not in there:
                faults.append(f"{where}: the program has no metric {name}")
                continue
            labels = set(re.findall(r'(\w+) ?[=!]', matchers)) - SCRAPED_LABELS
            faults += [f"{where}: {name} has no label {label}" for label in labels - there[name]]
            faults += [f"{where}: {fault}" for fault in unknown_values(name, matchers, known)]
    return faults, f"metrics: {len(used)} used"


def variables(args):
    """Checks that each variable in the chart sets a flag, and that the chart can set each flag of `serve`."""
    known = {path: set(re.findall(r"\[env: (STACKTOKEN_\w+)", pathlib.Path(path).read_text())) for path in args.helps}
    every = set().union(*known.values())
    serve = next(names for path, names in known.items() if path.endswith("serve.help"))
    used = set()
    for path in args.rendered:
        used |= set(re.findall(r"name: (STACKTOKEN_\w+)", pathlib.Path(path).read_text()))
    settings = json.loads(SCHEMA.read_text())["properties"]["settings"]["properties"]
    used |= {"STACKTOKEN_" + re.sub(r"([A-Z])", r"_\1", name).upper() for name in settings}
    # The URL of PostgreSQL is set by a variable that names a file.
    by_file = {name.removesuffix("_FILE") for name in used if name.endswith("_FILE")}
    faults = [f"{name} is no setting of the program" for name in used - every]
    faults += [f"{name} cannot be set by the chart" for name in serve - used - by_file]
    return faults, f"variables: {len(used)} used"


def container(args):
    """Writes ConfigMaps below a folder, and prints a container's arguments and environment."""
    found = []
    for _, document in documents([args.rendered]):
        if document["kind"] == "ConfigMap":
            folder = pathlib.Path(args.root) / "etc/stacktoken" / document["metadata"]["name"].rsplit("-", 1)[1]
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in document["data"].items():
                (folder / name).write_text(text)
        spec = document.get("spec", {})
        spec = spec.get("template", {}).get("spec", spec)
        for one in spec.get("initContainers", []) + spec.get("containers", []):
            if one["name"] == args.name:
                found = [" ".join(one["args"])] + [f"{pair['name']}={pair['value']}" for pair in one["env"]]
    text = "\n".join(found).replace("=/", f"={args.root}/").replace("sqlite:/", f"sqlite:{args.root}/")
    text = re.sub(r"https://[^:]*:", "https://127.0.0.1:", text).replace("=0.0.0.0:", "=127.0.0.1:")
    return [] if found else [f"no container {args.name}"], text


def data(args):
    """Prints a file in a ConfigMap."""
    maps = [one["data"] for _, one in documents([args.rendered]) if one["kind"] == "ConfigMap"]
    files = [texts[args.name] for texts in maps if args.name in texts]
    return [] if len(files) == 1 else [f"{len(files)} files {args.name}"], "".join(files).removesuffix("\n")


def ports(_):
    """Prints two free ports."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    return [], " ".join(str(listener.getsockname()[1]) for listener in listeners)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    for check, options in (
        (resources, ("--crds", "--rendered")),
        (rules, ()),
        (metrics, ()),
        (variables, ("--helps", "--rendered")),
        (container, ()),
        (data, ()),
        (ports, ()),
    ):
        command = commands.add_parser(check.__name__, description=check.__doc__)
        command.set_defaults(check=check)
        for option in options:
            command.add_argument(option, nargs="*", default=[])
        required = {metrics: ("--exposed",), container: ("--rendered", "--root", "--name"), data: ("--rendered", "--name")}
        for option in required.get(check, ()):
            command.add_argument(option, required=True)
    args = parser.parse_args()
    faults, looked_at = args.check(args)
    for fault in sorted(faults):
        print(f"chart: {fault}", file=sys.stderr)
    print(looked_at)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
