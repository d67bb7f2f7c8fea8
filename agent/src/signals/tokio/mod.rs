//! tokio's runtime.

pub mod poll;
pub mod wake;

use agent_common::target::IS_TOKIO;

use super::runtimes::{Lost, Runtime};
use crate::{
    attach::{
        maps::Missing,
        plan::{Failure, Plan, Probe},
    },
    inspect::{HeaderLayout, ProbeSite, SiteError, TokioHook, TokioImage},
};

type Site = Result<ProbeSite, SiteError>;

impl Runtime for TokioImage {
    fn plan(&self, bias: u64) -> Plan {
        plan(self, bias)
    }

    fn settle(&self, plan: &mut Plan) {
        if poll::ends(&plan.probes).next().is_none() {
            poll::without_ends(plan);
        }
    }

    fn without_entries(&self, plan: &Plan, missing: Missing) -> Vec<Failure> {
        let types = poll::without_types(plan, missing.types);
        types
            .into_iter()
            .chain(wake::without_sites(plan, missing.sites))
            .collect()
    }

    fn lost(&self, bias: u64, missing: &[Probe], before: bool) -> Option<Lost> {
        let places: Vec<u64> = poll::ends(missing).map(|probe| probe.site.file_offset).collect();
        (before || !places.is_empty()).then(|| Lost {
            places,
            types: poll::types(self, bias, missing),
            failure: poll::lost_ends(self, missing),
        })
    }
}

fn plan(image: &TokioImage, bias: u64) -> Plan {
    let mut plan = Plan {
        flags: IS_TOKIO,
        ..Plan::default()
    };
    plan.tokio_vtable = image.header.vtable_offset as u32;
    plan.tokio_id_offset = (HeaderLayout::ID_WORD * 8) as u32;
    plan.types = poll::types(image, bias, &[]);
    for (vtable, (_, id)) in image.vtables.iter().zip(&plan.types) {
        plan.futures
            .insert(*id, vtable.future.label().unwrap_or_else(|| "unknown".to_owned()));
    }
    poll::plan(image, &mut plan);
    wake::plan(image, bias, &mut plan);
    plan
}

fn sites(image: &TokioImage, hook: TokioHook) -> &[Site] {
    image.hooks.get(&hook).map(Vec::as_slice).unwrap_or_default()
}
