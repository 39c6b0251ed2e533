"""Tests that the vendor's SDKs can create, query, fetch, update and delete tokens at the HTTP port,
and that what they send back, including the secret, is neither stored nor logged."""

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any

from server import STACK, Server

HERE = Path(__file__).parent
ALL_READ = [{"module": "$all", "acl": {"read": True, "write": False}}]


class Tokens(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.server = Server(self.folder, log="trace")
        self.addCleanup(self.server.stop)

    def manage(self, command: list[str], where: Path) -> dict[str, Any]:
        """Runs a script that manages tokens as the owner. Returns what the script has printed."""
        done = subprocess.run(
            command,
            cwd=where,
            env=os.environ | {"API": self.server.http, "STACK": STACK},
            input=self.server.jwt("owner").read_text(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        outcome: dict[str, Any] = json.loads(done.stdout)
        return outcome

    def require(self, outcome: dict[str, Any], name: str) -> None:
        secret = outcome.pop("secret")
        self.assertRegex(secret, "^stk1_[0-9A-Za-z]{46}$")
        self.assertEqual(len(outcome.pop("uid")), 36)
        wanted = {
            "listed": [name],
            "renamed": f"{name}, renamed",
            "widened": [ALL_READ, None],
            "taken": {"status": 422, "errorCode": 119, "errors": {"name": ["is not unique"]}},
            "deleted": "string",
            "after": 0,
        }
        mailed = outcome.pop("mailed")
        self.assertEqual((mailed["status"], mailed["errorCode"]), (422, 119))
        self.assertEqual([*mailed["errors"]], ["is_email_notification_enabled"])
        gone = outcome.pop("gone")
        self.assertEqual((gone["status"], gone["errorCode"]), (404, 141))
        self.assertEqual(outcome, wanted)
        self.server.stop()
        for file in self.folder.rglob("*"):
            if file.is_file():
                self.assertNotIn(secret.removeprefix("stk1_")[:20].encode(), file.read_bytes(), file)

    def test_the_javascript_sdk_manages_tokens(self) -> None:
        outcome = self.manage(["node", "tokens.mjs"], Path(os.environ["SDK_JAVASCRIPT"]))
        self.assertEqual(outcome.pop("count"), 1)
        self.require(outcome, "JavaScript SDK")

    def test_the_python_sdk_manages_tokens(self) -> None:
        outcome = self.manage([os.environ["SDK_PYTHON"], "tokens.py"], HERE / "python")
        self.require(outcome, "Python SDK")


if __name__ == "__main__":
    unittest.main(verbosity=2)
