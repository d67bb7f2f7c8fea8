//! Stage enrich: a process' resource, from what /proc says of it.

pub mod container;

use std::{borrow::Cow, collections::BTreeMap, fs, io, path::Path};

use log::warn;
use uuid::Uuid;

use crate::{
    deadline,
    discover::Process,
    inspect::Image,
    model::{Resource, Value},
};

/// Who a process is. `service.name`: its own OTEL_SERVICE_NAME, else service.name of its OTEL_RESOURCE_ATTRIBUTES, else its
/// executable's name.
///
/// # Errors
/// The process' environment does not answer.
pub fn resource(process: &Process, image: Option<&dyn Image>) -> io::Result<Resource> {
    let root = Path::new("/proc").join(process.pid.to_string());
    // Unreadable (another user's, without privilege) or gone: as if empty.
    let environ = root.join("environ");
    let environ = match deadline::soon(process.pid, || fs::read(environ)) {
        // It would be another service's name.
        Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
        environ => environ.unwrap_or_default(),
    };
    let own = own_attributes(&environ);
    let exe = process.exe.to_string_lossy();
    let exe = exe.trim_end_matches(" (deleted)").to_owned();
    let name = Path::new(&exe)
        .file_name()
        .map_or_else(|| process.name.clone(), |name| name.to_string_lossy().into_owned());
    let mut found: BTreeMap<Cow<'static, str>, Value> = BTreeMap::new();
    let mut set = |key: &'static str, value: Value| found.insert(key.into(), value);
    set("service.name", name.clone().into());
    set("service.instance.id", instance_id(process.pid, process.start).into());
    set("process.pid", i64::from(process.pid).into());
    set("process.executable.name", name.into());
    set("process.executable.path", exe.into());
    set(
        "host.arch",
        // The names that OTel's conventions have for them.
        match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
        .into(),
    );
    set("os.type", "linux".into());
    // Later ones win: the host's own files, also when the agent runs in a container that sees the host's processes.
    for (key, path) in [
        ("host.name", "/proc/sys/kernel/hostname"),
        ("host.id", "/etc/machine-id"),
        ("host.name", "/proc/1/root/etc/hostname"),
        ("host.id", "/proc/1/root/etc/machine-id"),
    ] {
        if let Some(text) = deadline::soon(deadline::HOST, move || fs::read_to_string(path))
            .ok()
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty())
        {
            set(key, text.into());
        }
    }
    let runtime = image.map(Image::process_runtime);
    if let Some(runtime) = &runtime {
        set("process.runtime.name", runtime.name.into());
        for (key, value) in [
            ("process.runtime.version", &runtime.version),
            ("process.runtime.description", &runtime.description),
        ] {
            if let Some(value) = value {
                set(key, value.clone().into());
            }
        }
    }
    if let Some(id) = container::id(&root) {
        set("container.id", id.into());
    }
    // Made by whywait, whatever SDK the service itself may use. Backends take the language for the service's own.
    set("telemetry.sdk.name", "whywait".into());
    if let Some(runtime) = &runtime {
        set("telemetry.sdk.language", runtime.language.into());
    }
    set("telemetry.sdk.version", env!("CARGO_PKG_VERSION").into());
    set("telemetry.distro.name", "whywait".into());
    set("telemetry.distro.version", env!("CARGO_PKG_VERSION").into());
    for (key, value) in own {
        // What the kernel says of a process is not for its environment to change.
        if !key.starts_with("process.") && !key.starts_with("telemetry.sdk.") {
            found.insert(key.into(), value.into());
        }
    }
    Ok(Resource {
        attributes: found.into_iter().collect(),
    })
}

/// The agent's own resource, for what it says of itself.
pub fn own_resource() -> Resource {
    let attributes = [
        ("service.name", Value::from("whywait")),
        ("service.version", env!("CARGO_PKG_VERSION").into()),
        ("service.instance.id", own_instance_id().into()),
        ("process.pid", i64::from(std::process::id()).into()),
        ("telemetry.sdk.name", "whywait".into()),
        ("telemetry.sdk.language", "rust".into()),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION").into()),
    ];
    Resource {
        attributes: attributes.into_iter().map(|(key, value)| (key.into(), value)).collect(),
    }
}

