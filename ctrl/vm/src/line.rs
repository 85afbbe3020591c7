//! JSON lines from a stream that is not trusted: each line bounded before it is parsed.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// Reads up to and without the next `end`, at most `limit` bytes.
///
/// `Ok(None)` is the end of the stream; a reset connection counts as one, because that is what a
/// QEMU that exits leaves behind. What stands before the end of the stream without `end` is not
/// a line and is dropped.
///
/// # Errors
/// `InvalidData` when the limit is passed; then the stream is in the middle of a line and of no
/// further use. Else what reading gave.
pub(super) async fn read<R: AsyncBufRead + Unpin>(
    reader: &mut R,
    end: u8,
    limit: usize,
) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        let chunk = match reader.fill_buf().await {
            Ok([]) => return Ok(None),
            Ok(chunk) => chunk,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error),
        };
        let found = chunk.iter().position(|byte| *byte == end);
        let part = &chunk[..found.unwrap_or(chunk.len())];
        if line.len() + part.len() > limit {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a line of more than {limit} bytes"),
            ));
        }
        line.extend_from_slice(part);
        let used = part.len() + usize::from(found.is_some());
        reader.consume(used);
        if found.is_some() {
            return Ok(Some(line));
        }
    }
}

/// Drops everything up to and with the next `end`, at most `limit` bytes. `false` is the end of
/// the stream.
///
/// # Errors
/// As [`read`].
pub(super) async fn skip<R: AsyncBufRead + Unpin>(
    reader: &mut R,
    end: u8,
    limit: usize,
) -> io::Result<bool> {
    let mut seen = 0;
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            return Ok(false);
        }
        let found = chunk.iter().position(|byte| *byte == end);
        let used = found.map_or(chunk.len(), |at| at + 1);
        reader.consume(used);
        seen += used;
        if found.is_some() {
            return Ok(true);
        }
        if seen > limit {
            let message = format!("more than {limit} bytes without an answer");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::BufReader;

    #[tokio::test]
    async fn lines_across_small_buffers_and_the_limit() {
        let mut reader = BufReader::with_capacity(3, &b"hello\n\nworld\ntail"[..]);
        assert_eq!(
            read(&mut reader, b'\n', 5).await.unwrap().unwrap(),
            b"hello"
        );
        assert_eq!(read(&mut reader, b'\n', 5).await.unwrap().unwrap(), b"");
        let error = read(&mut reader, b'\n', 4).await.unwrap_err();
        assert_eq!(error.to_string(), "a line of more than 4 bytes");
        let mut rest = BufReader::new(&b"tail"[..]);
        assert_eq!(read(&mut rest, b'\n', 5).await.unwrap(), None);
    }

    #[tokio::test]
    async fn skips_to_the_mark_but_not_for_ever() {
        let mut reader = BufReader::with_capacity(3, &b"garbage\xffrest\n"[..]);
        assert!(skip(&mut reader, 0xff, 7).await.unwrap());
        assert_eq!(read(&mut reader, b'\n', 9).await.unwrap().unwrap(), b"rest");
        assert!(!skip(&mut reader, 0xff, 9).await.unwrap());
        let mut endless = BufReader::with_capacity(3, tokio::io::repeat(7));
        assert!(skip(&mut endless, 0xff, 100).await.is_err());
    }
}
