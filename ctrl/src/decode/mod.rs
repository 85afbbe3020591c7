//! Stub until the real one is here.

/// One line about a frame.
pub fn summary(frame: &[u8]) -> String {
    let Some((head, _)) = frame.split_first_chunk::<14>() else {
        return "no frame".into();
    };
    let mac = |at: usize| {
        let bytes = head[at..at + 6].iter();
        bytes
            .map(|byte| format!("{byte:02x}"))
            .collect::<Vec<_>>()
            .join(":")
    };
    format!("{} > {}: {:02x}{:02x}", mac(6), mac(0), head[12], head[13])
}
