//! The line between an `ipmi_sim` and its VM's QEMU. It carries the messages of the guest's kernel
//! and their answers. Either end may close and be opened again while the other stays connected.
//!
//! The line carries frames of OpenIPMI's "VM" codec (README.vm). A frame ends with a mark: a0 for a
//! message, a1 for a command. A byte that equals a mark is sent as aa, followed by the byte with
//! bit 4 set. Only complete frames are passed on.

use model::power::PowerAction;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::chassis::Chassis;
use crate::bmc_line::BmcLine;

const END_OF_MESSAGE: u8 = 0xa0;
const END_OF_COMMAND: u8 = 0xa1;
const ESCAPE: u8 = 0xaa;

/// Commands to QEMU that would change the VM's power without its supervisor.
const POWER_OFF: u8 = 0x03;
const RESET: u8 = 0x04;
const SHUT_DOWN: u8 = 0x09;
/// The command with which QEMU announces what it can do, once, when it connects.
const CAPABILITIES: u8 = 0x08;

/// The longest frame in bytes: QEMU's messages have up to 300 bytes, each of which may be escaped.
const LONGEST: usize = 640;

/// How long an end may take to accept a frame before it counts as disconnected.
const TAKE: Duration = Duration::from_secs(2);

/// Cuts a stream into frames, including their end marks. Drops bytes beyond the longest frame.
#[derive(Debug, Default)]
struct Frames {
    held: Vec<u8>,
    too_long: bool,
}

impl Frames {
    fn cut(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut whole = Vec::new();
        for byte in bytes {
            self.held.push(*byte);
            if [END_OF_MESSAGE, END_OF_COMMAND].contains(byte) {
                let frame = std::mem::take(&mut self.held);
                if !std::mem::take(&mut self.too_long) {
                    whole.push(frame);
                }
            } else if self.held.len() >= LONGEST {
                self.held.clear();
                self.too_long = true;
            }
        }
        whole
    }
}

/// The command in a frame. `None` if the frame is a message.
fn command(frame: &[u8]) -> Option<u8> {
    match frame {
        [ESCAPE, escaped, .., END_OF_COMMAND] => Some(escaped & !0x10),
        [command, .., END_OF_COMMAND] => Some(*command),
        _ => None,
    }
}

/// The power command in a BMC's frame, which the supervisor carries out instead of QEMU. A watchdog
/// that the guest has set causes it.
fn power(frame: &[u8]) -> Option<PowerAction> {
    match command(frame)? {
        POWER_OFF | SHUT_DOWN => Some(PowerAction::Off),
        RESET => Some(PowerAction::Reset),
        _ => None,
    }
}

/// QEMU's end, kept while a new `ipmi_sim` replaces the old one.
#[derive(Debug, Default)]
pub(super) struct Bus {
    vm: Option<UnixStream>,
    from_vm: Frames,
    /// The frame with QEMU's capabilities, sent to each new `ipmi_sim`.
    capabilities: Vec<u8>,
}

impl Bus {
    /// Carries frames until the BMC closes its end.
    ///
    /// Returns the error that ended the connection.
    pub(super) async fn carry(
        &mut self,
        mut bmc: TcpStream,
        line: &BmcLine,
        chassis: &impl Chassis,
    ) -> io::Error {
        let mut from_bmc = Frames::default();
        let (mut ours, mut theirs) = ([0; 512], [0; 512]);
        // QEMU sends its capabilities once, but each new `ipmi_sim` needs them.
        if let Err(error) = put(&mut bmc, &self.capabilities).await {
            return error;
        }
        loop {
            tokio::select! {
                end = line.next() => {
                    self.from_vm = Frames::default();
                    self.vm = Some(end);
                }
                read = bmc.read(&mut ours) => match read {
                    Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
                    Ok(length) => for frame in from_bmc.cut(&ours[..length]) {
                        self.pass_to_vm(&frame, chassis).await;
                    },
                    Err(error) => return error,
                },
                length = read_if(&mut self.vm, &mut theirs) => {
                    if length == 0 {
                        self.vm = None;
                    }
                    for frame in self.from_vm.cut(&theirs[..length]) {
                        if command(&frame) == Some(CAPABILITIES) {
                            self.capabilities.clone_from(&frame);
                        }
                        if let Err(error) = put(&mut bmc, &frame).await {
                            return error;
                        }
                    }
                }
            }
        }
    }

    async fn pass_to_vm(&mut self, frame: &[u8], chassis: &impl Chassis) {
        if let Some(power) = power(frame) {
            if let Err(error) = chassis.set(power).await {
                tracing::info!(?power, error, "a BMC's power command failed");
            }
            return;
        }
        // While no QEMU is connected, the frame is dropped.
        if let Some(vm) = &mut self.vm
            && put(vm, frame).await.is_err()
        {
            self.vm = None;
        }
    }
}

/// Sends a frame within [`TAKE`].
async fn put(end: &mut (impl AsyncWriteExt + Unpin), frame: &[u8]) -> io::Result<()> {
    timeout(TAKE, end.write_all(frame)).await?
}

/// Reads from the stream, if there is one. Returns the number of bytes: 0 at its end or after an
/// error. Without a stream it never resolves.
async fn read_if(stream: &mut Option<UnixStream>, buffer: &mut [u8]) -> usize {
    match stream {
        Some(stream) => stream.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn power_commands_go_to_the_supervisor_in_every_encoding() {
        assert_eq!(power(&[0x03, 0xa1]), Some(PowerAction::Off));
        assert_eq!(power(&[0xaa, 0x13, 0xa1]), Some(PowerAction::Off));
        assert_eq!(power(&[0x04, 0xa1]), Some(PowerAction::Reset));
        assert_eq!(power(&[0x09, 1, 2, 0xa1]), Some(PowerAction::Off));
        for passes in [
            &[0x03, 0xa0][..], // a message
            &[0x01, 0xa1],     // attention
            &[0xff, 0x01, 0xa1],
            &[0xa1],
        ] {
            assert_eq!(power(passes), None, "{passes:?}");
        }
        assert_eq!(command(&[0x08, 0x3f, 0xa1]), Some(CAPABILITIES));
    }

    #[test]
    fn a_frame_that_is_too_long_is_dropped_and_the_next_one_is_not() {
        let mut frames = Frames::default();
        assert!(frames.cut(&[7; 3 * LONGEST]).is_empty());
        assert!(frames.cut(&[7, 0xa0]).is_empty());
        assert_eq!(frames.cut(&[8, 0xa0]), [[8, 0xa0]]);
    }

    proptest! {
        /// However the bytes arrive, they yield the same frames, each with exactly one mark, at its
        /// end.
        #[test]
        fn cutting_does_not_depend_on_pieces(
            bytes in proptest::collection::vec(prop_oneof![Just(0xa0), Just(0xa1), any::<u8>()], 0..900),
            size in 1usize..50,
        ) {
            let whole = Frames::default().cut(&bytes);
            let mut frames = Frames::default();
            let pieces: Vec<_> = bytes.chunks(size).flat_map(|piece| frames.cut(piece)).collect();
            prop_assert_eq!(&whole, &pieces);
            for frame in whole {
                let (end, rest) = frame.split_last().unwrap();
                prop_assert!([0xa0, 0xa1].contains(end));
                prop_assert!(!rest.contains(&0xa0) && !rest.contains(&0xa1));
                prop_assert!(frame.len() <= LONGEST);
            }
        }
    }
}
