//! Where a P that is handed off is seen, and where its caller stands then.

use agent_common::go::handoff::IN_LINK_REGISTER;

use super::{Plan, found};
use crate::{
    inspect::{ArgLocation, GoHook, GoImage, SiteCost},
    signals,
};

pub(super) fn plan(image: &GoImage, plan: &mut Plan) {
    let seen = found(image.sites.get(&GoHook::HandOff)).and_then(|site| {
        let lost = || {
            format!(
                "{}: where it returns to is not known at any usable place",
                site.function
            )
        };
        let caller = match (site.cost, site.args.as_slice()) {
            (SiteCost::SingleStepped, _) => {
                return Err(format!("{}: no instruction that the kernel emulates", site.function));
            }
            (_, [ArgLocation::Stack(above)]) => u32::try_from(*above).map_err(|_| lost())?,
            (_, [ArgLocation::X(30)]) => IN_LINK_REGISTER,
            _ => return Err(lost()),
        };
        Ok((site.clone(), caller))
    });
    let site = seen.map(|(site, caller)| {
        plan.go.handoff_return = caller;
        site
    });
    plan.set_one(signals::go::handoff::NAME, "go_handoff", site);
}
