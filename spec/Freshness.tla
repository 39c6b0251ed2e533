------------------------------ MODULE Freshness ------------------------------
(* Why a revoke holds (docs/architecture.md): one replica that answers, the databases that it may *)
(* reach, and one revoke, made by this replica or by another. Replicas share nothing but the      *)
(* database, so any number of other replicas is an environment that may commit at any time.       *)
(*                                                                                                *)
(* Time is the age of each instant, in ticks, up to "past the bound". So the length of a run is   *)
(* not bounded. A pause of the process is a series of ticks in which it takes no step. A lost     *)
(* notification needs no step either: nothing here depends on one.                                *)
EXTENDS Naturals

CONSTANTS
    Bound,   \* the freshness bound, in ticks
    Writer,  \* who makes the revoke: "here" (this replica) or "elsewhere"
    Fate,    \* what else the address may lead to: "none", "demoted" (a standby is promoted, and the
             \* former primary still answers), "crashed" (the same server after crash recovery),
             \* "copy" (a restored dump), "empty" (a database that never had the token); or "sole":
             \* this replica is the only process, as on SQLite, so that its lease never ends
    Asks,    \* what questions require: "fresh", or "min" (the revision of the acknowledged revoke)
    Off      \* the safeguard that is switched off, or "none"

VARIABLES
    moved,   \* whether the fate has come true: database 2 exists
    next,    \* the next transaction id of each database
    other,   \* the position of an unrelated change, or 0
    revoke,  \* the transaction of the revoke; `tried`: its COMMIT was sent at least once
    purged,  \* whether the row of the revoke was purged from the change log
    ack,     \* the age of the acknowledgement of the revoke
    ackHere, \* whether this replica acknowledged it
    call,    \* the call that revokes here: "none", "waiting", "doubt", "failed" or "done"
    lease,   \* the adopted database, the ages of the last poll and heartbeat, the applied position
    cursor,  \* where the next poll starts, and in which database
    cache,   \* the facts of the token: "none", "live" or "dead"
    barred,  \* whether the token is barred from the cache
    poll, beat, look, ask,  \* a poll, a heartbeat, a lookup and a question in flight
    fault    \* the first wrong answer, or ""

vars == <<moved, next, other, revoke, purged, ack, ackHere, call, lease, cursor, cache, barred,
          poll, beat, look, ask, fault>>
database == <<moved, next, other, revoke, purged, ack, ackHere, call>>
memory == <<lease, cursor, cache, barred>>

On(safeguard) == Off # safeguard
Past == Bound + 1
Never == Bound + 2
Older(age) == IF age < Past THEN age + 1 ELSE age
Max(a, b) == IF a > b THEN a ELSE b
Min(a, b) == IF a < b THEN a ELSE b

(* --- The databases ---------------------------------------------------------------------------- *)

Alone == Fate \in {"none", "sole"}
Foreign == Fate \in {"copy", "empty"}
Primary == IF moved /\ ~Foreign THEN 2 ELSE 1
Reachable(d) == IF d = 2 THEN moved ELSE ~moved \/ Fate # "crashed"
\* A former primary waits for the standby that it lost.
Commits(d) == d = Primary \/ (d = 2 /\ moved)
\* Origins differ in timeline, system identifier or epoch, after a crash only in the incarnation.
Same(d, e) == d = e \/ (Fate = "crashed" /\ ~On("incarnation"))
Has(d) == \/ revoke.at = "committed" /\ (revoke.db = d \/ (revoke.db = 1 /\ ~Foreign))
          \/ revoke.at = "local" /\ d = 1
Found(d) == IF Has(d) \/ (d = 2 /\ Fate = "empty") THEN "dead" ELSE "live"
InProgress(d) == revoke.at \in {"begun", "sent"} /\ revoke.db = d
Newest(d) == Max(IF Has(d) THEN revoke.id ELSE 0, other)

Move ==
    /\ ~moved /\ ~Alone
    /\ moved' = TRUE
    \* Ids that were not flushed are assigned again.
    /\ \E id \in Newest(1) + 1 .. next[1] : next' = [next EXCEPT ![2] = id]
    /\ revoke' = IF revoke.at \in {"begun", "sent", "local"} /\ ~Foreign
                 THEN [revoke EXCEPT !.at = "idle"] ELSE revoke
    /\ UNCHANGED <<other, purged, ack, ackHere, call, memory, poll, beat, look, ask, fault>>

