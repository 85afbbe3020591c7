//! The chassis that an `ipmi_sim` reads and controls: lines with questions over one socket, about
//! one switch. The protocol has no other questions, so that a hostile `ipmi_sim` can do nothing
//! more.
//!
//! | question | answer |
//! |---|---|
//! | `7 get power` | `7 0 power:1` (on) or `7 0 power:0` |
//! | `7 set power 0`, `7 set shutdown 1` | `7 0`, once the switch is off |
//! | `7 set power 1` | `7 0`, once it has been started |
//! | `7 set reset 1` | `7 0`; `7 1 …` if it is off |
//! | `7 get boot` | `7 0 boot:none`: a switch boots its image and nothing else |
//! | any other | `7 1 …` with the reason |
//!
//! The first word of a question is a number that the asker chose and the answer repeats. The second
//! word of the answer is the exit status of the program that `ipmi_sim` started. A switch loses
//! nothing when it is powered off abruptly, so `shutdown` does that too.

use model::power::PowerAction;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::handle::Vm;
use crate::lifecycle::VmState;

/// The longest question in bytes. Those of `ipmi_sim` have fewer than 40.
const LONGEST: usize = 200;

/// A question or command of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    /// Is the switch on?
    Power,
    /// What will the switch boot from?
    Boot,
    /// A command to switch it on or off, or to reset it.
    Set(PowerAction),
}

/// The number and the question in a line. The inner `None` is an unknown question, the outer one a
/// line without a number.
fn parse(line: &str) -> Option<(u32, Option<Question>)> {
    let mut words = line.split_ascii_whitespace();
    let id = words.next()?.parse().ok()?;
    let words: Vec<&str> = words.collect();
    let question = match words[..] {
        ["get", "power"] => Some(Question::Power),
        ["get", "boot"] => Some(Question::Boot),
        ["set", "power", "0"] | ["set", "shutdown", "1"] => Some(Question::Set(PowerAction::Off)),
        ["set", "power", "1"] => Some(Question::Set(PowerAction::On)),
        ["set", "reset", "1"] => Some(Question::Set(PowerAction::Reset)),
        _ => None,
    };
    Some((id, question))
}

/// The line of an answer.
fn answer(id: u32, outcome: Result<&str, &str>) -> String {
    let (status, text) = match outcome {
        Ok(text) => (0, text),
        Err(text) => (1, text),
    };
    let text = text.replace(char::is_control, " ");
    format!("{} {}\n", id, format!("{status} {text}").trim_end())
}

/// Whether the chassis counts as on. A VM that has crashed still has power.
fn is_on(state: VmState) -> bool {
    match state {
        VmState::Booting | VmState::Running | VmState::Restarting => true,
        VmState::Off | VmState::Failed => false,
    }
}

/// What the protocol needs of a switch. Tests implement it without a VM.
pub(super) trait Chassis {
    /// The VM's state.
    fn state(&self) -> VmState;
    /// Controls its power. Returns once that is done.
    async fn set(&self, power: PowerAction) -> Result<(), String>;
}

impl Chassis for Vm {
    fn state(&self) -> VmState {
        self.status().state
    }

    async fn set(&self, power: PowerAction) -> Result<(), String> {
        tracing::info!(vm = self.name(), ?power, "by IPMI");
        self.power(power).await.map_err(|error| error.to_string())
    }
}

/// Answers questions until the asker closes the socket or sends a line that is not a question.
/// Returns the reason for the end.
pub(super) async fn serve(mut socket: UnixStream, chassis: &impl Chassis) -> io::Error {
    let mut held = Vec::new();
    let mut buffer = [0; LONGEST];
    loop {
        while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = held.drain(..=end).collect();
            let Some((id, question)) = std::str::from_utf8(&line).ok().and_then(parse) else {
                return io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it sent a line that is not a question",
                );
            };
            let reply = match question {
                Some(question) => reply(question, chassis).await,
                None => Err("this chassis does not support that".into()),
            };
            let reply = reply.as_deref().map_err(String::as_str);
            if let Err(error) = socket.write_all(answer(id, reply).as_bytes()).await {
                return error;
            }
        }
        if held.len() > LONGEST {
            return io::Error::new(
                io::ErrorKind::InvalidData,
                "it sent a line without a newline",
            );
        }
        match socket.read(&mut buffer).await {
            Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
            Ok(length) => held.extend(&buffer[..length]),
            Err(error) => return error,
        }
    }
}

