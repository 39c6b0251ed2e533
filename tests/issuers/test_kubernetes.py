"""Service account tokens of a real API server, exchanged as the page "Kubernetes" of
docs/federation.md says: the server fetches the keys over TLS, with a service account token of its
own. Writes the keys and the tokens to the folder RECORD, if it is set."""

import base64
import json
import os
import re
import tempfile
import unittest
from pathlib import Path
from typing import Any

from cluster import Cluster
from page import Place, blocks
from server import Server

MOUNTED = "/var/run/secrets/kubernetes.io/serviceaccount"
AUDIENCE = "https://tokens.example.com/east"


def claims(jwt: str) -> dict[str, Any]:
    payload = jwt.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return found


class Kubernetes(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.cluster = Cluster(self.folder)
        self.addCleanup(self.cluster.stop)
        self.cluster.namespace("cms")
        self.server = Server(self.folder)
        self.addCleanup(self.server.stop)

    def serve(self) -> None:
        """Serves with the page's entry, in which only the host and the mounted folder are others."""
        self.cluster.account("cms", "stacktoken")
        mounted = self.folder / "mounted"
        mounted.mkdir()
        (mounted / "ca.crt").write_text(Path(self.cluster.file("ca.crt")).read_text())
        (mounted / "token").write_text(self.cluster.token("cms", "stacktoken", None))
        entry, self.issue, self.pod = blocks("Kubernetes")
        entry = entry.replace('"https://kubernetes.default.svc/', f'"{self.cluster.url}/')
        entry = entry.replace(MOUNTED, str(mounted))
        data = self.folder / "data"
        issuers = data / "with-cluster.toml"
        issuers.write_text((data / "issuers.toml").read_text() + "\n" + entry)
        self.server.serve_instead(issuers)
        self.place = Place(self.server, self.folder / "work")

    def exchange(self, jwt: str) -> tuple[int, str, str]:
        (self.place.folder / "token").write_text(jwt)
        command = self.pod.split("command: [sh, -ec, '")[1].split("']")[0]
        command = command.replace("--kubernetes", "--kubernetes=token")
        # The variables of the container. The address of the server is that of the test.
        variables = re.findall(r'- { name: (\w+), value: "?([^" ]+)"? }', self.pod)
        for name, value in variables:
            if name != "STACKTOKEN_SERVER":
                command = f"export {name}={value}\n{command}"
        return self.place.exchange(command.removesuffix(" ./publish.sh"))

    def test_the_tokens_of_service_accounts_are_exchanged(self) -> None:
        uid = self.cluster.account("cms", "publisher")
        bound = self.cluster.pod("cms", "publisher", "publisher")
        self.serve()
        done = self.place.run(self.issue.replace("3c2b6f0e-7b1d-4f4e-9f0a-5d2f3a1b4c5d", uid))
        self.assertEqual(done.returncode, 0, done.stderr)
        tokens = {
            "of-a-pod": self.cluster.token("cms", "publisher", AUDIENCE, bound),
            "unbound": self.cluster.token("cms", "publisher", AUDIENCE),
        }
        for name, jwt in tokens.items():
            for _ in range(2):
                code, secret, errors = self.exchange(jwt)
                self.assertEqual(code, 0, f"{name}: {errors}")
                self.assertIn("DECISION_ALLOW", self.place.verdict(secret), name)
        self.assertEqual(claims(tokens["of-a-pod"])["kubernetes.io"]["pod"]["name"], "publisher")

        self.cluster.account("cms", "neighbor")
        self.cluster.namespace("other")
        self.cluster.account("other", "publisher")
        refused = {
            "of-a-neighbor": self.cluster.token("cms", "neighbor", AUDIENCE),
            "of-another-namespace": self.cluster.token("other", "publisher", AUDIENCE),
        }
        self.cluster.delete_account("cms", "publisher")
        self.cluster.account("cms", "publisher")
        refused["recreated"] = self.cluster.token("cms", "publisher", AUDIENCE)
        invalid = {
            "for-the-api-server": self.cluster.token("cms", "publisher", None),
            "for-another-service": self.cluster.token("cms", "publisher", "https://other.example.com"),
        }
        for found, reason in [(refused, "EXCHANGE_REFUSED"), (invalid, "CREDENTIAL_INVALID")]:
            for name, jwt in found.items():
                code, _, errors = self.exchange(jwt)
                self.assertNotEqual(code, 0, name)
                self.assertIn(reason, errors, name)
        self.record(uid, tokens, refused, invalid)

    def record(self, uid: str, *tokens: dict[str, str]) -> None:
        if "RECORD" not in os.environ:
            return
        folder = Path(os.environ["RECORD"])
        folder.mkdir(parents=True, exist_ok=True)
        keys = json.dumps(self.cluster.call("GET", "/openid/v1/jwks"), indent=1)
        (folder / "jwks.json").write_text(keys + "\n")
        names = ["exchanged", "refused", "invalid"]
        recorded = {"service_account_uid": uid} | dict(zip(names, tokens, strict=True))
        (folder / "tokens.json").write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    unittest.main(verbosity=2)
