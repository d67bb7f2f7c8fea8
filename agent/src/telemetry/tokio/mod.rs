//! tokio: what several of its signals share.

pub mod poll;
pub mod wake;

use super::AttributeDef;

pub const TOKIO_TASK_ID: &str = "tokio.task.id";
pub const TOKIO_TASK_FUTURE: &str = "tokio.task.future";

pub static ATTRIBUTES: &[AttributeDef] = &[
    AttributeDef {
        key: TOKIO_TASK_ID,
        kind: "int",
        description: "tokio::task::Id.",
    },
    AttributeDef {
        key: TOKIO_TASK_FUTURE,
        kind: "string",
        description: "Type name of the task's future or closure. Names joined by ` | ` share the code of one vtable. `unknown` if no symbol has the name.",
    },
];
