//! Runtimes as their signals have them, one row each. What their executables say without any signal is their [`Image`]'s to tell.

use super::State;
use crate::{
    attach::{
        maps::Missing,
        plan::{Failure, Plan, Probe},
    },
    inspect::{GoImage, Image, TokioImage},
    runtime::ProofError,
};

/// What signals make of an executable's [`Image`].
pub trait Runtime {
    /// What to attach to a process that maps it at `bias`.
    fn plan(&self, bias: u64) -> Plan;

    /// What follows for the rest of a plan from what was left out of it.
    fn settle(&self, _plan: &mut Plan) {}

    /// Opens the memory of a process, for the signals that are read from it, where there are any. An error is why nothing that was found
    /// of the runtime may be used: see [`Self::without_memory`].
    fn open(&self, _pid: u32, _bias: u64, _state: &mut State) -> Result<(), ProofError> {
        Ok(())
    }

    /// Takes all that hangs on the runtime's memory out of a plan; `reason` is why. What was off keeps its own reason.
    fn without_memory(&self, _plan: &mut Plan, _reason: &str) {}

    /// What signals lose when the kernel's maps had no space for some entries of a plan.
    fn without_entries(&self, _plan: &Plan, _missing: Missing) -> Vec<Failure> {
        Vec::new()
    }

    /// What is seen less of some types of tasks, or again, as probes are `missing`; None where that makes no difference. `before` is
    /// whether it did before.
    fn lost(&self, _bias: u64, _missing: &[Probe], _before: bool) -> Option<Lost> {
        None
    }
}

/// What is seen less since probes could not be attached, beside their own signals.
pub struct Lost {
    /// Where these probes were to be.
    pub places: Vec<u64>,
    /// What the kernel side is to be told of the types of tasks, as in [`Plan::types`].
    pub types: Vec<(u64, u32)>,
    /// What that takes from their signal.
    pub failure: Option<Failure>,
}

/// A row: the image, if it is this runtime's.
type Row = fn(&dyn Image) -> Option<&dyn Runtime>;

const RUNTIMES: &[Row] = &[
    of::<GoImage>,
    of::<TokioImage>,
    #[cfg(test)]
    of::<crate::inspect::EmptyImage>,
];

fn of<T: Image + Runtime>(image: &dyn Image) -> Option<&dyn Runtime> {
    image.downcast_ref::<T>().map(|image| -> &dyn Runtime { image })
}

/// The runtime of an executable; None where no signal is of it.
pub fn runtime(image: &dyn Image) -> Option<&dyn Runtime> {
    RUNTIMES.iter().find_map(|of| of(image))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        inspect::{EMPTY_SECTION, EmptyImage, GoHook, inspect, readers::executable},
        signals::plan,
    };

    impl Runtime for EmptyImage {
        fn plan(&self, _: u64) -> Plan {
            Plan::default()
        }
    }

    #[test]
    fn a_runtime_that_is_only_recognised_needs_no_more_than_its_rows() {
        let image = inspect(&executable(&[(EMPTY_SECTION, b"x", 0)])).unwrap().unwrap();
        assert!(runtime(&*image).is_some());
        assert_eq!((image.name(), image.has_symbols()), ("empty".to_owned(), false));
        let mut plan = plan::plan(&*image, 0, &[]);
        plan::without_memory(&*image, &mut plan, "there is none");
        assert_eq!((plan.probes.len(), plan.states.len()), (0, 0));
        let mut state = State::default();
        assert!(plan::open(&*image, 1, 0, &mut state).is_ok() && state.go.is_none());
        assert!(plan::lost(&*image, 0, &[], true).is_none());
    }

    #[test]
    fn each_row_is_for_its_own_images() {
        let go = GoImage::sample(26);
        let image: &dyn Image = &go;
        assert!(image.downcast_ref::<TokioImage>().is_none());
        let image = image.downcast_ref::<GoImage>();
        assert!(image.is_some_and(|image| image.sites.contains_key(&GoHook::Execute)));
        assert!(runtime(&go).is_some());
    }
}
