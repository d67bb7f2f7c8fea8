//! For tests of what comes after inspection.

use super::{Form, GoSymbolizer, Header};

impl GoSymbolizer {
    /// One that knows no function.
    pub fn empty() -> Self {
        let header = Header {
            form: Form::Go120,
            quantum: 1,
            functions: 0,
            names: 0,
            units: 0,
            files: 0,
            pc_values: 0,
            funcs: 0,
        };
        Self {
            place: 0..0,
            text: 0,
            header,
            data: None,
            wrapper: 0,
        }
    }
}