\* A transaction takes an id and leaves nothing, or commits an unrelated change.
TakeId(d) ==
    /\ Writer = "elsewhere" /\ Fate \in {"none", "crashed"} /\ revoke.at \in {"idle", "sent"}
    /\ next[d] < 3 /\ Commits(d) /\ Reachable(d)
    /\ next' = [next EXCEPT ![d] = @ + 1]
    /\ IF Fate = "none" THEN other' = next[d] ELSE other' = other
    /\ UNCHANGED <<moved, revoke, purged, ack, ackHere, call, memory, poll, beat, look, ask, fault>>

(* --- The revoke ------------------------------------------------------------------------------- *)

\* Evicts the facts of the token, and refuses fills from lookups that have started.
Overtaken == [look EXCEPT !.overtaken = look.stage # "idle"]
Evicted == cache' = "none" /\ look' = Overtaken
Kept == UNCHANGED <<cache, look>>

Begin(d) ==
    /\ revoke.at = "idle" /\ next[d] < 3 /\ Commits(d) /\ Reachable(d)
    /\ Writer = "here" => call = "none"
    /\ On("change_origins") => d = Primary /\ (Writer = "here" => Same(d, lease.origin))
    /\ revoke' = [at |-> IF Writer = "here" THEN "begun" ELSE "sent", db |-> d, id |-> next[d],
                  tried |-> Writer = "elsewhere" \/ revoke.tried]
    /\ next' = [next EXCEPT ![d] = @ + 1]
    /\ UNCHANGED <<moved, other, purged, ack, ackHere, call, memory, poll, beat, look, ask, fault>>

Send ==
    /\ revoke.at = "begun"
    /\ revoke' = [revoke EXCEPT !.at = "sent", !.tried = TRUE]
    /\ call' = "waiting" /\ barred' = On("bar")
    /\ IF On("bar") THEN Evicted ELSE Kept
    /\ UNCHANGED <<moved, next, other, purged, ack, ackHere, lease, cursor, poll, beat, ask, fault>>

\* The transaction ends. `pg_cancel_backend` ends the wait for the standby with a warning: "local".
End(at) ==
    /\ revoke.at = "sent" \/ (revoke.at = "local" /\ at = "committed")
    /\ at = "local" => Fate = "demoted" /\ ~moved
    /\ Commits(revoke.db) /\ Reachable(revoke.db)
    /\ revoke' = [revoke EXCEPT !.at = at]
    /\ fault' = IF call = "failed" /\ at # "idle" THEN "reported as failed" ELSE fault
    /\ UNCHANGED <<moved, next, other, purged, ack, ackHere, call, memory, poll, beat, look, ask>>

Acknowledged == revoke.at = "committed" \/ (revoke.at = "local" /\ ~On("warning"))

Acknowledge ==
    /\ ack = Never /\ ack' = 0 /\ Acknowledged
    /\ IF Writer = "here" /\ call = "waiting"
       THEN /\ ackHere' = TRUE /\ call' = "done" /\ barred' = FALSE
            /\ IF On("own_changes") THEN Evicted ELSE Kept
       ELSE Kept /\ UNCHANGED <<ackHere, call, barred>>
    /\ UNCHANGED <<moved, next, other, revoke, purged, lease, cursor, poll, beat, ask, fault>>

\* The caller repeats the revoke here, and this replica finds that it is done.
Repeat ==
    /\ revoke.at = "committed" /\ ~ackHere /\ Same(Primary, lease.origin) /\ call # "waiting"
    /\ ackHere' = TRUE /\ ack' = IF ack = Never THEN 0 ELSE ack
    /\ IF On("repetition") THEN Evicted ELSE Kept
    /\ UNCHANGED <<moved, next, other, revoke, purged, call, lease, cursor, barred, poll, beat, ask,
                   fault>>

Lift == barred' = FALSE /\ IF On("lift_evicts") THEN Evicted ELSE Kept

