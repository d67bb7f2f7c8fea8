//! tokio's runtime.

pub mod poll;
pub mod wake;

use agent_common::target::IS_TOKIO;

use crate::{
    attach::plan::Plan,
    inspect::{HeaderLayout, ProbeSite, SiteError, TokioHook, TokioImage},
};

type Site = Result<ProbeSite, SiteError>;

/// The plan of a tokio process.
pub fn plan(image: &TokioImage, bias: u64) -> Plan {
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
