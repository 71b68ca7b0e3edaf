//! Errors as people read them: one line with all causes.
//! Invariant: nothing is said twice; of a refusal by the API server only its sentence is told.
//! Leaves what follows from an error to whoever handles it.

use std::error::Error;

/// An error and what caused it, in one line.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut sentences: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let refusal = refusal(error);
        next = if refusal.is_some() { None } else { error.source() };
        let sentence = refusal.unwrap_or_else(|| error.to_string());
        // Some errors repeat their cause in their own text.
        if sentences.last().is_none_or(|last| !last.ends_with(&sentence)) {
            sentences.push(sentence);
        }
    }
    sentences.join(": ")
}

/// The sentence of the API server, which otherwise comes with the whole answer behind it.
fn refusal(error: &(dyn Error + 'static)) -> Option<String> {
    let boxed = || error.downcast_ref::<Box<kube::Error>>().map(|boxed| &**boxed);
    match error.downcast_ref::<kube::Error>().or_else(boxed)? {
        kube::Error::Api(status) => Some(status.message.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("apply Service shop-ns")]
    struct Apply(#[source] Box<kube::Error>);

    #[test]
    fn refusal_of_the_api_server_is_told_by_its_sentence_alone() {
        let status = kube::core::Status {
            message: "name is missing".into(),
            code: 422,
            ..Default::default()
        };
        let error = Apply(Box::new(kube::Error::Api(Box::new(status))));
        assert_eq!(with_causes(&error), "apply Service shop-ns: name is missing");
    }

    #[test]
    fn cause_that_is_told_already_is_not_repeated() {
        #[derive(Debug, thiserror::Error)]
        #[error("ask: {0}")]
        struct Repeats(#[source] std::fmt::Error);
        let text = with_causes(&Repeats(std::fmt::Error));
        assert_eq!(text.matches(&std::fmt::Error.to_string()).count(), 1, "{text}");
    }
}
