//! Scenarios that preview each change before they make it. They cover every RPC that changes
//! something, each of its refusals, and random sequences.

use stacktoken::grpc::pb::{
    admin::v1 as admin,
    v1::{self, Role},
};

use super::{
    at,
    clock::FAR,
    issue_request, never, now, person,
    previews::{InspectTables, Rehearsal},
    raw::TestCaller::{self, Admin, Developer, Operator, Owner, ServiceWithoutRole, Stranger},
    requests::{
        UNTIL_FIRST_USE, end_overlap_request, overlap_for, rename_request, revoke_request,
        rotate_request, set_expiry_request, update_request,
    },
};

const ISSUE: &str = "TokenService/Issue";
const UPDATE: &str = "TokenService/Update";
const SET_EXPIRY: &str = "TokenService/SetExpiry";
const ROTATE: &str = "TokenService/Rotate";
const END_OVERLAP: &str = "TokenService/EndOverlap";
const REVOKE: &str = "TokenService/Revoke";
const REGISTER: &str = "StackService/Register";
const SET_MEMBER: &str = "StackService/SetMember";
const REMOVE_MEMBER: &str = "StackService/RemoveMember";
const TRANSFER: &str = "StackService/TransferOwnership";
const SET_LIMIT: &str = "StackService/SetTokenLimit";
const SUSPEND: &str = "StackService/Suspend";
const RESUME: &str = "StackService/Resume";
const REMOVE: &str = "StackService/Remove";

/// A stack key and a token uid that do not exist.
const UNKNOWN: &str = "blt00c0ffee00c0ffee";
const FOREIGN: &str = "0191a5f4-0000-7000-8000-000000000000";

fn register_request(key: &str) -> admin::RegisterRequest {
    admin::RegisterRequest {
        stack_api_key: key.into(),
        name: "Rehearsed".into(),
        organization_uid: "org-1".into(),
        owner: Some(person("owner")),
        ..Default::default()
    }
}

fn set_member(stack: &str, subject: &str, role: Role) -> admin::SetMemberRequest {
    admin::SetMemberRequest {
        stack_api_key: stack.into(),
        member: Some(person(subject)),
        role: role.into(),
        ..Default::default()
    }
}

fn remove_member(stack: &str, subject: &str) -> admin::RemoveMemberRequest {
    admin::RemoveMemberRequest {
        stack_api_key: stack.into(),
        member: Some(person(subject)),
        ..Default::default()
    }
}

fn transfer(stack: &str, subject: &str) -> admin::TransferOwnershipRequest {
    admin::TransferOwnershipRequest {
        stack_api_key: stack.into(),
        new_owner: Some(person(subject)),
        ..Default::default()
    }
}

fn set_limit(stack: &str, max_tokens: i32) -> admin::SetTokenLimitRequest {
    admin::SetTokenLimitRequest {
        stack_api_key: stack.into(),
        max_tokens: Some(max_tokens),
        reason: "a rehearsal".into(),
        ..Default::default()
    }
}

fn suspend(stack: &str) -> admin::SuspendRequest {
    admin::SuspendRequest {
        stack_api_key: stack.into(),
        ..Default::default()
    }
}

fn resume(stack: &str) -> admin::ResumeRequest {
    admin::ResumeRequest {
        stack_api_key: stack.into(),
        ..Default::default()
    }
}

fn remove(stack: &str) -> admin::RemoveRequest {
    admin::RemoveRequest {
        stack_api_key: stack.into(),
        ..Default::default()
    }
}

fn repeatable(stack: &str, name: &str, id: &str) -> v1::IssueRequest {
    v1::IssueRequest {
        request_id: id.into(),
        ..issue_request(stack, name)
    }
}

