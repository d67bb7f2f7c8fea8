//! A runtime of which nothing is known but that it is there: the least that a new one takes.

use super::{ElfFacts, Image, InspectError, ProcessRuntime, Recogniser, elf::Binary};

/// By this section it is recognised.
pub const SECTION: &str = ".empty_runtime";

#[derive(Debug)]
pub struct EmptyImage {
    elf: ElfFacts,
}

pub(super) const RUNTIME: Recogniser = Recogniser::new(inspect);

fn inspect(binary: &Binary<'_>) -> Result<Option<Box<dyn Image>>, InspectError> {
    let elf = binary.facts.clone();
    Ok(binary
        .has_section(SECTION)
        .then(|| Box::new(EmptyImage { elf }) as Box<dyn Image>))
}

impl Image for EmptyImage {
    fn elf(&self) -> &ElfFacts {
        &self.elf
    }

    fn name(&self) -> String {
        "empty".to_owned()
    }

    fn version(&self) -> Option<&str> {
        None
    }

    fn process_runtime(&self) -> ProcessRuntime {
        ProcessRuntime {
            language: "empty",
            name: "empty",
            version: None,
            description: None,
        }
    }
}
