//! How diagnostics look on standard error: a time, plain words, no colours.

use std::fmt::{self, Debug, Write};

use fabric::progress::stamp;
use model::{printable, wording};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// Writes each event as one sentence.
pub(crate) struct Sentences;

impl<S, N> FormatEvent<S, N> for Sentences
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut words = Words::default();
        event.record(&mut words);
        let (stamp, sentence) = (stamp(), words.sentence());
        match *event.metadata().level() {
            Level::ERROR | Level::WARN => writeln!(out, "{stamp}  ! {sentence}"),
            // For those who look inside: where it comes from helps them.
            level => {
                let (level, target) = (level.as_str().to_lowercase(), event.metadata().target());
                writeln!(out, "{stamp}  {level} {target}: {sentence}")
            }
        }
    }
}

/// The parts of an event.
#[derive(Default)]
struct Words {
    message: String,
    error: String,
    others: String,
}

impl Words {
    /// `vm leaf1: it could not be replaced: no room`.
    fn sentence(&self) -> String {
        let parts = [&self.others, &self.message, &self.error];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let parts: Vec<_> = parts.into_iter().map(String::as_str).collect();
        let sentence = wording::without_numbers(&parts.join(": "));
        printable::tail_lines(sentence.as_bytes(), usize::MAX)
    }
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let part = match field.name() {
            "message" => &mut self.message,
            "error" => &mut self.error,
            name => {
                let comma = if self.others.is_empty() { "" } else { ", " };
                // Writing to a string cannot fail.
                let _ = write!(self.others, "{comma}{name} ");
                &mut self.others
            }
        };
        let _ = write!(part, "{value:?}");
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_a_time_and_a_sentence_without_colours() {
        let kept = Kept::default();
        let written = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(Sentences)
            .with_writer(move || written.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let error = io::Error::other("no \u{1b}[2Jroom");
            tracing::warn!(vm = "leaf1", %error, "it could not be replaced");
            tracing::error!(%error);
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let without_time: Vec<_> = text.lines().map(|line| &line[stamp().len()..]).collect();
        assert_eq!(
            without_time,
            [
                "  ! vm leaf1: it could not be replaced: no \\u{1b}[2Jroom",
                "  ! no \\u{1b}[2Jroom"
            ]
        );
        assert!(text.starts_with("20") && text[..stamp().len()].ends_with('Z'));
    }
}
