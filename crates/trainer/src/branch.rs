//! A student or teacher: a network and the variables that store its weights.

use model::Network;
use tch::{Tensor, nn};

use crate::error::Result;
use crate::learner::LearnerConfig;

/// A network and the variables that store its weights.
pub struct Branch {
    /// The variables.
    pub vars: nn::VarStore,
    /// The backbone and the heads, which use these variables.
    pub network: Network,
}

impl Branch {
    /// Creates a network with new weights, drawn from torch's generator.
    ///
    /// # Errors
    /// Returns an error if a config value is invalid.
    pub fn new(config: &LearnerConfig) -> Result<Self> {
        let vars = nn::VarStore::new(config.device);
        let network = Network::new(&vars, &config.model, &config.head)?;
        let kind = config.precision.weights();
        for (_, mut variable) in vars.variables() {
            if variable.kind() != kind {
                variable.set_data(&variable.to_kind(kind));
            }
        }
        Ok(Self { vars, network })
    }

    /// Returns all variables by name, in a fixed order, sharing storage with the network.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        model::weights::named_variables(&self.vars)
    }
}
