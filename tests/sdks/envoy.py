"""Runs Envoy with the configuration of docs/envoy.yaml, in front of an API and of stacktoken."""

import contextlib
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

BINARY = os.environ["ENVOY_BIN"]
DOCUMENTED = Path(os.environ["ENVOY_CONFIG"])


class Envoy:
    """A running Envoy that listens on free ports."""

    def __init__(self, folder: Path, stacktoken: str, jwt: str, api: str) -> None:
        self.folder = folder
        config = DOCUMENTED.read_text()
        for old, new in [
            ("port_value: 9901", "port_value: 0"),
            ("port_value: 8080", "port_value: 0"),
            ("port_value: 50051", f"port_value: {port(stacktoken)}"),
            ("port_value: 8081", f"port_value: {port(api)}"),
            ('SERVICE_JWT"', f'{jwt}"'),
        ]:
            assert config.count(old) == 1, f"{old} in {DOCUMENTED}"
            config = config.replace(old, new)
        (folder / "envoy.yaml").write_text(config)
        self.start()
        self.wait_until_healthy()

    def start(self) -> None:
        admin_file = self.folder / "envoy.admin"
        with open(self.folder / "envoy.log", "wb") as log:
            self.process = subprocess.Popen(
                [BINARY, "-c", str(self.folder / "envoy.yaml")]
                + ["--admin-address-path", str(admin_file)]
                + ["--concurrency", "1", "--use-dynamic-base-id", "-l", "warning"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.wait(lambda: admin_file.exists() and ":" in admin_file.read_text())
        self.admin = admin_file.read_text().strip()
        self.wait(lambda: bool(self.listeners()))
        self.address = f"127.0.0.1:{self.listeners()[0]['port_value']}"

    def listeners(self) -> list[dict[str, int]]:
        listeners = json.loads(self.ask("/listeners?format=json") or "{}")
        statuses = listeners.get("listener_statuses", [])
        return [listener["local_address"]["socket_address"] for listener in statuses]

    def wait_until_healthy(self) -> None:
        """Waits until Envoy considers stacktoken healthy."""
        self.wait(lambda: "::health_flags::healthy" in self.health())

    def health(self) -> str:
        clusters = self.ask("/clusters").splitlines()
        return "\n".join(line for line in clusters if line.startswith("stacktoken::"))

    def ask(self, path: str) -> str:
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(f"http://{self.admin}{path}", timeout=5) as answer,
        ):
            text: str = answer.read().decode()
            return text
        return ""

    def wait(self, ready: Callable[[], bool]) -> None:
        until = time.monotonic() + 30
        while not ready():
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError((self.folder / "envoy.log").read_text()[-2000:])
            time.sleep(0.02)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def port(address: str) -> str:
    return address.rsplit(":", 1)[1]