\* The call ends without a COMMIT that succeeded: the deadline, or a dead connection.
Doubt ==
    /\ call = "waiting"
    /\ IF On("unknown_outcome")
       THEN call' = "doubt" /\ UNCHANGED <<barred, cache, look, fault>>
       ELSE /\ call' = "failed" /\ Lift
            /\ fault' = IF revoke.at \in {"local", "committed"} THEN "reported as failed" ELSE fault
    /\ UNCHANGED <<moved, next, other, revoke, purged, ack, ackHere, lease, cursor, poll, beat, ask>>

\* The status of the transaction is queried until it is definite. Another database does not know
\* the transaction, so that the bar may be lifted early.
Resolve(d) ==
    /\ call = "doubt" /\ Reachable(d)
    /\ d = revoke.db => revoke.at # "sent" \/ ~On("in_progress")
    /\ call' = "none" /\ Lift
    /\ UNCHANGED <<moved, next, other, revoke, purged, ack, ackHere, lease, cursor, poll, beat, ask,
                   fault>>

\* Housekeeping deletes rows that are older than any answer.
Purge ==
    /\ ~purged /\ revoke.at = "committed" /\ ack = Past
    /\ purged' = TRUE
    /\ UNCHANGED <<moved, next, other, revoke, ack, ackHere, call, memory, poll, beat, look, ask,
                   fault>>

(* --- Polls and heartbeats --------------------------------------------------------------------- *)

NoPoll == [stage |-> "idle", age |-> 0, db |-> 0, next |-> 0, saw |-> FALSE, lost |-> FALSE,
           resume |-> 0]

\* The snapshot: the rows from the cursor on, and where to continue, which is the oldest
\* transaction in progress. A row may become visible after a row with a higher id.
PollRead(d) ==
    /\ Fate # "sole" /\ poll.stage = "idle" /\ Reachable(d)
    /\ LET follows == Same(cursor.db, d) \/ ~On("cursor_origin")
           row == Has(d) /\ revoke.id >= cursor.from
           oldest == IF InProgress(d) THEN revoke.id ELSE next[d]
           after == IF On("commit_order") THEN oldest ELSE Max(cursor.from, Newest(d) + 1)
           below == IF Has(d) /\ revoke.id < oldest THEN revoke.id ELSE 0
       IN poll' = [poll EXCEPT !.stage = "read", !.db = d, !.next = after,
                               !.saw = row /\ follows /\ ~purged,
                               !.lost = ~follows \/ (row /\ purged),
                               !.resume = IF Asks # "min" THEN 0
                                          ELSE IF On("revision_of_rows") THEN below ELSE oldest - 1]
    /\ UNCHANGED <<database, memory, beat, look, ask, fault>>

PollFail ==
    /\ poll.stage = "read"
    /\ poll' = NoPoll
    /\ UNCHANGED <<database, memory, beat, look, ask, fault>>

ApplyPoll ==
    IF poll.lost
    THEN /\ cache' = IF On("lost_history") THEN "none" ELSE cache
         /\ look' = IF On("lost_history") /\ On("clearing_counts") THEN Overtaken ELSE look
    ELSE IF poll.saw THEN Evicted ELSE Kept

\* Evicts, and then renews the lease. In between, the former lease holds, which allows less.
PollApply ==
    /\ poll.stage = "read"
    /\ IF Same(poll.db, lease.origin) \/ ~On("poll_origin")
       THEN /\ cursor' = [db |-> poll.db, from |-> poll.next]
            /\ lease' = [lease EXCEPT !.read = Min(@, IF On("poll_start") THEN poll.age ELSE 0),
                                      !.applied = poll.resume]
            /\ IF On("renew_last") THEN ApplyPoll /\ poll' = NoPoll
                                   ELSE Kept /\ poll' = [poll EXCEPT !.stage = "renewed"]
       ELSE poll' = NoPoll /\ Kept /\ UNCHANGED <<cursor, lease>>
    /\ UNCHANGED <<database, barred, beat, ask, fault>>

PollEvict ==
    /\ poll.stage = "renewed" /\ ApplyPoll /\ poll' = NoPoll
    /\ UNCHANGED <<database, lease, cursor, barred, beat, ask, fault>>

