//! Why a model cannot be.

use thiserror::Error;

/// What is wrong with a model's description or its weights.
#[derive(Debug, Error)]
pub enum ModelError {
    /// A number of the description outside its bounds.
    #[error("{field} is {value}, but must be {bounds}")]
    Bad {
        /// Which.
        field: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        bounds: String,
    },
    /// The description asks for something that no executor here can do.
    #[error("this model is not supported: {0}")]
    Unsupported(String),
    /// A file of the model cannot be read.
    #[error("model file {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the model is not what its name says.
    #[error("model file {path}: {what}")]
    Format {
        /// The file.
        path: String,
        /// Where and why.
        what: String,
    },
    /// A weight is in none of the files.
    #[error("weight {0:?} is missing")]
    Missing(String),
    /// A weight has another shape than the description says.
    #[error("weight {name:?} has shape {shape:?}, but {expected:?} is needed")]
    Shape {
        /// Which.
        name: String,
        /// What it has.
        shape: Vec<usize>,
        /// What it must have.
        expected: Vec<usize>,
    },
}
