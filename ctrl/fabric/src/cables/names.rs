//! How the names in a request are resolved: [`CableNames`].

use std::collections::HashSet;
use std::sync::Arc;

use api::ApiError;
use dataplane::Side;
use model::topology::Topology;

/// Finds cables and their ends by name.
pub(crate) trait CableNames {
    /// The index of the cable that has this name, or that has an end of this name.
    ///
    /// # Errors
    /// When no cable has this name.
    fn cable(&self, name: &str) -> Result<usize, ApiError>;

    /// The indices of all cables that this name stands for: of a cable, or of all cables of a switch,
    /// rack or server.
    ///
    /// # Errors
    /// When nothing has this name.
    fn named(&self, name: &str) -> Result<Vec<usize>, ApiError> {
        Ok(vec![self.cable(name)?])
    }

    /// The same for several names. Each cable comes once.
    ///
    /// # Errors
    /// The first name that nothing has.
    fn all_named(&self, names: &[String]) -> Result<Vec<usize>, ApiError> {
        let mut known = HashSet::new();
        let mut all = Vec::new();
        for name in names {
            let named = self.named(name)?.into_iter();
            all.extend(named.filter(|index| known.insert(*index)));
        }
        Ok(all)
    }

    /// The cable and the side of the port that has this name or alias.
    ///
    /// # Errors
    /// When no port has this name.
    fn end(&self, name: &str) -> Result<(usize, Side), ApiError>;

    /// The readable name of an end, such as `spine1:2`.
    fn alias(&self, cable: usize, side: Side) -> String;

    /// Whether a cable joins two switches, which then hold a BGP session over it.
    fn is_between_switches(&self, cable: usize) -> bool;
}

impl CableNames for Topology {
    fn cable(&self, name: &str) -> Result<usize, ApiError> {
        let cable = Topology::cable(self, name).map_err(ApiError::unknown)?;
        let mut all = self.cables.iter();
        let index = all.position(|other| other.name == cable.name);
        Ok(index.expect("the topology's own cable"))
    }

    fn named(&self, name: &str) -> Result<Vec<usize>, ApiError> {
        self.cables_named(name).map_err(ApiError::unknown)
    }

    fn end(&self, name: &str) -> Result<(usize, Side), ApiError> {
        let found = Topology::end(self, name).map_err(ApiError::unknown)?;
        Ok((found.index, found.side))
    }

    fn alias(&self, cable: usize, side: Side) -> String {
        self.cables[cable].end(side).alias.clone()
    }

    fn is_between_switches(&self, cable: usize) -> bool {
        use model::topology::EndOwner::Switch;
        let ends = self.cables[cable].ends();
        ends.into_iter()
            .all(|(_, end)| matches!(end.owner, Switch { .. }))
    }
}

impl<N: CableNames> CableNames for Arc<N> {
    fn cable(&self, name: &str) -> Result<usize, ApiError> {
        N::cable(self, name)
    }

    fn named(&self, name: &str) -> Result<Vec<usize>, ApiError> {
        N::named(self, name)
    }

    fn end(&self, name: &str) -> Result<(usize, Side), ApiError> {
        N::end(self, name)
    }

    fn alias(&self, cable: usize, side: Side) -> String {
        N::alias(self, cable, side)
    }

    fn is_between_switches(&self, cable: usize) -> bool {
        N::is_between_switches(self, cable)
    }
}
