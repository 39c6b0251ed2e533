"""The checks that are the same for all SDKs of the vendor, with real tokens and a real Envoy."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, ClassVar

from decisions import Decisions
from envoy import port
from server import STACK
from world import WithWorld

UNKNOWN = "stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy"
# The API's error code for each status.
CODES = {401: 105, 403: 162, 412: 109}
# The paths of GET requests that change something.
WRITES = ("/enable", "/disable", "/unschedule")

Call = dict[str, Any]


class Sdk(WithWorld):
    command: ClassVar[list[str]]
    folder_of_calls: ClassVar[Path]
    tables: ClassVar[tuple[Path, ...]]
    host: ClassVar[str] = "127.0.0.1"
    # Paths for which the SDK should throw an error, but only prints it and returns nothing.
    swallowed: ClassVar[tuple[str, ...]] = ()

    def calls(self, secret: str) -> list[Call]:
        """Makes all calls and returns their outcomes. The last call has no stack key."""
        self.upstream.arrived.clear()
        answer = subprocess.run(
            self.command,
            cwd=self.folder_of_calls,
            env=os.environ | {"API": f"{self.host}:{port(self.envoy.address)}", "STACK": STACK},
            input=secret,
            stdout=subprocess.PIPE,
            # Some calls print the whole request with its token to standard error.
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=300,
        )
        self.assertEqual(answer.returncode, 0)
        self.assertNotIn(secret, answer.stdout, "the SDK printed the token")
        calls = [json.loads(line) for line in answer.stdout.splitlines()]
        for call in calls:
            # On a busy machine, a check can exceed Envoy's timeout. The call is then repeated.
            call["requests"] = [seen for seen in call["requests"] if seen["status"] != 503]
            self.assertEqual(len(call["requests"]), 1, call)
        return calls

    def require_decisions(self, access: str) -> list[Call]:
        """Makes all calls with a new token and checks them. Returns the calls that have a stack
        key."""
        token = self.server.issue(access)
        wanted = Decisions(access, *self.tables)
        *calls, without_key = self.calls(token.secret)
        self.require_refusal(without_key, 412, "STACK_KEY_MISSING")
        passed = []
        for call in calls:
            decision = wanted.of(sent(call))
            if decision == "ALLOWED":
                self.require_success(call)
                passed.append(sent(call))
            else:
                self.require_refusal(call, 403, decision)
        arrived = self.upstream.arrived
        self.assertEqual([(request.method, request.path) for request in arrived], passed)
        for request in arrived:
            self.require_identity(request, token, access)
        return calls

    def require_reads(self) -> None:
        """Asserts that no request that reached the API can have changed the stack."""
        for request in self.upstream.arrived:
            self.assertEqual(request.method, "GET", request.path)
            self.assertFalse(request.path.endswith(WRITES), request.path)

    def require_unauthorized(self, secret: str, reason: str) -> None:
        known = Decisions("read", *self.tables)
        *calls, without_key = self.calls(secret)
        self.require_refusal(without_key, 412, "STACK_KEY_MISSING")
        for call in calls:
            # A query that is refused for every token is refused before the token is looked up.
            refused = known.of(sent(call)) == "QUERY_REFUSED"
            expected = (403, "QUERY_REFUSED") if refused else (401, reason)
            self.require_refusal(call, *expected)
        self.assertEqual(self.upstream.arrived, [])

    def require_success(self, call: Call) -> None:
        (request,) = call["requests"]
        self.assertEqual((request["status"], request["reason"]), (200, ""), call)
        self.assertEqual((call["returned"], call["error"]), (True, None), call)

    def require_refusal(self, call: Call, status: int, reason: str) -> None:
        """Asserts that the SDK reports the API's error with its status, code and text."""
        (request,) = call["requests"]
        self.assertEqual((request["status"], request["reason"]), (status, reason), call)
        self.assertFalse(call["returned"], call)
        error = call["error"]
        if request["path"].startswith(self.swallowed):
            self.assertIsNone(error, "the SDK throws it now: remove its path from `swallowed`")
            return
        self.assertEqual((error["status"], error["code"]), (status, CODES[status]), call)
        self.assertTrue(error["text"], call)


def sent(call: Call) -> tuple[str, str]:
    (request,) = call["requests"]
    return request["method"], request["path"]
