"""Checks that every object to which a rendered object refers exists.

Takes one rendered file for each set of values. A schema cannot detect a volume without a mount,
a selector that matches no pod, or a name that was changed in only one of two places.
"""

import pathlib
import sys

import yaml

NAMESPACE = "tokens"
OWN_LABELS = {"helm.sh/chart", "app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/version"}
# The volumes that a container may write: the SQLite file and the restore guard.
WRITABLE = {"data", "guard"}
# The hooks of the components. The network policy of such a pod must be of the same hook, and come
# first.
HOOKED = {"migrate": "pre-install,pre-upgrade", "test": "test"}


class Release:
    """The objects of one rendered file."""

    def __init__(self, path):
        self.objects = [one for one in yaml.safe_load_all(pathlib.Path(path).read_text()) if one]
        self.faults = []
        self.where = path

    def of(self, kind):
        return [one for one in self.objects if one["kind"] == kind]

    def named(self, kind, name):
        return next((one for one in self.of(kind) if one["metadata"]["name"] == name), None)

    def expect(self, holds, text):
        if not holds:
            self.faults.append(f"{pathlib.Path(self.where).name}: {text}")

    def pods(self):
        """Yields each pod as its owner, its labels and its spec."""
        for one in self.objects:
            if one["kind"] == "Pod":
                yield one, one["metadata"]["labels"], one["spec"]
            elif one["kind"] in ("Deployment", "Job"):
                template = one["spec"]["template"]
                yield one, template["metadata"]["labels"], template["spec"]

    def selects(self, labels):
        return [owner for owner, its, _ in self.pods() if labels and labels.items() <= its.items()]


def check_metadata(release):
    for one in release.objects:
        name = f"{one['kind']} {one['metadata']['name']}"
        release.expect(one["metadata"].get("namespace") == NAMESPACE, f"{name} is in another namespace")
        release.expect(OWN_LABELS <= set(one["metadata"].get("labels", {})), f"{name} lacks the chart's labels")
    for owner, labels, _ in release.pods():
        release.expect(OWN_LABELS <= set(labels), f"the pod of {owner['metadata']['name']} lacks the chart's labels")


def check_volumes(release):
    for owner, _, spec in release.pods():
        name = owner["metadata"]["name"]
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        mounted = set()
        for container in spec.get("initContainers", []) + spec["containers"]:
            mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
            mounted |= set(mounts.values())
            for mount in container.get("volumeMounts", []):
                release.expect(mount.get("readOnly") or mount["name"] in WRITABLE, f"{name}: {mount['name']} can be written")
            for variable in container["env"]:
                check_path(release, f"{name}: {variable['name']}", variable["value"], mounts, volumes)
        release.expect(mounted == set(volumes), f"{name}: volumes {set(volumes)} but mounted {mounted}")
        for volume in volumes.values():
            check_source(release, name, volume)


def check_path(release, name, value, mounts, volumes):
    """Checks that a variable whose value is a path refers to a file in a volume."""
    path = value.removeprefix("sqlite:")
    if not path.startswith("/"):
        return
    if path in mounts:
        # A folder that is a volume of its own, such as that of the restore guard.
        return
    folder, _, file = path.rpartition("/")
    volume = volumes.get(mounts.get(folder))
    release.expect(volume is not None, f"{name}: nothing is mounted at {folder}")
    if volume is None:
        return
    sources = [source["secret"] for source in volume.get("projected", {}).get("sources", [])]
    sources += [volume[kind] for kind in ("secret", "configMap") if kind in volume]
    items = [item["path"] for source in sources for item in source.get("items", [])]
    release.expect(not items or file in items, f"{name}: {file} is not among {items}")
    made = release.named("ConfigMap", volume.get("configMap", {}).get("name"))
    release.expect(made is None or file in made["data"], f"{name}: the ConfigMap has no {file}")


def check_source(release, name, volume):
    """Checks that the chart creates the object behind a volume, if its name has the chart's prefix."""
    for kind, source in (("ConfigMap", volume.get("configMap", {}).get("name")),
                         ("PersistentVolumeClaim", volume.get("persistentVolumeClaim", {}).get("claimName"))):
        ours = source is not None and source.startswith("cms-stacktoken")
        release.expect(not ours or release.named(kind, source), f"{name}: there is no {kind} {source}")


