------------------------------- MODULE Watching -------------------------------
(* Why a watcher misses nothing (docs/architecture.md): a client that caches answers under Watch, *)
(* two replicas that it may watch and ask, and one revoke. A replica is what Freshness shows of   *)
(* it: every change acknowledged before its lease began is applied and published, and no answer   *)
(* is older than the bound. Ages are as in Freshness.                                             *)
EXTENDS Naturals, Sequences

CONSTANTS
    Bound,  \* the freshness bound, in ticks
    Off     \* the safeguard that is switched off, or "none"

VARIABLES
    revoke,   \* "idle", "committed" or "purged" (committed, and its row is deleted)
    ack,      \* the age of its acknowledgement
    applied,  \* whether each replica has applied and published it
    lease,    \* the age of each replica's lease
    stream,   \* the replica that is watched (0: none), whether a ping was answered on this stream,
              \* and whether the revoke is within the revision that its events carry
    queue,    \* its events on the way: "change", or a pong with the age of its ping and a staleness
    ping,     \* the age of a ping on its way to the replica
    covered,  \* the client's lease: the age of the instant before which every change was received
    resume,   \* the revision to resume from: 1 if the revoke is within it, 2 if there is none
    min,      \* the revision that an answer must reflect to be cached, likewise
    cache,    \* whether the client has cached the facts of the live token
    pending,  \* an answer on its way: whether there is one that says "live", and
              \* whether a change was received since the question
    fault

vars == <<revoke, ack, applied, lease, stream, queue, ping, covered, resume, min, cache, pending, fault>>

On(safeguard) == Off # safeguard
Past == Bound + 1
Never == Bound + 2
Older(age) == IF age < Past THEN age + 1 ELSE age
Max(a, b) == IF a > b THEN a ELSE b
Min(a, b) == IF a < b THEN a ELSE b
Committed == revoke # "idle"

(* --- The replicas ----------------------------------------------------------------------------- *)

Commit ==
    /\ revoke = "idle" /\ revoke' = "committed"
    /\ UNCHANGED <<ack, applied, lease, stream, queue, ping, covered, resume, min, cache, pending, fault>>

Acknowledge ==
    /\ Committed /\ ack = Never /\ ack' = 0
    /\ UNCHANGED <<revoke, applied, lease, stream, queue, ping, covered, resume, min, cache, pending, fault>>

Purge ==
    /\ revoke = "committed" /\ ack = Past /\ revoke' = "purged"
    /\ UNCHANGED <<ack, applied, lease, stream, queue, ping, covered, resume, min, cache, pending, fault>>

\* A poll finds the revoke, and publishes it to the stream. The rows may be purged before that: then
\* the replica publishes that changes are lost, and the stream ends.
Publish(s) ==
    /\ Committed /\ ~applied[s]
    /\ applied' = [applied EXCEPT ![s] = TRUE]
    /\ IF stream.of # s THEN UNCHANGED <<stream, queue>>
       ELSE IF revoke = "committed"
       THEN queue' = Append(queue, [is |-> "change"]) /\ stream' = stream
       ELSE queue' = Append(queue, [is |-> "lost"]) /\ stream' = stream
    /\ UNCHANGED <<revoke, ack, lease, ping, covered, resume, min, cache, pending, fault>>

