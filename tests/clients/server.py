"""A real server for the tests, and changes that the tests make without the client under test."""

import contextlib
import json
import os
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

BINARY = os.environ["STACKTOKEN_BIN"]
STACK = "blt00c0ffee00c0ffee"
OTHER_STACK = "blt0000decade000000"
INTROSPECT = "stacktoken.v1.IntrospectionService/Introspect"


class Server:
    """`stacktoken dev` with its own directory."""

    def __init__(self, folder: Path, listen: str = "127.0.0.1:0", **settings: str) -> None:
        self.folder = folder
        ready = folder / "ready.json"
        ready.unlink(missing_ok=True)
        self.start(
            ["dev", "--data-dir", str(folder / "data"), "--ready-file", str(ready)]
            + ["--listen", listen, "--admin-listen", "127.0.0.1:0"],
            {f"STACKTOKEN_{name.upper()}": value for name, value in settings.items()},
        )
        self.wait(lambda: ready.exists() and ready.stat().st_size > 0)
        told = json.loads(ready.read_text())
        self.address: str = told["grpc_address"]
        self.admin: str = told["admin_address"]
        self.http: str = told["http_address"]

    def serve_instead(self, issuers: Path) -> None:
        """Replaces `dev` with `stacktoken serve` on the same store, with these issuers."""
        self.stop()
        self.address, self.admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        store = self.folder / "data" / "stacktoken.db"
        self.start(
            ["serve", "--issuers", str(issuers), "--database-url", f"sqlite:{store}"]
            + ["--listen", self.address, "--admin-listen", self.admin],
            {},
        )
        self.wait(lambda: listens(self.address) and listens(self.admin))
        # The ports answer before the store is open, so wait for the store too.
        self.wait(lambda: "STORE_UNAVAILABLE" not in self.introspect_junk())

    def introspect_junk(self) -> str:
        """Returns what `stacktoken introspect` prints to standard error for an invalid secret."""
        done = subprocess.run(
            [BINARY, "introspect", "--server", f"http://{self.address}", "--stack", STACK]
            + ["--jwt-file", str(self.jwt("service"))],
            input="junk",
            capture_output=True,
            text=True,
        )
        return done.stderr

    def start(self, command: list[str], settings: dict[str, str]) -> None:
        with open(self.folder / "server.log", "wb") as log:
            self.process = subprocess.Popen(
                [BINARY, *command], stdout=log, stderr=log, env=os.environ | settings
            )

    def wait(self, ready: Callable[[], bool]) -> None:
        until = time.monotonic() + 30
        while not ready():
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError((self.folder / "server.log").read_text()[-500:])
            time.sleep(0.01)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def jwt(self, name: str) -> Path:
        return self.folder / "data" / f"{name}.jwt"

    def issue(self, access: str) -> "Issued":
        """Issues a token with the command that the README shows."""
        answer = subprocess.run(
            [BINARY, "issue", "--server", f"http://{self.address}", "--stack", STACK]
            + ["--jwt-file", str(self.jwt("owner")), "--name", f"for a test {time.monotonic_ns()}"]
            + ["--access", access, "--expires", "never"],
            capture_output=True,
            text=True,
            check=True,
        )
        uid = re.search("[0-9a-f-]{36}", answer.stderr)
        assert uid, answer.stderr
        return Issued(answer.stdout.strip(), uid[0])

    def revoke(self, token: "Issued") -> None:
        request = {"stack_api_key": STACK, "token_uid": token.uid}
        subprocess.run(
            ["grpcurl", "-plaintext", "-H", f"authorization: Bearer {self.jwt('owner').read_text()}"]
            + ["-d", json.dumps(request), self.address, "stacktoken.v1.TokenService/Revoke"],
            capture_output=True,
            check=True,
        )

    def introspections(self, code: str) -> int:
        """Returns how many calls of Introspect ended with this status code."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics") as answer:
            metrics = answer.read().decode()
        labels = f'rpc_method="{INTROSPECT}",rpc_response_status_code="{code}"'
        found = re.search(f"_count{{.*{re.escape(labels)}.*}} ([0-9]+)", metrics)
        return int(found[1]) if found else 0


class Issued:
    """The secret and the id of an issued token."""

    def __init__(self, secret: str, uid: str) -> None:
        self.secret = secret
        self.uid = uid


def listens(address: str) -> bool:
    host, port = address.split(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port))):
        return True
    return False


def free_port() -> int:
    """Returns a port on which nothing listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