def check_profile(release):
    """Checks that pods meet the restricted profile of the pod security standards and set resources."""
    for owner, _, spec in release.pods():
        name = owner["metadata"]["name"]
        pod = spec["securityContext"]
        release.expect(pod["runAsNonRoot"] is True and pod["runAsUser"] == 65532, f"{name} may be root")
        release.expect(pod["seccompProfile"] == {"type": "RuntimeDefault"}, f"{name} has no seccomp profile")
        release.expect(spec["automountServiceAccountToken"] is False, f"{name} has a token of the cluster")
        release.expect(spec["enableServiceLinks"] is False, f"{name} gets variables of services")
        for container in spec.get("initContainers", []) + spec["containers"]:
            context = container.get("securityContext") or {}
            restricted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
            release.expect(context == restricted, f"{name}: {container['name']} is not restricted")
            resources = container.get("resources") or {}
            release.expect({"requests", "limits"} <= set(resources), f"{name}: {container['name']} has no resources")
            image = release.of("Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["image"]
            release.expect(container["image"] == image, f"{name}: {container['name']} runs another image")


def check_selectors(release):
    server = release.of("Deployment")
    for kind in ("Service", "PodDisruptionBudget", "Deployment"):
        for one in release.of(kind):
            labels = one["spec"]["selector"]
            labels = labels if kind == "Service" else labels["matchLabels"]
            release.expect(release.selects(labels) == server, f"{kind} {one['metadata']['name']} does not select the server alone")
    met = []
    for policy in release.of("NetworkPolicy"):
        owners = release.selects(policy["spec"]["podSelector"]["matchLabels"])
        name = f"NetworkPolicy {policy['metadata']['name']}"
        release.expect(len(owners) == 1, f"{name} selects {len(owners)} kinds of pods")
        release.expect(policy["spec"]["policyTypes"] == ["Ingress", "Egress"], f"{name} leaves a direction open")
        check_hook(release, name, policy, owners)
        met += owners
    if met:
        for owner, _, _ in release.pods():
            release.expect(owner in met, f"no NetworkPolicy is about {owner['metadata']['name']}")
    for account in {spec["serviceAccountName"] for owner, _, spec in release.pods() if owner["kind"] == "Deployment"}:
        ours = account.startswith("cms-stacktoken")
        release.expect(not ours or release.named("ServiceAccount", account), f"there is no ServiceAccount {account}")


def check_hook(release, name, policy, owners):
    for owner in owners:
        hooks = [one["metadata"].get("annotations", {}) for one in (policy, owner)]
        weights = [int(its.get("helm.sh/hook-weight", 0)) for its in hooks]
        component = policy["metadata"]["labels"].get("app.kubernetes.io/component")
        release.expect(hooks[0].get("helm.sh/hook") == hooks[1].get("helm.sh/hook") == HOOKED.get(component),
                       f"{name} is not of the same hook as its pod")
        release.expect("helm.sh/hook" not in hooks[0] or weights[0] < weights[1], f"{name} comes after its pod")
        for its in hooks:
            again = "before-hook-creation" in its.get("helm.sh/hook-delete-policy", "")
            release.expect("helm.sh/hook" not in its or again, f"{name}: the hook fails the second time")


def check_references(release):
    for one in release.of("HorizontalPodAutoscaler"):
        target = one["spec"]["scaleTargetRef"]
        release.expect(release.named(target["kind"], target["name"]), "the autoscaler scales nothing")
    for one in release.of("GRPCRoute") + release.of("HTTPRoute"):
        for backend in (backend for rule in one["spec"]["rules"] for backend in rule["backendRefs"]):
            service = release.named("Service", backend["name"])
            ports = [port["port"] for port in service["spec"]["ports"]] if service else []
            release.expect(backend["port"] in ports, "the route leads to no port of a service")
    for one in release.of("ServiceMonitor"):
        labels = one["spec"]["selector"]["matchLabels"].items()
        found = [service for service in release.of("Service") if labels <= service["metadata"]["labels"].items()]
        ports = [port["name"] for service in found for port in service["spec"]["ports"]]
        asked = [endpoint["port"] for endpoint in one["spec"]["endpoints"]]
        release.expect(len(found) == 1 and asked == ports, "the ServiceMonitor does not meet the admin service alone")


def main():
    faults = []
    for path in sys.argv[1:]:
        release = Release(path)
        for check in (check_metadata, check_volumes, check_profile, check_selectors, check_references):
            check(release)
        faults += release.faults
    for fault in faults:
        print(f"chart: {fault}", file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
