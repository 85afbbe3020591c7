//! `--segment`: cuts super-frames into the frames that a wire would carry.

use dataplane::VnetHeader;
use dataplane::capture::{Record, Verdict};
use dataplane::offload::Segmenter;

/// Turns captured frames into those that a wire would carry, which have no virtio-net header.
#[derive(Debug, Default)]
pub(super) struct WireFrames(Segmenter);

impl WireFrames {
    /// Calls `each` for every wire frame that a captured frame becomes, with at most `snap` bytes of
    /// it; 0 means all. A frame that was captured only in part, or contradicts its own header, is
    /// passed on uncut.
    pub(super) fn cut(
        &mut self,
        record: &Record,
        bytes: &[u8],
        snap: u32,
        mut each: impl FnMut(&Record, &[u8]),
    ) {
        let most = if snap == 0 { usize::MAX } else { snap as usize };
        let mut record = *record;
        let header = record.header;
        let complete = bytes.len() == record.len as usize;
        let cut = complete
            && self.0.cut(header, bytes, |piece| {
                let kept = &piece[..piece.len().min(most)];
                record.header = VnetHeader::default();
                record.len = piece.len() as u32;
                record.captured = kept.len() as u32;
                each(&record, kept);
                // The loss is reported once, with the first piece.
                record.verdict = Verdict {
                    lost_pieces: 0,
                    ..record.verdict
                };
            });
        if !cut {
            let kept = &bytes[..bytes.len().min(most)];
            record.captured = kept.len() as u32;
            each(&record, kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_cut_stays_as_it_is() {
        let record = Record {
            len: 100,
            captured: 60,
            header: VnetHeader([1, 1, 54, 0, 10, 0, 34, 0, 16, 0]),
            ..Record::default()
        };
        let mut seen = Vec::new();
        WireFrames::default().cut(&record, &[7; 60], 50, |record, bytes| {
            seen.push((*record, bytes.len()));
        });
        let [(kept, 50)] = seen[..] else {
            panic!("{seen:?}")
        };
        assert_eq!(
            (kept.header, kept.len, kept.captured),
            (record.header, 100, 50)
        );
    }

    #[test]
    fn plain_frames_are_only_shortened() {
        let record = Record {
            len: 60,
            captured: 60,
            ..Record::default()
        };
        let mut lengths = Vec::new();
        WireFrames::default().cut(&record, &[7; 60], 0, |_, bytes| lengths.push(bytes.len()));
        WireFrames::default().cut(&record, &[7; 60], 20, |_, bytes| lengths.push(bytes.len()));
        assert_eq!(lengths, [60, 20]);
    }
}
