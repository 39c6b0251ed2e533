"""Prints a history (JSON lines) as the TLA+ module Recorded.

usage: recorded.py FILE BOUND [stale|early]

With `stale` or `early`, one answer is added that the program must never give: "active" one
microsecond later than the bound after a revoke was acknowledged, or "inactive" before it was sent.
"""

import json
import sys
from collections import defaultdict

NEVER = 2**31 - 1


def planted(kind, revokes, bound):
    """Returns an answer about a revoked token that no order of events explains."""
    revoke = next(r for r in revokes.values() if r["acknowledged"] is not None and r["sent"] > 2)
    begun = revoke["acknowledged"] + bound + 1 if kind == "stale" else 0
    return {"token": revoke["token"], "begun": begun, "ended": begun + 1, "active": kind == "stale",
            "min_revision": False, "position": 0}


def record(answer):
    values = {
        "begun": answer["begun"],
        "ended": answer["ended"],
        "active": str(answer["active"]).upper(),
        "min_revision": str(answer["min_revision"]).upper(),
        "position": answer["position"] or 0,
    }
    return "[" + ", ".join(f"{name} |-> {value}" for name, value in values.items()) + "]"


def life(revoke, answers):
    """Returns the life of one token: its revoke, and the answers in the order of their arrival."""
    given = [NEVER if revoke.get(name) is None else revoke[name] for name in ("sent", "acknowledged", "position")]
    lines = ",\n  ".join(record(answer) for answer in sorted(answers, key=lambda answer: answer["ended"]))
    return (f"[sent |-> {given[0]}, acknowledged |-> {given[1]}, position |-> {given[2]}, answers |-> <<\n"
            f"  {lines}>>]")


def main(file, bound, plant=None):
    revokes, answers = {}, defaultdict(list)
    with open(file, encoding="utf-8") as lines:
        for event in map(json.loads, lines):
            if event["event"] == "revoke":
                revokes[event["token"]] = event
            else:
                answers[event["token"]].append(event)
    if plant:
        extra = planted(plant, revokes, int(bound))
        answers[extra["token"]].append(extra)
    tokens = sorted(answers)
    print("---- MODULE Recorded ----\nEXTENDS Naturals")
    # A definition of its own for each token: the parser is slow with one large expression.
    for number, token in enumerate(tokens):
        print(f"T{number} ==\n {life(revokes.get(token, {}), answers[token])}")
    print(f"Bound == {bound}\nNever == {NEVER}")
    print("Tokens == <<" + ", ".join(f"T{number}" for number in range(len(tokens))) + ">>\n====")
    print(f"{len(tokens)} tokens, {len(revokes)} revokes, {sum(map(len, answers.values()))} answers", file=sys.stderr)


main(*sys.argv[1:])
