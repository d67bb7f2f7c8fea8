//! Stage aggregate: what the kernel counted, read from its maps, per target.

mod batch;
pub mod histogram;
mod places;
pub mod store;

pub use batch::Table;
pub use histogram::Histogram;
pub use places::Places;
pub use store::{Store, StoreError};