async fn reply(question: Question, chassis: &impl Chassis) -> Result<String, String> {
    match question {
        Question::Power => Ok(format!("power:{}", u8::from(is_on(chassis.state())))),
        Question::Boot => Ok("boot:none".into()),
        Question::Set(power) => chassis.set(power).await.map(|()| String::new()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::sync::Mutex;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::files::CHASSIS_SH;
    use super::*;

    /// A chassis that remembers what was done to it.
    #[derive(Default)]
    struct Fake(Mutex<(bool, Vec<PowerAction>)>);

    impl Chassis for Fake {
        fn state(&self) -> VmState {
            if self.0.lock().unwrap().0 {
                VmState::Running
            } else {
                VmState::Off
            }
        }

        async fn set(&self, power: PowerAction) -> Result<(), String> {
            let mut fake = self.0.lock().unwrap();
            if power == PowerAction::Reset && !fake.0 {
                return Err("it is off:\nuse power on".into());
            }
            fake.0 = power != PowerAction::Off;
            fake.1.push(power);
            Ok(())
        }
    }

    /// The answers to these bytes, and what was done to the chassis.
    fn asked(bytes: &[u8]) -> (String, Vec<PowerAction>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let fake = Fake::default();
            let talk = async {
                let (mut read, mut write) = theirs.split();
                let _ = write.write_all(bytes).await;
                let _ = write.shutdown().await;
                let mut text = Vec::new();
                let _ = read.read_to_end(&mut text).await;
                String::from_utf8(text).unwrap()
            };
            let serve = async { drop(serve(ours, &fake).await) };
            let both = async { tokio::join!(talk, serve) };
            let (text, ()) = tokio::time::timeout(Duration::from_secs(10), both)
                .await
                .expect("it ends");
            (text, fake.0.into_inner().unwrap().1)
        })
    }

    #[test]
    fn questions_and_answers() {
        let (said, done) = asked(
            b"1 get power\n2 set reset 1\n3 set power 1\n4 get power\n5 set reset 1\n6 get boot\n\
              7 set boot pxe\n8 set identify 15 0\n9 set shutdown 1\n10 get power\n11\n",
        );
        insta::assert_snapshot!(said, @r"
        1 0 power:0
        2 1 it is off: use power on
        3 0
        4 0 power:1
        5 0
        6 0 boot:none
        7 1 this chassis does not support that
        8 1 this chassis does not support that
        9 0
        10 0 power:0
        11 1 this chassis does not support that
        ");
        assert_eq!(
            done,
            [PowerAction::On, PowerAction::Reset, PowerAction::Off]
        );
    }

    #[test]
    fn a_malformed_line_ends_it_before_a_later_line_is_executed() {
        for bad in [
            &b"power\n1 set power 1\n"[..],
            b"\xff\n1 set power 1\n",
            b"\n1 set power 1\n",
            b"99999999999 get power\n1 set power 1\n",
        ] {
            assert_eq!(asked(bad), (String::new(), Vec::new()), "{bad:?}");
        }
        assert_eq!(asked(&[b'1'; 5000]), (String::new(), Vec::new()));
    }

    #[test]
    fn what_died_has_power_and_what_was_given_up_has_none() {
        assert!(is_on(VmState::Restarting) && is_on(VmState::Booting));
        assert!(!is_on(VmState::Failed) && !is_on(VmState::Off));
    }

    /// Runs the same program as `ipmi_sim`, by the same shell.
    #[test]
    fn the_program_waits_for_its_own_answer() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("chassis"), CHASSIS_SH).unwrap();
        let ask = |line: &str, before: &str| {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            std::io::Write::write_all(&mut &ours, before.as_bytes()).unwrap();
            let child = Command::new("sh")
                .args(["-c", &format!("sh ./chassis {line}")])
                .current_dir(folder.path())
                .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let ours = UnixStream::from_std(ours).unwrap();
                serve(ours, &Fake::default()).await;
            });
            let output = child.wait_with_output().unwrap();
            (
                output.status.code(),
                String::from_utf8(output.stdout).unwrap(),
            )
        };
        let stale = "0 0 power:1\n";
        assert_eq!(ask("get power", stale), (Some(0), "power:0\n".into()));
        assert_eq!(ask("set power \"1\"", stale), (Some(0), String::new()));
        let (status, said) = ask("set reset \"1\"", "");
        assert_eq!(
            (status, &*said),
            (Some(1), "it is off: use power on\n"),
            "a status that is not 0 is what ipmi_sim goes by"
        );
    }

    proptest! {
        /// For all input of a hostile ipmi_sim, each answer is one line with a number and a status.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let (said, _) = asked(&bytes);
            for line in said.lines() {
                let mut words = line.split(' ');
                prop_assert!(words.next().unwrap().parse::<u32>().is_ok());
                prop_assert!(["0", "1"].contains(&words.next().unwrap()));
            }
        }

        #[test]
        fn lines_of_the_grammar(lines in "([0-9]{1,3} (get|set) (power|reset|boot|shutdown|rm) ?[01]?\n){0,9}") {
            let (said, _) = asked(lines.as_bytes());
            prop_assert_eq!(said.lines().count(), lines.lines().count());
        }
    }
}
