//! What a command of `ikv-fabric` answered.

use std::process::{Command, Output};

use serde_json::Value;

use crate::patience::{SOON, output_within};

/// A command's output and exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Exit status; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Answer {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Answer {
    /// Runs a command to its end.
    ///
    /// # Panics
    /// When it does not end within [`SOON`].
    pub fn of(command: &mut Command) -> Self {
        output_within(command, SOON).into()
    }

    /// The JSON that it printed; it must have succeeded.
    ///
    /// # Panics
    /// With its output, if it failed or printed no JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// As [`Answer::refusal`], for a command that may have reported progress before.
    ///
    /// # Panics
    /// As [`Answer::refusal`], and when there is more than one error.
    #[track_caller]
    pub fn last_sentence(&self) -> &str {
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""), "{self:?}");
        let (before, last) = match self.stderr.trim_end().rsplit_once('\n') {
            Some((before, last)) => (before, last),
            None => ("", self.stderr.trim_end()),
        };
        let sentence = last.strip_prefix("ikv-fabric: ");
        assert!(!before.contains("ikv-fabric: "), "more than one: {self:?}");
        sentence.unwrap_or_else(|| panic!("no sentence: {self:?}"))
    }

    /// The sentence with which it failed, without the program's name. It must have ended with
    /// status 1, nothing on standard output, and one line on standard error.
    ///
    /// # Panics
    /// With its output, if it did not.
    #[track_caller]
    pub fn refusal(&self) -> &str {
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""), "{self:?}");
        let sentence = self.stderr.strip_prefix("ikv-fabric: ");
        let sentence = sentence.and_then(|text| text.strip_suffix('\n'));
        let sentence = sentence.unwrap_or_else(|| panic!("no sentence: {self:?}"));
        assert!(!sentence.contains('\n'), "more than one line: {self:?}");
        sentence
    }
}
