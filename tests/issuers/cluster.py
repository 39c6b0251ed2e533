"""A Kubernetes API server with etcd and without nodes, and its objects."""

import json
import os
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from server import free_port

ADMIN = "of-the-admin"
ISSUER = "https://kubernetes.default.svc.cluster.local"


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class Cluster:
    """The processes of one cluster. Their files are in a folder that is deleted after the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"https://127.0.0.1:{free_port()}"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.make_keys()
        etcd = f"http://127.0.0.1:{free_port()}"
        peer = f"http://127.0.0.1:{free_port()}"
        self.start(
            [os.environ["ETCD"], "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync"]
            + ["--listen-client-urls", etcd, "--advertise-client-urls", etcd]
            + ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
            + ["--initial-cluster", f"default={peer}"],
            "etcd.log",
        )
        (folder / "users.csv").write_text(f'{ADMIN},admin,1,"system:masters"\n')
        self.start(
            [os.environ["KUBE_APISERVER"], "--etcd-servers", etcd]
            + ["--bind-address", "127.0.0.1", "--secure-port", self.url.rsplit(":")[-1]]
            + ["--tls-cert-file", self.file("server.crt")]
            + ["--tls-private-key-file", self.file("server.key")]
            + ["--service-account-issuer", ISSUER]
            + ["--service-account-signing-key-file", self.file("accounts.key")]
            + ["--service-account-key-file", self.file("accounts.pub")]
            + ["--token-auth-file", self.file("users.csv"), "--authorization-mode", "RBAC"]
            + ["--service-cluster-ip-range", "10.0.0.0/24", "--cert-dir", self.file("certificates")],
            "apiserver.log",
        )
        self.tls = ssl.create_default_context(cafile=self.file("ca.crt"))
        self.wait()

    def file(self, name: str) -> str:
        return str(self.folder / name)

    def make_keys(self) -> None:
        """Creates a certificate for the API server, and the key that signs service account tokens."""
        days = ["-days", "1", "-newkey", "rsa:2048", "-nodes", "-x509"]
        openssl("req", *days, "-subj", "/CN=ca", "-keyout", self.file("ca.key"), "-out", self.file("ca.crt"))
        openssl(
            *("req", *days, "-subj", "/CN=kube-apiserver", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-CA", self.file("ca.crt"), "-CAkey", self.file("ca.key")),
            *("-keyout", self.file("server.key"), "-out", self.file("server.crt")),
        )
        openssl("genrsa", "-out", self.file("accounts.key"), "2048")
        openssl("rsa", "-in", self.file("accounts.key"), "-pubout", "-out", self.file("accounts.pub"))

    def start(self, command: list[str], log: str) -> None:
        with open(self.folder / log, "wb") as output:
            self.processes.append(subprocess.Popen(command, stdout=output, stderr=output))

    def wait(self) -> None:
        until = time.monotonic() + 120
        while True:
            try:
                # The role that lets service accounts read the keys is created after the start.
                self.call("GET", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:service-account-issuer-discovery")
                return
            except (OSError, urllib.error.HTTPError):
                ended = any(process.poll() is not None for process in self.processes)
                if ended or time.monotonic() > until:
                    logs = [(self.folder / log).read_text()[-2000:] for log in ("etcd.log", "apiserver.log")]
                    raise AssertionError("\n".join(logs)) from None
            time.sleep(0.2)

    def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        request = urllib.request.Request(
            self.url + path,
            None if body is None else json.dumps(body).encode(),
            {"authorization": f"Bearer {ADMIN}", "content-type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, context=self.tls, timeout=20) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def create(self, path: str, kind: str, name: str, **more: Any) -> dict[str, Any]:
        body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}} | more
        return self.call("POST", path, body)

    def namespace(self, name: str) -> None:
        self.create("/api/v1/namespaces", "Namespace", name)

    def account(self, namespace: str, name: str) -> str:
        """Creates a service account. Returns its uid."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        uid: str = self.create(path, "ServiceAccount", name)["metadata"]["uid"]
        return uid

    def delete_account(self, namespace: str, name: str) -> None:
        self.call("DELETE", f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}")

    def pod(self, namespace: str, name: str, account: str) -> dict[str, str]:
        """Creates a pod, which no node runs. Returns the reference that binds a token to it."""
        spec = {"serviceAccountName": account, "containers": [{"name": name, "image": "none"}]}
        made = self.create(f"/api/v1/namespaces/{namespace}/pods", "Pod", name, spec=spec)
        return {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": made["metadata"]["uid"]}

    def token(self, namespace: str, account: str, audience: str | None, bound: Any = None) -> str:
        """Requests a token of a service account, as the kubelet does for a projected volume."""
        spec: dict[str, Any] = {"expirationSeconds": 600}
        if audience is not None:
            spec["audiences"] = [audience]
        if bound is not None:
            spec["boundObjectRef"] = bound
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        token: str = self.call("POST", path, body)["status"]["token"]
        return token

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()
