//! Who carries an end that has both a tap and a vhost-user socket: whoever plugs in first.

/// Who is plugged in at such an end. Front ends carry it as long as they are there; they are
/// let in only while nobody holds the tap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Claims {
    /// Somebody has opened the tap.
    pub(super) tap: bool,
    /// A vhost-user front end has started its rings.
    pub(super) front_end: bool,
}

impl Claims {
    /// Somebody is plugged in.
    pub(super) fn any(self) -> bool {
        self.tap || self.front_end
    }

    /// Whether front ends are let in. One that carries the end may come back after its
    /// connection broke, so the gate closes behind it only when it has left.
    pub(super) fn gate_is_open(self) -> bool {
        self.front_end || !self.tap
    }

    /// Whether somebody holds the tap and gets nothing.
    pub(super) fn tap_is_idle(self) -> bool {
        self.tap && self.front_end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_carries_the_end() {
        let mut claims = Claims::default();
        assert!(claims.gate_is_open() && !claims.any());
        claims.tap = true;
        assert!(!claims.gate_is_open() && !claims.tap_is_idle());
        claims.tap = false;
        claims.front_end = true;
        assert!(claims.gate_is_open());
        claims.tap = true;
        assert!(claims.tap_is_idle() && claims.gate_is_open());
        claims.front_end = false;
        assert!(!claims.tap_is_idle() && !claims.gate_is_open());
    }
}
