//! Lines from an untrusted stream: each is bounded before it is parsed.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// Reads up to and without the next `end`, at most `limit` bytes.
///
/// `Ok(None)` is the end of the stream. A connection that was reset counts as ended: a QEMU that exits
/// leaves it like that. Bytes without an `end` before the end of the stream are dropped.
///
/// # Errors
/// `InvalidData` when a line is longer than `limit`; the stream is then in the middle of that line and
/// must not be read on. Otherwise the error of the stream.
pub(crate) async fn read<R: AsyncBufRead + Unpin>(
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

/// Drops everything up to and including the next `end`, at most `limit` bytes. `false` at the end of
/// the stream.
///
/// # Errors
/// As [`read`].
pub(crate) async fn skip<R: AsyncBufRead + Unpin>(
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
    async fn skips_to_the_mark_within_a_limit() {
        let mut reader = BufReader::with_capacity(3, &b"garbage\xffrest\n"[..]);
        assert!(skip(&mut reader, 0xff, 7).await.unwrap());
        assert_eq!(read(&mut reader, b'\n', 9).await.unwrap().unwrap(), b"rest");
        assert!(!skip(&mut reader, 0xff, 9).await.unwrap());
        let mut endless = BufReader::with_capacity(3, tokio::io::repeat(7));
        assert!(skip(&mut endless, 0xff, 100).await.is_err());
    }
}
