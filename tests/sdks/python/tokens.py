"""Manages tokens with the Python SDK, signed in by the JWT on standard input. Prints one JSON object
with what the service answered.

    API=127.0.0.1:8466 STACK=blt… python tokens.py < JWT
"""

import json
import os
import sys
from typing import Any

import contentstack_management

STACK = os.environ["STACK"]
JWT = sys.stdin.read().strip()
TOKEN = {
    "name": "Python SDK",
    "description": "made by a test",
    "scope": [
        {"module": "content_type", "acl": {"read": True, "write": True}},
        {"module": "branch", "branches": ["main"], "acl": {"read": True}},
    ],
    "expires_on": "2120-12-10",
    "is_email_notification_enabled": False,
}


def tokens(uid: str | None = None) -> Any:
    """Returns a new client, because a client keeps the headers and the parameters of a call."""
    settings = {"host": os.environ["API"], "scheme": "http://", "timeout": 60}
    client = contentstack_management.Client(authtoken=JWT, **settings)
    return client.stack(STACK).management_token(uid)


def failed(answer: Any) -> dict[str, Any]:
    error = answer.json()
    errors = {"errorCode": error["error_code"], "errors": error["errors"]}
    return {"status": answer.status_code} | errors


created = tokens().create({"token": TOKEN}).json()["token"]
uid, secret = created["uid"], created["token"]
listed = tokens().find().json()["tokens"]
# The client sends the whole object that was returned, including the secret.
renamed = tokens(uid).update({"token": created | {"name": "Python SDK, renamed"}}).json()["token"]
fetched = tokens(uid).fetch().json()["token"]
wide = {"scope": [{"module": "$all", "acl": {"read": True}}], "expires_on": None}
widened = tokens(uid).update({"token": fetched | wide}).json()["token"]
taken = failed(tokens().create({"token": TOKEN | {"name": renamed["name"]}}))
mailed = failed(tokens().create({"token": TOKEN | {"is_email_notification_enabled": True}}))
deleted = tokens(uid).delete().json()
after = tokens().find().json()["tokens"]
outcome = {
    "uid": uid,
    "secret": secret,
    "listed": [token["name"] for token in listed],
    "renamed": renamed["name"],
    "widened": [widened["scope"], widened["expires_on"]],
    "taken": taken,
    "mailed": mailed,
    "deleted": "string" if isinstance(deleted["notice"], str) else "missing",
    "after": len(after),
    "gone": failed(tokens(uid).fetch()),
}
print(json.dumps(outcome))