\* The lease is renewed last: what was acknowledged before the poll is published.
Renew(s) ==
    /\ \E age \in 0 .. lease[s] :
          /\ (ack # Never /\ ack > age) => applied[s]
          /\ age < lease[s]
          /\ lease' = [lease EXCEPT ![s] = age]
    /\ UNCHANGED <<revoke, ack, applied, stream, queue, ping, covered, resume, min, cache, pending, fault>>

(* --- The stream ------------------------------------------------------------------------------- *)

NoStream == [of |-> 0, live |-> FALSE, high |-> 0]
NoPending == [is |-> FALSE, overtaken |-> FALSE]

\* Discards what was received, because the stream does not continue from it.
Reset ==
    /\ IF On("reset") THEN cache' = FALSE /\ covered' = Past /\ min' = 0
                      ELSE UNCHANGED <<cache, covered, min>>
    /\ pending' = [pending EXCEPT !.overtaken = pending.is /\ On("reset")]
    /\ resume' = 2

\* Another stream replaces the former one. It is subscribed first, and then the store is read for
\* the changes from `resume` on. A change that this misses is published later.
Open(s) ==
    /\ stream.of = 0
    /\ IF resume = 0 /\ revoke = "purged" /\ On("lost_history")
       THEN /\ Reset
            /\ stream' = NoStream /\ queue' = <<>> /\ ping' = Never
       ELSE \E sees \in BOOLEAN :
            /\ sees => Committed
            /\ (On("subscribe_first") /\ applied[s]) => sees
            /\ LET high == IF resume = 1 \/ (sees /\ (resume = 0 \/ On("first_revision"))) THEN 1 ELSE 0
               IN stream' = [of |-> s, live |-> FALSE, high |-> high]
            /\ queue' = IF sees /\ resume = 0 /\ revoke = "committed" THEN <<[is |-> "change"]>> ELSE <<>>
            /\ ping' = 0
            /\ IF resume = 2 THEN Reset
               ELSE UNCHANGED <<cache, covered, min, resume, pending>>
    /\ UNCHANGED <<revoke, ack, applied, lease, fault>>

\* The stream ends: cut, closed, or overwritten events (WATCH_LAGGED).
Close ==
    /\ stream.of # 0
    /\ stream' = NoStream /\ queue' = <<>> /\ ping' = Never
    /\ UNCHANGED <<revoke, ack, applied, lease, covered, resume, min, cache, pending, fault>>

Overwrite ==
    /\ ~On("lagged") /\ queue # <<>> /\ queue' = Tail(queue)
    /\ UNCHANGED <<revoke, ack, applied, lease, stream, ping, covered, resume, min, cache, pending, fault>>

Ping ==
    /\ stream.of # 0 /\ ping = Never /\ \A i \in DOMAIN queue : queue[i].is # "pong"
    /\ ping' = 0
    /\ UNCHANGED <<revoke, ack, applied, lease, stream, queue, covered, resume, min, cache, pending, fault>>

\* The replica takes its lease first, and then queues the pong behind everything published.
Pong ==
    /\ stream.of # 0 /\ ping # Never
    /\ queue' = Append(queue, [is |-> "pong", age |-> ping, staleness |-> lease[stream.of]])
    /\ ping' = Never
    /\ UNCHANGED <<revoke, ack, applied, lease, stream, covered, resume, min, cache, pending, fault>>

Receive ==
    /\ queue # <<>>
    /\ LET event == Head(queue) IN
       CASE event.is = "change" ->
              /\ cache' = FALSE /\ pending' = [pending EXCEPT !.overtaken = pending.is]
              /\ stream' = [stream EXCEPT !.high = 1] /\ min' = 1
              /\ resume' = IF resume = 2 THEN 0 ELSE resume
              /\ queue' = Tail(queue) /\ UNCHANGED <<covered, ping>>
         [] event.is = "pong" ->
              /\ LET staleness == IF On("lease_first") THEN event.staleness ELSE lease[stream.of]
                     counted == IF On("staleness") THEN staleness ELSE 0
                     sent == IF On("sending_time") THEN event.age ELSE 0
                 IN covered' = Min(covered, sent + counted)
              /\ stream' = [stream EXCEPT !.live = TRUE]
              /\ min' = IF On("min_stays") THEN Max(min, stream.high) ELSE stream.high
              \* While an older transaction is in progress, the revision to resume from is lower.
              /\ resume' \in {IF resume = 2 THEN 0 ELSE resume, Max(stream.high, resume % 2)}
              /\ queue' = Tail(queue) /\ UNCHANGED <<cache, pending, ping>>
         [] OTHER -> Reset /\ stream' = NoStream /\ queue' = <<>> /\ ping' = Never
    /\ UNCHANGED <<revoke, ack, applied, lease, fault>>

(* --- Questions -------------------------------------------------------------------------------- *)

\* The answer of either replica, which is as old as the bound allows, and reflects `min`.
Ask ==
    /\ ~pending.is /\ (stream.live \/ ~On("first_pong"))
    /\ LET asked == IF On("two_revisions") THEN min ELSE resume % 2
       IN ~Committed \/ (ack # Past /\ (asked = 0 \/ ~On("min_revision")))
    /\ pending' = [is |-> TRUE, overtaken |-> FALSE]
    /\ UNCHANGED <<revoke, ack, applied, lease, stream, queue, ping, covered, resume, min, cache, fault>>

Fill ==
    /\ pending.is /\ pending' = NoPending
    /\ cache' = (cache \/ ~pending.overtaken \/ ~On("generations"))
    /\ UNCHANGED <<revoke, ack, applied, lease, stream, queue, ping, covered, resume, min, fault>>

Answer ==
    /\ cache /\ (covered <= Bound \/ ~On("lease")) /\ ack = Past
    /\ fault' = "active past the bound"
    /\ UNCHANGED <<revoke, ack, applied, lease, stream, queue, ping, covered, resume, min, cache, pending>>

(* --- The whole -------------------------------------------------------------------------------- *)

Tick ==
    /\ ack' = Older(ack) /\ ping' = Older(ping) /\ covered' = Older(covered)
    /\ lease' = [s \in {1, 2} |-> Older(lease[s])]
    /\ queue' = [i \in DOMAIN queue |-> IF queue[i].is = "pong" THEN [queue[i] EXCEPT !.age = Older(@)]
                                        ELSE queue[i]]
    /\ UNCHANGED <<revoke, applied, stream, resume, min, cache, pending, fault>>

Init ==
    /\ revoke = "idle" /\ ack = Never /\ applied = <<FALSE, FALSE>> /\ lease = <<0, 0>>
    /\ stream = NoStream /\ queue = <<>> /\ ping = Never /\ covered = Past
    /\ resume = 2 /\ min = 0 /\ cache = FALSE /\ pending = NoPending /\ fault = ""

Next ==
    \/ Tick \/ Commit \/ Acknowledge \/ Purge
    \/ \E s \in {1, 2} : Publish(s) \/ Renew(s) \/ Open(s)
    \/ Close \/ Overwrite \/ Ping \/ Pong \/ Receive \/ Ask \/ Fill \/ Answer

Spec == Init /\ [][Next]_vars

NoFault == fault = ""
=============================================================================