\* A heartbeat of another database adopts it: everything known is about the former one.
Adopt(d, age) ==
    /\ lease' = [origin |-> d, beat |-> age, applied |-> 0,
                 read |-> Never]
    /\ Evicted
    /\ IF call = "doubt" THEN call' = "none" /\ barred' = FALSE ELSE UNCHANGED <<call, barred>>

NoteBeat(d, age) ==
    IF d = 2 /\ Foreign /\ On("system") THEN UNCHANGED <<lease, cache, look, call, barred>>
    ELSE IF Same(d, lease.origin)
    THEN lease' = [lease EXCEPT !.beat = Min(@, age)] /\ UNCHANGED <<cache, look, call, barred>>
    ELSE Adopt(d, age)

\* Its response may be late, but that is the same as a heartbeat that started earlier.
Beat(d) ==
    /\ ~Alone /\ Reachable(d) /\ (Commits(d) \/ ~On("waits_for_standby"))
    /\ IF On("beat_start") THEN NoteBeat(d, 0) /\ beat' = 0
       ELSE beat = 0 /\ beat' = d /\ UNCHANGED <<lease, cache, look, call, barred>>
    /\ UNCHANGED <<moved, next, other, revoke, purged, ack, ackHere, cursor, poll, ask, fault>>

\* Only without `beat_start`: the response is dated by its arrival.
BeatLate ==
    /\ beat # 0 /\ NoteBeat(beat, 0) /\ beat' = 0
    /\ UNCHANGED <<moved, next, other, revoke, purged, ack, ackHere, cursor, poll, ask, fault>>

(* --- Questions and lookups -------------------------------------------------------------------- *)

NoLook == [stage |-> "idle", age |-> 0, db |-> 0, found |-> "none", overtaken |-> FALSE,
           reflects |-> FALSE, waits |-> FALSE, after |-> FALSE]
NoAsk == [stage |-> "idle", since |-> 0, found |-> "none", after |-> FALSE]

BeatAge == IF On("heartbeat") THEN lease.beat ELSE 0
Since == Min(Past, Max(lease.read, BeatAge))

\* Records what is wrong with an answer at this instant, to a question that arrived after this
\* replica acknowledged the revoke, or not.
Answer(verdict, after) ==
    fault' = CASE verdict = "live" /\ ack = Past -> "active past the bound"
               [] verdict = "live" /\ after -> "active after this replica acknowledged"
               [] verdict = "live" /\ Asks = "min" -> "active despite min_revision"
               [] verdict = "dead" /\ ~revoke.tried -> "inactive without a revoke"
               [] OTHER -> fault

\* A question arrives. The lease is read, then the cache, and the clock last. While there may be
\* another database, this is one step.
MayAsk == Asks = "min" => ack # Never
AskRead ==
    /\ Alone /\ MayAsk /\ ask.stage = "idle"
    /\ ask' = [stage |-> "read", since |-> Since, found |-> cache, after |-> ackHere]
    /\ UNCHANGED <<database, memory, poll, beat, look, fault>>

Question == IF Alone THEN ask
            ELSE [stage |-> "read", since |-> Since, found |-> cache, after |-> ackHere]
Covered == (IF On("view_first") THEN Question.since ELSE Since) <= Bound \/ ~On("lease")
FromCache == /\ Question.found # "none" /\ Covered
             /\ Asks = "fresh" \/ lease.applied >= revoke.id

AskCache ==
    /\ MayAsk /\ Question.stage = "read" /\ FromCache
    /\ Answer(Question.found, Question.after)
    /\ ask' = NoAsk
    /\ UNCHANGED <<database, memory, poll, beat, look>>

\* Joins the lookup in flight if nothing was evicted since it started, or starts another.
AskLook(d) ==
    /\ MayAsk /\ Question.stage = "read" /\ ~FromCache /\ Reachable(d)
    /\ ask' = NoAsk
    /\ LET joins == /\ look.stage # "idle"
                    /\ ~On("flights") \/ (~look.overtaken /\ Covered /\ Asks = "fresh")
           row == IF On("revision_by_row") THEN Has(d) ELSE revoke.id < next[d]
       IN look' = IF joins THEN [look EXCEPT !.waits = TRUE, !.after = @ \/ Question.after]
                  ELSE [stage |-> "read", age |-> 0, db |-> d, found |-> Found(d),
                        overtaken |-> FALSE, reflects |-> Asks = "fresh" \/ row,
                        waits |-> TRUE, after |-> Question.after]
    /\ UNCHANGED <<database, memory, poll, beat, fault>>

