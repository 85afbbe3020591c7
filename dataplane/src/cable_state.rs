//! The administrative state of a cable: [`CableState`].

/// Whether a cable passes frames, as its operator set it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CableState {
    /// Frames pass.
    #[default]
    Up,
    /// Cut: no frame passes. The worker drops frames; it is for the owner of a device or a socket to
    /// take the carrier away at the ends.
    Down,
    /// The ends keep their carrier, and every frame is dropped.
    Blackhole,
}

impl CableState {
    /// Every state.
    pub const ALL: [CableState; 3] = [CableState::Up, CableState::Down, CableState::Blackhole];

    /// The name in commands and in JSON: `up`, `down` or `blackhole`.
    pub fn name(self) -> &'static str {
        match self {
            CableState::Up => "up",
            CableState::Down => "down",
            CableState::Blackhole => "blackhole",
        }
    }
}
