"""A real OpenID provider as an issuer of workloads: the server fetches its keys, and its JWTs are
exchanged as the page "Any other issuer" of docs/federation.md says."""

import base64
import json
import os
import subprocess
import tempfile
import unittest
import urllib.parse
import urllib.request
from pathlib import Path

from page import Place, blocks
from server import Server, free_port

PROVIDER = Path(os.environ["OIDC_PROVIDER"])
AUDIENCE = "https://tokens.example.com/workloads"


class OidcProvider:
    """The provider, in a process of its own."""

    def __init__(self) -> None:
        port = free_port()
        self.process = subprocess.Popen(
            ["node", "provider.mjs"],
            cwd=PROVIDER,
            env=os.environ | {"PORT": str(port)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.issuer = self.wait()
        with urllib.request.urlopen(f"{self.issuer}/.well-known/openid-configuration") as answer:
            self.metadata: dict[str, str] = json.load(answer)

    def wait(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline().strip()
        assert line, "the provider did not start"
        return line

    def replace_key(self, kid: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{kid}\n")
        self.process.stdin.flush()
        self.wait()

    def jwt(self, client: str, resource: str = AUDIENCE) -> str:
        """Returns a JWT that the provider gives to a client."""
        form = {"grant_type": "client_credentials", "resource": resource}
        request = urllib.request.Request(
            self.metadata["token_endpoint"], urllib.parse.urlencode(form).encode()
        )
        basic = base64.b64encode(f"{client}:secret-of-{client}".encode()).decode()
        request.add_header("authorization", f"Basic {basic}")
        with urllib.request.urlopen(request) as answer:
            jwt: str = json.load(answer)["access_token"]
        return jwt

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


class RealProvider(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.provider = OidcProvider()
        self.addCleanup(self.provider.stop)
        self.server = Server(self.folder)
        self.addCleanup(self.server.stop)
        self.entry, self.issue, self.exchange = blocks("Any other issuer")
        data = self.folder / "data"
        # The page's entry with the addresses of this provider.
        entry = self.entry.replace("https://login.example.com/keys", self.provider.metadata["jwks_uri"])
        entry = entry.replace("https://login.example.com", self.provider.issuer)
        entry = entry.replace('["RS256", "ES256"]', '["ES256"]')
        issuers = data / "with-provider.toml"
        issuers.write_text((data / "issuers.toml").read_text() + "\n" + entry)
        self.server.serve_instead(issuers)
        self.place = Place(self.server, self.folder / "work")

    def exchange_jwt(self, jwt: str) -> tuple[int, str, str]:
        """Exchanges as the page says. Returns the exit code, the secret and the errors."""
        (self.place.folder / "identity.jwt").write_text(jwt)
        return self.place.exchange(self.exchange)

    def test_the_jwts_of_a_real_provider_are_exchanged(self) -> None:
        done = self.place.run(self.issue)
        self.assertEqual(done.returncode, 0, done.stderr)
        jwt = self.provider.jwt("importer")
        code, secret, errors = self.exchange_jwt(jwt)
        self.assertEqual(code, 0, errors)
        self.assertRegex(secret, "^stk1_[0-9A-Za-z]{46}$")
        self.assertIn("DECISION_ALLOW", self.place.verdict(secret))

        with self.subTest("the JWT was used up"):
            code, _, errors = self.exchange_jwt(jwt)
            self.assertNotEqual(code, 0)
            self.assertIn("EXCHANGE_REFUSED", errors)
        with self.subTest("another client of the provider"):
            code, _, errors = self.exchange_jwt(self.provider.jwt("stranger"))
            self.assertNotEqual(code, 0)
            self.assertIn("EXCHANGE_REFUSED", errors)
        with self.subTest("a JWT for another service, or by an algorithm that is not accepted"):
            for resource in ["https://other.example.com", f"{AUDIENCE}?rs256"]:
                code, _, errors = self.exchange_jwt(self.provider.jwt("importer", resource))
                self.assertNotEqual(code, 0)
                self.assertIn("CREDENTIAL_INVALID", errors)
        with self.subTest("the provider has replaced its key"):
            self.provider.replace_key("second")
            code, secret, errors = self.exchange_jwt(self.provider.jwt("importer"))
            self.assertEqual(code, 0, errors)
            self.assertIn("DECISION_ALLOW", self.place.verdict(secret))
        with self.subTest("an outage of the provider ends no session"):
            self.provider.stop()
            self.assertIn("DECISION_ALLOW", self.place.verdict(secret))


if __name__ == "__main__":
    unittest.main(verbosity=2)
