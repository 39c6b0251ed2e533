"""Makes each call of the Python SDK once, and prints its outcome: a line of JSON with the requests
that were sent, and what the SDK returned.

    API=127.0.0.1:8080 STACK=blt… python calls.py < TOKEN
"""

import json
from typing import Any

import content
import rest
from observe import STACK, connect, outcome


def calls() -> list[Any]:
    made: list[Any] = []
    for kind in (*content.ALL, *rest.ALL):
        # Each call needs a new client, because a client keeps the parameters of a call for the next
        # one.
        made += kind(connect().stack(STACK), __file__)
    client = connect()
    client.client.headers["api_key"] = STACK
    return [*made, *rest.people(client), lambda: connect().user().fetch()]


for call in calls():
    print(json.dumps(outcome(call, attempts=5)))
