//! Converts `BatchIntrospect` messages to domain values and back.

use std::sync::Arc;

use super::introspection::{introspected, question};
use crate::{
    app::{Answers, Batch},
    domain::{
        field::{Problem, Violations},
        revision::Revision,
    },
    grpc::{
        pb::v1::{self, batch_introspect_result::Result as Outcome},
        status::{self, Failure},
    },
};

/// Maximum number of questions in a batch.
const MAX_QUESTIONS: usize = 100;

/// A batch in which some questions may be invalid.
pub struct Asked {
    /// The valid questions, in the order of the request.
    pub batch: Batch,
    /// One entry per question of the request: its faults, or `None` if the question is valid and
    /// part of `batch`.
    faults: Vec<Option<Violations>>,
}

pub fn batch_introspect(message: v1::BatchIntrospectRequest) -> Result<Asked, Violations> {
    let mut whole = Violations::default();
    let min = (!message.min_revision.is_empty()).then(|| Revision::parse(&message.min_revision));
    let min_revision = whole.keep("min_revision", min.transpose()).flatten();
    let count = message.questions.len();
    if !(1..=MAX_QUESTIONS).contains(&count) {
        let problem = format!("has {count} entries: ask 1 to {MAX_QUESTIONS} questions at once");
        whole.add("questions", Problem::new(problem));
        return whole.finish(None);
    }
    let mut questions = Vec::with_capacity(count);
    let parsed = message.questions.into_iter().map(question);
    let faults = parsed.map(|parsed| parsed.map(|valid| questions.push(valid)).err());
    let faults = faults.collect();
    let batch = Batch {
        questions,
        min_revision,
    };
    whole.finish(Some(Asked { batch, faults }))
}

/// Builds the response to a batch, and calls `count` for each error. An error that several
/// questions share is logged only once, with the id that `request_id` returns. Even with 100
/// results of maximum size, the response stays below 1 MiB.
pub fn batch_introspected(
    asked: Asked,
    answers: Answers,
    request_id: &dyn Fn() -> String,
    count: impl Fn(&Failure),
) -> v1::BatchIntrospectResponse {
    let Answers { answers, revision } = answers;
    let (mut answers, mut logged) = (answers.into_iter(), Vec::new());
    let failed = |failure: Failure, is_new: bool| {
        count(&failure);
        let logged_id = is_new.then(request_id);
        Outcome::Error(status::of_question(&failure, logged_id.as_deref()))
    };
    let results = asked.faults.into_iter().map(|faults| {
        let result = match faults {
            Some(faults) => Some(failed(faults.into(), false)),
            None => answers.next().map(|answer| match answer {
                Ok(answer) => Outcome::Answer(introspected(answer)),
                Err(error) => {
                    let is_new = !logged.iter().any(|known| Arc::ptr_eq(known, &error));
                    logged.push(error.clone());
                    failed(Failure::Question(error), is_new)
                }
            }),
        };
        v1::BatchIntrospectResult { result }
    });
    v1::BatchIntrospectResponse {
        results: results.collect(),
        revision: revision.map_or_else(String::new, |revision| revision.to_string()),
    }
}