\* The caller disconnects. The lookup continues.
AskDrop ==
    /\ Alone /\ look.waits
    /\ look' = [look EXCEPT !.waits = FALSE, !.after = FALSE]
    /\ UNCHANGED <<database, memory, poll, beat, ask, fault>>

\* The age of the result, and whether its database was the primary within the bound. If not, the
\* answer is UNAVAILABLE (or waits for the next heartbeat, which here is a later step).
LookApply ==
    /\ look.stage = "read"
    /\ look' = NoLook
    /\ LET trusted == Same(look.db, lease.origin) \/ ~On("look_up_origins")
           fills == trusted /\ ~barred /\ (~look.overtaken \/ ~On("generations"))
           fresh == \/ look.age <= Bound /\ BeatAge <= Bound /\ lease.read # Never
                    \/ ~On("reading_age")
           answers == look.waits /\ trusted /\ fresh /\ (look.reflects \/ ~On("reflection"))
       IN /\ cache' = IF fills THEN look.found ELSE cache
          /\ IF answers THEN Answer(look.found, look.after) ELSE fault' = fault
    /\ UNCHANGED <<database, lease, cursor, barred, poll, beat, ask>>

\* The store does not answer. That is no verdict.
LookFail ==
    /\ look.stage = "read"
    /\ look' = NoLook
    /\ IF look.waits /\ ~On("outage") THEN Answer("dead", FALSE) ELSE fault' = fault
    /\ UNCHANGED <<database, memory, poll, beat, ask>>

(* --- The whole -------------------------------------------------------------------------------- *)

Tick ==
    /\ ack' = Older(ack)
    /\ lease' = [lease EXCEPT !.read = IF Fate = "sole" THEN 0 ELSE Older(@),
                              !.beat = IF Alone THEN 0 ELSE Older(@)]
    /\ poll' = IF poll.stage = "idle" THEN poll ELSE [poll EXCEPT !.age = Older(@)]
    /\ look' = IF look.stage = "idle" THEN look ELSE [look EXCEPT !.age = Older(@)]
    /\ ask' = IF ask.stage = "view" \/ (ask.stage = "read" /\ On("clock_last"))
              THEN [ask EXCEPT !.since = Older(@)] ELSE ask
    /\ UNCHANGED <<moved, next, other, revoke, purged, ackHere, call, cursor, cache, barred,
                   beat, fault>>

Init ==
    /\ moved = FALSE /\ next = <<1, 1>> /\ other = 0 /\ purged = FALSE
    /\ revoke = [at |-> "idle", db |-> 1, id |-> 0, tried |-> FALSE]
    /\ ack = Never /\ ackHere = FALSE /\ call = "none"
    /\ lease = [origin |-> 1, read |-> 0, beat |-> 0, applied |-> 0]
    /\ cursor = [db |-> 1, from |-> 1]
    /\ cache \in {"none", "live"} /\ barred = FALSE
    /\ poll = NoPoll /\ beat = 0 /\ look = NoLook /\ ask = NoAsk
    /\ fault = ""

Next ==
    \/ Tick \/ Move \/ Send \/ Acknowledge \/ Repeat \/ Doubt \/ Purge
    \/ \E at \in {"committed", "local", "idle"} : End(at)
    \/ \E d \in {1, 2} : TakeId(d) \/ Begin(d) \/ Resolve(d) \/ PollRead(d) \/ Beat(d) \/ AskLook(d)
    \/ PollFail \/ PollApply \/ PollEvict \/ BeatLate
    \/ AskRead \/ AskCache \/ AskDrop \/ LookApply \/ LookFail

Spec == Init /\ [][Next]_vars

(* R12 and R13: no answer is wrong, and no change that was reported as failed is committed.        *)
NoFault == fault = ""
=============================================================================
