"""The vendor's command line, run as a backup job runs it: with a management token, over TLS."""

import os
import subprocess
from pathlib import Path

import sockets
from envoy import port
from server import STACK

FOLDER = Path(os.environ["SDK_JAVASCRIPT"])


class CommandLine:
    """An installation with its own home directory. It uses the API at this address."""

    def __init__(self, home: Path, address: str) -> None:
        self.home = home
        home.mkdir()
        (home / "config").mkdir()
        subprocess.run(
            ["openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=cms.test"]
            + ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
            + ["-addext", "subjectAltName=DNS:cms.test"]
            + ["-keyout", str(home / "key.pem"), "-out", str(home / "certificate.pem")],
            capture_output=True,
            check=True,
        )
        certificate, key = home / "certificate.pem", home / "key.pem"
        self.front = sockets.Listener(sockets.behind_tls(address, certificate, key))

    def run(self, secret: str, *arguments: str) -> str:
        """Runs a command and returns its output. The exit code is 0 even if the command fails."""
        settings = {
            "API": f"cms.test:{port(self.front.address)}",
            "STACK": STACK,
            "HOME": str(self.home),
            "CS_CLI_CONFIG_PATH": str(self.home / "config"),
            "NODE_EXTRA_CA_CERTS": str(self.home / "certificate.pem"),
            "CS_CLI_LOG_PATH": str(self.home / "logs"),
        }
        answer = subprocess.run(
            ["node", str(FOLDER / "csdx.mjs"), *arguments, "--alias", "token", "--yes"],
            cwd=self.home,
            env=os.environ | settings,
            input=secret,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        return answer.stdout

    def stop(self) -> None:
        self.front.close()
