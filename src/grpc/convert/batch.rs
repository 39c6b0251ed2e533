//! Converts `BatchIntrospect` messages to domain values and back.

use super::introspection::{introspect, introspected};
use crate::{
    app::{Answers, Batch, Question},
    domain::{
        caller::Call,
        field::{Problem, Violations},
        revision::Revision,
    },
    grpc::pb::v1,
};

/// Maximum number of questions in a batch.
const MAX_QUESTIONS: usize = 100;

pub fn batch_introspect(
    message: v1::BatchIntrospectRequest,
    call: &Call,
) -> Result<Batch, Violations> {
    let mut faults = Violations::default();
    let min = (!message.min_revision.is_empty()).then(|| Revision::parse(&message.min_revision));
    let min_revision = faults.keep("min_revision", min.transpose()).flatten();
    let count = message.questions.len();
    if !(1..=MAX_QUESTIONS).contains(&count) {
        let problem = format!("has {count} entries: ask 1 to {MAX_QUESTIONS} questions at once");
        faults.add("questions", Problem::new(problem));
        return faults.finish(None);
    }
    let mut questions = Vec::with_capacity(count);
    for (at, asked) in message.questions.into_iter().enumerate() {
        questions.extend(faults.nest(&format!("questions[{at}]"), question(asked, call)));
    }
    faults.finish(Some(Batch {
        questions,
        min_revision,
    }))
}

fn question(message: v1::IntrospectQuestion, call: &Call) -> Result<Question, Violations> {
    let v1::IntrospectQuestion {
        token,
        stack_api_key,
        actions,
    } = message;
    let message = v1::IntrospectRequest {
        token,
        stack_api_key,
        actions,
        min_revision: String::new(),
    };
    introspect(message, call)
}

/// Builds the response to a batch. Even with 100 answers of maximum size, it stays below 1 MiB.
pub fn batch_introspected(answers: Answers) -> v1::BatchIntrospectResponse {
    let Answers { answers, revision } = answers;
    v1::BatchIntrospectResponse {
        answers: answers.into_iter().map(introspected).collect(),
        revision: revision.map_or_else(String::new, |revision| revision.to_string()),
    }
}