impl<W: InspectTables> Rehearsal<'_, W> {
    /// Registers a stack with an owner, an admin and a developer.
    pub async fn stack(&self, key: &str) -> String {
        let request = register_request(key);
        let answer: admin::RegisterResponse =
            self.make((Operator, REGISTER), &request).await.unwrap();
        let stack = answer.stack.unwrap().stack_api_key;
        for (subject, role) in [("admin", Role::Admin), ("developer", Role::Developer)] {
            let request = set_member(&stack, subject, role);
            self.done(SET_MEMBER, &request).await;
        }
        stack
    }

    async fn issue(&self, request: &v1::IssueRequest) -> String {
        let made: v1::IssueResponse = self.make((Owner, ISSUE), request).await.unwrap();
        made.token.unwrap().token_uid
    }

    /// Asserts that this request succeeds for a permitted caller.
    async fn done(&self, rpc: &str, request: &impl prost::Message) {
        let part = if rpc.starts_with("StackService") {
            Operator
        } else {
            Owner
        };
        assert_eq!(self.make::<()>((part, rpc), request).await, Ok(()), "{rpc}");
    }

    /// Makes every change to a token, from its issue to its revocation.
    pub async fn life_of_a_token(&self) {
        let stack = &self.stack("").await;
        let uid = &self.issue(&issue_request(stack, "one")).await;
        let other = &self.issue(&issue_request(stack, "two")).await;
        for request in [
            rename_request(stack, uid, "uno"),
            update_request(stack, uid, &["description"], v1::Token::default()),
        ] {
            self.done(UPDATE, &request).await;
        }
        let dated = set_expiry_request(stack, uid, at(FAR));
        self.done(SET_EXPIRY, &dated).await;
        let sooner = set_expiry_request(stack, uid, at(FAR - 1));
        let made = self.make::<()>((Operator, SET_EXPIRY), &sooner).await;
        assert_eq!(made, Ok(()));
        self.done(SET_EXPIRY, &set_expiry_request(stack, uid, never()))
            .await;
        for overlap in [UNTIL_FIRST_USE, overlap_for(3600), overlap_for(0)] {
            self.done(ROTATE, &rotate_request(stack, uid, overlap))
                .await;
        }
        self.done(ROTATE, &rotate_request(stack, uid, overlap_for(60)))
            .await;
        self.done(END_OVERLAP, &end_overlap_request(stack, uid))
            .await;
        self.done(SET_EXPIRY, &set_expiry_request(stack, other, now()))
            .await;
        self.stale_etags(stack, uid).await;
        for why in ["once", "twice"] {
            for uid in [uid, other] {
                self.done(REVOKE, &revoke_request(stack, uid, why)).await;
            }
        }
        self.issue(&issue_request(stack, "one")).await;
    }

    /// Asserts that every change is refused if its etag is wrong.
    async fn stale_etags(&self, stack: &str, uid: &str) {
        let etag = || "another".to_owned();
        let mut update = rename_request(stack, uid, "stale");
        update.etag = etag();
        self.refuse((Owner, UPDATE), &update, "ETAG_MISMATCH").await;
        let mut redate = set_expiry_request(stack, uid, now());
        redate.etag = etag();
        self.refuse((Owner, SET_EXPIRY), &redate, "ETAG_MISMATCH")
            .await;
        let mut rotate = rotate_request(stack, uid, overlap_for(60));
        rotate.etag = etag();
        self.refuse((Owner, ROTATE), &rotate, "ETAG_MISMATCH").await;
        let mut end = end_overlap_request(stack, uid);
        end.etag = etag();
        self.refuse((Owner, END_OVERLAP), &end, "ETAG_MISMATCH")
            .await;
        let mut revoke = revoke_request(stack, uid, "");
        revoke.etag = etag();
        self.refuse((Operator, REVOKE), &revoke, "ETAG_MISMATCH")
            .await;
    }

    /// Provokes every refusal of changes to a token.
    pub async fn refusals_of_tokens(&self) {
        let stack = &self.stack("").await;
        let live = &self.issue(&issue_request(stack, "live")).await;
        let dead = &self.issue(&issue_request(stack, "dead")).await;
        let ended = &self.issue(&issue_request(stack, "ended")).await;
        self.done(REVOKE, &revoke_request(stack, dead, "")).await;
        self.done(SET_EXPIRY, &set_expiry_request(stack, ended, now()))
            .await;
        for (uid, refused) in [
            (dead.as_str(), "TOKEN_REVOKED"),
            (ended, "TOKEN_EXPIRED"),
            (FOREIGN, "TOKEN_NOT_FOUND"),
        ] {
            self.refuse_changes(stack, (uid, Owner), refused).await;
        }
        for (part, refused) in [
            (Developer, "ROLE_REQUIRED"),
            (Stranger, "STACK_NOT_FOUND"),
            (ServiceWithoutRole, "ROLE_REQUIRED"),
        ] {
            self.refuse_changes(stack, (live, part), refused).await;
            let revoked = revoke_request(stack, live, "");
            self.refuse((part, REVOKE), &revoked, refused).await;
            self.refuse((part, ISSUE), &issue_request(stack, "x"), refused)
                .await;
        }
        let longer = set_expiry_request(stack, live, at(FAR));
        self.done(SET_EXPIRY, &longer).await;
        let longer = set_expiry_request(stack, live, at(FAR + 1));
        self.refuse((Operator, SET_EXPIRY), &longer, "ROLE_REQUIRED")
            .await;
        let unknown = issue_request(UNKNOWN, "x");
        self.refuse((Owner, ISSUE), &unknown, "STACK_NOT_FOUND")
            .await;
        self.refuse((Owner, ISSUE), &issue_request(stack, "live"), "NAME_TAKEN")
            .await;
        self.issue(&issue_request(stack, "other")).await;
        let taken = rename_request(stack, live, "other");
        self.refuse((Admin, UPDATE), &taken, "NAME_TAKEN").await;
        self.done(SET_LIMIT, &set_limit(stack, 2)).await;
        let full = issue_request(stack, "x");
        self.refuse((Owner, ISSUE), &full, "TOKEN_LIMIT_REACHED")
            .await;
        self.bad_fields(stack).await;
        self.done(SUSPEND, &suspend(stack)).await;
        self.refuse((Owner, ISSUE), &full, "STACK_SUSPENDED").await;
        self.refuse_changes(stack, (live, Owner), "STACK_SUSPENDED")
            .await;
        self.done(REVOKE, &revoke_request(stack, live, "")).await;
    }

    /// Asserts that this caller may change neither the name, the expiry nor the secret, and gets
    /// the reason `refused` each time.
    async fn refuse_changes(&self, stack: &str, (uid, part): (&str, TestCaller), refused: &str) {
        let rename = rename_request(stack, uid, "renamed");
        self.refuse((part, UPDATE), &rename, refused).await;
        let redate = set_expiry_request(stack, uid, never());
        // For a token that never expires, `redate` does not put the expiry off, so it is permitted
        // in a suspended stack.
        if refused == "STACK_SUSPENDED" {
            let redate = set_expiry_request(stack, uid, at(FAR + 9));
            self.refuse((part, SET_EXPIRY), &redate, refused).await;
        } else {
            self.refuse((part, SET_EXPIRY), &redate, refused).await;
        }
        let rotate = rotate_request(stack, uid, overlap_for(60));
        self.refuse((part, ROTATE), &rotate, refused).await;
        if refused != "STACK_SUSPENDED" {
            let end = end_overlap_request(stack, uid);
            self.refuse((part, END_OVERLAP), &end, refused).await;
        }
        if refused == "TOKEN_NOT_FOUND" {
            let revoke = revoke_request(stack, uid, "");
            self.refuse((part, REVOKE), &revoke, refused).await;
        }
    }

    async fn bad_fields(&self, stack: &str) {
        const BAD: &str = "INVALID_FIELD";
        let issue = v1::IssueRequest {
            stack_api_key: "blt".into(),
            name: " x".into(),
            expiry: Some(at(1)),
            request_id: "a b".into(),
            ..Default::default()
        };
        self.refuse((Owner, ISSUE), &issue, BAD).await;
        let update = update_request(stack, "x", &[], v1::Token::default());
        self.refuse((Owner, UPDATE), &update, BAD).await;
        let redate = v1::SetExpiryRequest::default();
        self.refuse((Owner, SET_EXPIRY), &redate, BAD).await;
        let rotate = rotate_request(stack, FOREIGN, overlap_for(31 * 86_400));
        self.refuse((Owner, ROTATE), &rotate, BAD).await;
        let end = end_overlap_request(stack, "x");
        self.refuse((Owner, END_OVERLAP), &end, BAD).await;
        let revoke = revoke_request(stack, FOREIGN, &"x".repeat(501));
        self.refuse((Owner, REVOKE), &revoke, BAD).await;
        let register = admin::RegisterRequest::default();
        self.refuse((Operator, REGISTER), &register, BAD).await;
        let member = admin::SetMemberRequest::default();
        self.refuse((Operator, SET_MEMBER), &member, BAD).await;
        let limit = set_limit(stack, 1001);
        self.refuse((Operator, SET_LIMIT), &limit, BAD).await;
    }

    /// Repeats calls with an idempotency key. Asserts that a preview does not record the key.
    pub async fn repetitions(&self) {
        let stack = &self.stack("").await;
        let once = repeatable(stack, "deploy", "once");
        let uid = &self.issue(&once).await;
        let again: v1::IssueResponse = self.make((Owner, ISSUE), &once).await.unwrap();
        let token = again.token.unwrap();
        assert_eq!((&token.token_uid, token.generation), (uid, 2));
        let shown: v1::IssueResponse = self.preview((Owner, ISSUE), &once).await.unwrap();
        let token = shown.token.unwrap();
        assert_eq!((&token.token_uid, token.generation), (uid, 3));
        let other = repeatable(stack, "other", "once");
        self.refuse((Owner, ISSUE), &other, "REQUEST_ID_REUSED")
            .await;
        let rotate = v1::RotateRequest {
            request_id: "once".into(),
            ..rotate_request(stack, uid, UNTIL_FIRST_USE)
        };
        for generation in [3, 4] {
            let made: v1::RotateResponse = self.make((Owner, ROTATE), &rotate).await.unwrap();
            assert_eq!(made.token.unwrap().generation, generation);
        }
        self.refuse((Owner, ISSUE), &once, "REQUEST_ID_REUSED")
            .await;
        let wider = v1::RotateRequest {
            overlap: Some(overlap_for(1)),
            ..rotate
        };
        self.refuse((Owner, ROTATE), &wider, "REQUEST_ID_REUSED")
            .await;
    }

    /// Makes every change to a stack, and provokes each refusal of such changes.
    pub async fn life_of_a_stack(&self, key: &str) {
        let stack = &self.stack(key).await;
        let taken = register_request(key);
        self.refuse((Operator, REGISTER), &taken, "STACK_KEY_TAKEN")
            .await;
        self.refuse((Owner, REGISTER), &register_request(""), "ROLE_REQUIRED")
            .await;
        let newcomer = set_member(stack, "newcomer", Role::Developer);
        let promoted = set_member(stack, "newcomer", Role::Admin);
        for request in [&newcomer, &promoted] {
            self.done(SET_MEMBER, request).await;
        }
        let owner = set_member(stack, "owner", Role::Admin);
        self.refuse((Operator, SET_MEMBER), &owner, "OWNER_REQUIRED")
            .await;
        self.refuse((Owner, SET_MEMBER), &newcomer, "ROLE_REQUIRED")
            .await;
        for subject in ["newcomer", "nobody"] {
            self.done(REMOVE_MEMBER, &remove_member(stack, subject))
                .await;
        }
        let owner = remove_member(stack, "owner");
        self.refuse((Operator, REMOVE_MEMBER), &owner, "OWNER_REQUIRED")
            .await;
        for heir in ["admin", "admin", "owner"] {
            self.done(TRANSFER, &transfer(stack, heir)).await;
        }
        self.refuse(
            (Operator, TRANSFER),
            &transfer(UNKNOWN, "x"),
            "STACK_NOT_FOUND",
        )
        .await;
        self.issue(&issue_request(stack, "one")).await;
        for max in [0, 1000, 10] {
            self.done(SET_LIMIT, &set_limit(stack, max)).await;
        }
        self.refuse((Owner, SET_LIMIT), &set_limit(stack, 1), "ROLE_REQUIRED")
            .await;
        for _ in 0..2 {
            self.done(SUSPEND, &suspend(stack)).await;
        }
        for _ in 0..2 {
            self.done(RESUME, &resume(stack)).await;
        }
        for _ in 0..2 {
            self.done(REMOVE, &remove(stack)).await;
        }
        self.refuse((Operator, SUSPEND), &suspend(stack), "STACK_NOT_FOUND")
            .await;
        self.refuse((Operator, RESUME), &resume(UNKNOWN), "STACK_NOT_FOUND")
            .await;
        self.refuse((Operator, REMOVE), &remove(UNKNOWN), "STACK_NOT_FOUND")
            .await;
        self.refuse((Operator, REGISTER), &taken, "STACK_KEY_TAKEN")
            .await;
    }

    /// Makes `steps` random changes to a few tokens with a few names. Returns the outcome of each
    /// change.
    pub async fn walk(&self, seed: u64, steps: usize) -> Vec<String> {
        let stack = &self.stack("").await;
        self.done(SET_LIMIT, &set_limit(stack, 3)).await;
        let (mut dice, mut uids, mut ended) =
            (Xorshift(seed), vec![FOREIGN.to_owned()], Vec::new());
        for _ in 0..steps {
            let (what, n) = (dice.roll(13), dice.roll(4));
            let name = ["ann", "bob", "cid", "dan"][n];
            let uid = &uids[dice.roll(uids.len())].clone();
            let part = [Owner, Owner, Admin, Operator][dice.roll(4)];
            let expiry = [never(), at(FAR + n as i64), now()][dice.roll(3)].clone();
            let done: Result<(), String> = match what {
                0..4 => {
                    let id = ["", "", "a", "b"][dice.roll(4)];
                    let request = repeatable(stack, name, id);
                    let made = self.make::<v1::IssueResponse>((part, ISSUE), &request);
                    made.await.map(|made| {
                        uids.push(made.token.unwrap().token_uid);
                        uids.dedup();
                    })
                }
                4 => {
                    let request = rename_request(stack, uid, name);
                    self.make((part, UPDATE), &request).await
                }
                5 => {
                    let request = set_expiry_request(stack, uid, expiry);
                    self.make((part, SET_EXPIRY), &request).await
                }
                6 | 7 => {
                    let overlap = [overlap_for(60), UNTIL_FIRST_USE];
                    let request = v1::RotateRequest {
                        request_id: ["", "a"][dice.roll(2)].into(),
                        ..rotate_request(stack, uid, overlap[n % 2])
                    };
                    self.make((part, ROTATE), &request).await
                }
                8 => {
                    let request = revoke_request(stack, uid, name);
                    self.make((part, REVOKE), &request).await
                }
                12 => {
                    let request = end_overlap_request(stack, uid);
                    self.make((part, END_OVERLAP), &request).await
                }
                9 => self.make((part, SUSPEND), &suspend(stack)).await,
                10 => self.make((Operator, RESUME), &resume(stack)).await,
                _ => {
                    let soon = issue_request(stack, name);
                    let request = v1::IssueRequest {
                        expiry: Some(self.world.soon()),
                        ..soon
                    };
                    self.world.pass(dice.roll(120) as u64);
                    self.make((part, ISSUE), &request).await
                }
            };
            ended.push(done.err().unwrap_or_else(|| "OK".into()));
        }
        ended
    }
}

/// A generator of small pseudo-random numbers (xorshift). The same seed gives the same numbers.
struct Xorshift(u64);

impl Xorshift {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % sides
    }
}
