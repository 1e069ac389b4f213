//! Errors in words.

use std::error::Error;

/// Shows an error with everything that led to it, in one line. A cause that the text before it
/// ends with already is not said twice.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Step {
        text: &'static str,
        #[source]
        cause: Option<Box<Step>>,
    }

    fn step(text: &'static str, cause: Option<Step>) -> Step {
        Step { text, cause: cause.map(Box::new) }
    }

    #[test]
    fn every_cause_is_said_once() {
        let disk = step("no space left", None);
        let said = step("cannot write the list: no space left", Some(disk));

        let all = step("the list is not saved", Some(said));

        assert_eq!(chain(&all), "the list is not saved: cannot write the list: no space left");
    }
}
