"""Tests how the vendor's SDKs handle outages and restarts of stacktoken."""

import json
import os
import subprocess
import unittest
from pathlib import Path
from typing import Any

from envoy import port
from server import STACK, Issued, Server
from world import WithWorld

JAVASCRIPT = Path(os.environ["SDK_JAVASCRIPT"])
PYTHON = Path(__file__).parent / "python"
# These settings retry for a minute. A retry takes one of the concurrent requests that the SDK
# permits.
PATIENT = {
    "maxNetworkRetries": 240,
    "maxRequests": 300,
    "networkRetryDelay": 200,
    "networkBackoffStrategy": "fixed",
}


class Outages(WithWorld):
    token: Issued

    def setUp(self) -> None:
        self.token = self.server.issue("read")
        self.upstream.arrived.clear()
        self.server.stop()
        self.addCleanup(self.come_back)

    def come_back(self) -> None:
        if self.server.process.poll() is not None:
            type(self).server = Server(self.folder, listen=self.server.address)
            self.envoy.wait_until_healthy()

    def start(self, command: list[str], folder: Path, **settings: Any) -> "subprocess.Popen[str]":
        """Starts a script that makes one call."""
        api = f"cms.test:{port(self.envoy.address)}" if folder == JAVASCRIPT else self.envoy.address
        variables = {"API": api, "STACK": STACK, "SETTINGS": json.dumps(settings)}
        script = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.addCleanup(script.kill)
        assert script.stdin
        script.stdin.write(self.token.secret)
        script.stdin.close()
        script.stdin = None
        return script

    def end(self, script: "subprocess.Popen[str]") -> dict[str, Any]:
        out, _ = script.communicate(timeout=60)
        outcome: dict[str, Any] = json.loads(out.splitlines()[-1])
        return outcome

    def require_outage(self, outcome: dict[str, Any], requests: int) -> None:
        """Asserts that the error says when to retry, and that no request has reached the API."""
        answers = [(seen["status"], seen["retryAfter"]) for seen in outcome["requests"]]
        self.assertEqual(answers, [(503, "1")] * requests)
        error = outcome["error"]
        self.assertEqual((error["status"], error["code"]), (503, 503))
        self.assertTrue(error["text"].endswith("Send it again."), error)
        self.assertEqual(self.upstream.arrived, [])

    def test_javascript_sdk_retries_three_times_and_reports_an_outage(self) -> None:
        script = self.start(["node", "once.mjs"], JAVASCRIPT)
        self.require_outage(self.end(script), requests=4)

    def test_python_sdk_reports_an_outage_at_once(self) -> None:
        script = self.start([os.environ["SDK_PYTHON"], "once.py"], PYTHON)
        self.require_outage(self.end(script), requests=1)

    def test_javascript_sdk_succeeds_when_the_outage_ends_while_it_retries(self) -> None:
        script = self.start(["node", "once.mjs"], JAVASCRIPT, **PATIENT)
        assert script.stdout
        self.assertEqual(json.loads(script.stdout.readline()), {"level": "warning"})
        self.come_back()
        outcome = self.end(script)
        *refused, served = [seen["status"] for seen in outcome["requests"]]
        self.assertEqual((set(refused), served), ({503}, 200))
        self.assertEqual((outcome["returned"], outcome["error"]), (True, None))
        (arrived,) = self.upstream.arrived
        self.require_identity(arrived, self.token, "read")


if __name__ == "__main__":
    unittest.main(verbosity=2)
