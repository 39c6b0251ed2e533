------------------------------- MODULE History -------------------------------
(* A history of the real program, replayed: what the callers of two replicas saw while faults     *)
(* happened (tests/replicas/history.rs). Recorded is generated from it by recorded.py. Of         *)
(* Freshness, callers can see when a revoke was sent and acknowledged and what was answered, so   *)
(* each answer must be one that Freshness allows at some instant between its question and its     *)
(* arrival. All times are of one clock, in microseconds.                                          *)
EXTENDS Naturals, Sequences, Recorded

VARIABLES
    token,  \* the token whose answers are replayed
    at,     \* the next answer, in the order of their arrival
    known   \* when the revoke was acknowledged or, if earlier, when an answer showed it

vars == <<token, at, known>>

Life == Tokens[token]
Seen == Life.answers[at]
Min(a, b) == IF a < b THEN a ELSE b

Init == token \in DOMAIN Tokens /\ at = 1 /\ known = Tokens[token].acknowledged

Next ==
    /\ at <= Len(Life.answers)
    /\ known' = IF Seen.active THEN known ELSE Min(known, Seen.ended)
    /\ at' = at + 1 /\ token' = token

Spec == Init /\ [][Next]_vars

(* No answer is "active" later than the bound after the revoke was known, despite `min_revision`,  *)
(* or from a revision that contains the revoke; none is "inactive" before a revoke was sent.      *)
Allowed ==
    at <= Len(Life.answers) =>
        IF Seen.active
        THEN /\ known = Never \/ Seen.begun <= known + Bound
             /\ ~Seen.min_revision
             /\ Seen.position < Life.position
        ELSE Life.sent <= Seen.ended
=============================================================================
