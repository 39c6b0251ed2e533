"""Tests most calls of the vendor's Python SDK."""

import os
import unittest
from pathlib import Path

import sdk
from decisions import JAVASCRIPT, OTHERS

FOLDER = Path(__file__).parent / "python"


class Python(sdk.Sdk):
    command = [os.environ["SDK_PYTHON"], "calls.py"]
    folder_of_calls = FOLDER
    tables = (JAVASCRIPT, *OTHERS)

    def test_each_call_with_a_read_write_token_comes_to_its_decision(self) -> None:
        calls = self.require_decisions("read-write")
        self.assertGreater(len(calls), 200)

    def test_each_call_with_a_read_token_comes_to_its_decision(self) -> None:
        self.require_decisions("read")
        self.require_reads()

    def test_each_call_with_a_revoked_token_is_unauthorized(self) -> None:
        revoked = self.server.issue("read-write")
        self.server.revoke(revoked)
        self.require_unauthorized(revoked.secret, "REVOKED")


if __name__ == "__main__":
    unittest.main(verbosity=2)
