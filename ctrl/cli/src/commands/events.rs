//! `ikv-fabric events`: what happens in a fabric, one line an event.

use clap::Args;

use super::{Context, print_to_reader};
use api::{Event, EventsRequest, Streamed};
use fabric::progress::say;
use model::printable;

/// Shows what happens, one line an event, from now on until interrupted. Times are in UTC. Ends with
/// status 1 when the fabric ends.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Begin after the event with this number, which --json shows as `id`; 0: with the oldest of the last
    /// 1000, which the fabric keeps.
    #[arg(long, value_name = "ID")]
    since: Option<u64>,
    /// Show those that the fabric has kept, and end.
    #[arg(long)]
    no_follow: bool,
}

/// # Errors
/// When no fabric answers, or it ends while its events are followed.
pub(crate) async fn run(context: &Context, args: &EventsArgs) -> anyhow::Result<()> {
    let mut request = EventsRequest {
        since: args.since.or(args.no_follow.then_some(0)),
        follow: !args.no_follow,
    };
    loop {
        let mut events = context.client.events(&request).await?;
        loop {
            match events.next().await {
                Ok(Some(Streamed::Event(event))) => {
                    request.since = Some(event.id);
                    if !print_to_reader(&line(&event, context.json)?)? {
                        return Ok(());
                    }
                }
                Ok(Some(Streamed::Lagged(lagged))) => {
                    say(&format!(
                        "{} events were missed: the reader of this command was too slow, or began too \
                         late",
                        lagged.missed
                    ));
                    request.since = Some(lagged.since);
                    break;
                }
                Ok(None) if args.no_follow => return Ok(()),
                Ok(None) => return Err(ended(context, "it ended the stream")),
                Err(error) => return Err(ended(context, &error.to_string())),
            }
        }
    }
}

fn ended(context: &Context, why: &str) -> anyhow::Error {
    let socket = context.client.socket().display();
    tracing::debug!(why, "the stream of events");
    anyhow::anyhow!(
        "the fabric at {socket} has ended, or no longer sends its events: `ikv-fabric status` shows \
         whether it still runs"
    )
}

fn line(event: &Event, json: bool) -> serde_json::Result<String> {
    if json {
        return Ok(serde_json::to_string(event)? + "\n");
    }
    let Event {
        time,
        kind,
        subject,
        text,
        ..
    } = event;
    let what = [kind.name(), kind.state()].join(" ");
    let line = format!("{time}  {what:<14}  {subject:<12}  {text}");
    Ok(printable::head(line.as_bytes(), usize::MAX) + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::EventKind;

    #[test]
    fn an_event_is_one_line() {
        let event = Event {
            id: 7,
            time: "2026-11-30T20:35:07.042Z".into(),
            kind: EventKind::Carrier,
            subject: "iksb12".into(),
            text: "cut\u{1b}[2J\nhere".into(),
        };
        assert_eq!(
            line(&event, false).unwrap(),
            "2026-11-30T20:35:07.042Z  carrier         iksb12        cut\\u{1b}[2J\\nhere\n"
        );
        let json = line(&event, true).unwrap();
        assert_eq!(json.matches('\n').count(), 1);
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }
}
