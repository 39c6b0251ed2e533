"""Uses the Python SDK as a script does, with a management token from standard input. Records the
requests and the outcomes of its calls."""

import os
import sys
from collections.abc import Callable
from typing import Any

import contentstack_management
import requests

STACK = os.environ["STACK"]
SECRET = sys.stdin.read().strip()
SEND = requests.Session.send
observed: list[dict[str, Any]] = []


def send(session: requests.Session, request: requests.PreparedRequest, **settings: Any) -> Any:
    """Sends a request unchanged, and records it with its response."""
    answer = SEND(session, request, **settings)
    names = {"reason": "x-stacktoken-reason", "retryAfter": "retry-after"}
    seen = {"method": request.method, "path": request.path_url, "status": answer.status_code}
    observed.append(seen | {key: answer.headers.get(name, "") for key, name in names.items()})
    return answer


requests.Session.send = send  # type: ignore[method-assign, assignment]


def connect() -> Any:
    # The default timeout of 2 s is too short on a busy machine.
    settings = {"host": os.environ["API"], "scheme": "http://", "timeout": 60}
    return contentstack_management.Client(management_token=SECRET, **settings)


def outcome(call: Callable[[], Any], attempts: int = 1) -> dict[str, Any]:
    """Makes a call, and repeats it during an outage, because the SDK does not retry. Returns the
    requests, whether the call succeeded, and the error of the API."""
    observed.clear()
    error = None
    answer = call()
    while answer.status_code == 503 and len(observed) < attempts:
        answer = call()
    if answer.status_code >= 400:
        body = answer.json()
        parts = {"code": body["error_code"], "text": body["error_message"]}
        error = {"status": answer.status_code} | parts
    return {"requests": observed, "returned": error is None, "error": error}
