"""Tests each call of the vendor's JavaScript SDK."""

import os
import unittest
from pathlib import Path

import sdk
from decisions import JAVASCRIPT, Decisions


class JavaScript(sdk.Sdk):
    command = ["node", "calls.mjs"]
    folder_of_calls = Path(os.environ["SDK_JAVASCRIPT"])
    host = "cms.test"
    tables = (JAVASCRIPT,)
    swallowed = ("/v3/bulk/release/", "/v3/bulk/jobs/")

    def test_each_call_with_a_read_write_token_comes_to_its_decision(self) -> None:
        calls = self.require_decisions("read-write")
        known = set(Decisions("read-write", JAVASCRIPT).exact)
        self.assertEqual({sdk.sent(call) for call in calls}, known, "not those of the table")

    def test_each_call_with_a_read_token_comes_to_its_decision(self) -> None:
        self.require_decisions("read")
        self.require_reads()

    def test_each_call_with_a_token_that_nobody_issued_is_unauthorized(self) -> None:
        self.require_unauthorized(sdk.UNKNOWN, "NOT_RECOGNIZED")


if __name__ == "__main__":
    unittest.main(verbosity=2)
