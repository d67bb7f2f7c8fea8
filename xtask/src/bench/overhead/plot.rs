//! The results as a picture: each row's CPU/request ratio and its interval, a panel for each set.

use anyhow::Result;

use super::{
    super::plot::{self, Panel},
    cases::SETS,
    measure::Row,
};

pub(super) fn svg(rows: &[Row]) -> Result<String> {
    let panel = |name: &str| Panel {
        title: format!("{name}: CPU/request, with / without the agent"),
        rows: rows
            .iter()
            .filter(|row| row.set.name == name)
            .filter_map(|row| Some((row.name.clone(), row.cpu_ratio()?)))
            .collect(),
        even: Some(1.0),
        bar: Some(1.01),
    };
    let panels: Vec<Panel> = SETS.iter().map(|set| panel(set.name)).collect();
    plot::panels(&panels)
}
