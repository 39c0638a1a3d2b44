//! Student or teacher: a network and the variables that hold its weights.

use model::Network;
use tch::{Tensor, nn};

use crate::error::Result;
use crate::learner::LearnerConfig;

/// A network and the variables that hold its weights.
pub struct Branch {
    /// The variables.
    pub vars: nn::VarStore,
    /// Backbone and heads on them.
    pub network: Network,
}

impl Branch {
    /// A network with fresh weights, drawn from torch's generator.
    ///
    /// # Errors
    /// A wrong value in a config.
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

    /// All variables by name, in a fixed order, sharing storage with the network.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        model::weights::named_variables(&self.vars)
    }
}
