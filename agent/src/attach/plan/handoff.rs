//! Where a P that is handed off is seen, and where its caller stands then.

use agent_common::go::handoff::IN_LINK_REGISTER;

use super::{Coverage, Plan, Probe, found};
use crate::{
    inspect::{ArgLocation, GoHook, GoImage, SiteCost},
    signals,
};

pub(super) fn plan(image: &GoImage, plan: &mut Plan) {
    let signal = signals::go::handoff::NAME;
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
    match seen {
        Ok((site, caller)) => {
            plan.go.handoff_return = caller;
            plan.probes.push(Probe {
                signal,
                program: "go_handoff",
                site,
            });
            plan.set(signal, Coverage::Full);
        }
        Err(reason) => plan.set(signal, Coverage::Off(reason)),
    }
}