/// What a process' environment (NUL-separated) says of its resource.
fn own_attributes(environ: &[u8]) -> BTreeMap<String, String> {
    let variable = |wanted: &str| {
        environ.split(|byte| *byte == 0).find_map(|entry| {
            let value = String::from_utf8_lossy(entry)
                .strip_prefix(wanted)?
                .strip_prefix('=')?
                .to_owned();
            (!value.is_empty()).then_some(value)
        })
    };
    let listed = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let mut attributes = listed_attributes(&listed).unwrap_or_else(|reason| {
        warn!("OTEL_RESOURCE_ATTRIBUTES={listed} of a process is ignored completely: {reason}");
        BTreeMap::new()
    });
    if let Some(name) = variable("OTEL_SERVICE_NAME") {
        attributes.insert("service.name".to_owned(), name);
    }
    attributes
}

/// The pairs of OTEL_RESOURCE_ATTRIBUTES. One that cannot be read discards all (OTel specification, Resource SDK, Specifying
/// resource information via an environment variable).
fn listed_attributes(listed: &str) -> Result<BTreeMap<String, String>, String> {
    let pairs = listed.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let read = |pair: &str| {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("{pair}: no ="))?;
        let (key, value) = (key.trim(), value.trim());
        let escapes = value.split('%').skip(1);
        let whole = |escape: &str| escape.len() >= 2 && escape.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit);
        if key.is_empty() || !escapes.into_iter().all(whole) {
            return Err(format!("{pair}: no key, or a % that begins no escape"));
        }
        let decoded = percent_encoding::percent_decode_str(value).decode_utf8();
        let decoded = decoded.map_err(|_| format!("{pair}: its escapes are no UTF-8"))?;
        Ok((key.to_owned(), decoded.into_owned()))
    };
    let attributes: BTreeMap<String, String> = pairs.map(read).collect::<Result<_, String>>()?;
    Ok(attributes.into_iter().filter(|(_, value)| !value.is_empty()).collect())
}

/// A UUID that a process has for its whole life, whoever asks: version 5, in the namespace that the semantic conventions give
/// for `service.instance.id`.
fn instance_id(pid: u32, start: u64) -> String {
    const NAMESPACE: Uuid = uuid::uuid!("4d63009a-8d0f-11ee-aad7-4c796ed8e320");
    Uuid::new_v5(&NAMESPACE, format!("{}/{pid}/{start}", boot_id()).as_bytes()).to_string()
}

fn own_instance_id() -> String {
    let pid = std::process::id();
    // Without a /proc of its own the agent has other worries; a start of 0 is as good a name then.
    instance_id(pid, Process::read(pid).map_or(0, |own| own.start))
}

/// Percent-decoded text; what is no escape stays as it is.
pub fn percent_decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(environ: &str, expected: &[(&str, &str)]) {
        let expected = expected
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        assert_eq!(own_attributes(environ.as_bytes()), expected, "{environ:?}");
    }

    #[test]
    fn the_services_own_word_counts() {
        check("PATH=/bin\0HOME=/", &[]);
        check("OTEL_SERVICE_NAME=shop\0", &[("service.name", "shop")]);
        check(
            "OTEL_RESOURCE_ATTRIBUTES=service.name=a,deployment.environment.name=pre%20prod\0OTEL_SERVICE_NAME=b",
            &[("deployment.environment.name", "pre prod"), ("service.name", "b")],
        );
        check("OTEL_SERVICE_NAME=\0OTEL_RESOURCE_ATTRIBUTES=x=,=y,z", &[]);
        check("XOTEL_SERVICE_NAME=no", &[]);
        // What cannot be read is left out as a whole.
        for bad in ["a=1,b=%zz", "a=1,b=%2", "a=1,b=%ff", "a=1,b", "a=1,=2"] {
            check(&format!("OTEL_RESOURCE_ATTRIBUTES={bad}"), &[]);
        }
    }

    #[test]
    fn an_instance_is_a_uuid_of_its_own() {
        let ids = [instance_id(1, 2), instance_id(1, 3), instance_id(2, 2)];
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2]);
        assert_eq!(instance_id(1, 2), ids[0]);
        let id = Uuid::parse_str(&ids[0]).unwrap();
        assert_eq!(id.get_version_num(), 5);
    }

    #[test]
    fn this_process_has_a_resource() {
        let own = Process::read(std::process::id()).unwrap();
        let resource = resource(&own, None).unwrap();
        let exe = std::env::current_exe().unwrap();
        assert_eq!(
            resource.get("service.name"),
            exe.file_name().and_then(|name| name.to_str())
        );
        assert_eq!(resource.get("process.executable.path"), exe.to_str());
    }
}
