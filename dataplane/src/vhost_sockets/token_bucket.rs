//! How often something may happen: [`TokenBucket`].

use std::time::{Duration, Instant};

/// Allows a burst at once, and then a rate.
#[derive(Debug, Clone)]
pub(crate) struct TokenBucket {
    left: u32,
    burst: u32,
    each: Duration,
    /// When the next token is added, unless the bucket is full.
    next: Option<Instant>,
}

impl TokenBucket {
    pub(crate) fn new(burst: u32, each: Duration) -> Self {
        TokenBucket {
            left: burst,
            burst,
            each,
            next: None,
        }
    }

    /// Takes a token. `Err`: the bucket is empty until that time.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        while let Some(next) = self.next.filter(|next| *next <= now) {
            self.left += 1;
            self.next = (self.left < self.burst).then_some(next + self.each);
        }
        let next = *self.next.get_or_insert(now + self.each);
        if self.left == 0 {
            return Err(next);
        }
        self.left -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_allows_a_burst_and_then_a_rate() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut bucket = TokenBucket::new(3, second);
        for _ in 0..3 {
            assert_eq!(bucket.take(start), Ok(()));
        }
        assert_eq!(bucket.take(start), Err(start + second));
        assert_eq!(bucket.take(start + second), Ok(()));
        assert_eq!(bucket.take(start + second), Err(start + 2 * second));
        for _ in 0..3 {
            assert_eq!(bucket.take(start + 100 * second), Ok(()));
        }
        assert!(bucket.take(start + 100 * second).is_err());
    }
}
