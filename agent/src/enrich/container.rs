//! The container a process runs in, by its cgroup's name; where the cgroup namespace hides that, by what is mounted in it.

use std::path::Path;

use procfs::{
    FromRead as _, ProcessCGroups,
    process::{MountInfo, MountInfos},
};

/// The container's id of 64 hex digits, from a process' directory in /proc.
pub fn id(process: &Path) -> Option<String> {
    let cgroups = ProcessCGroups::from_file(process.join("cgroup")).ok();
    cgroups
        .and_then(|cgroups| from_cgroups(&cgroups))
        .or_else(|| from_mounts(&MountInfos::from_file(process.join("mountinfo")).ok()?))
}

/// Docker, containerd, CRI-O and podman all end the cgroup's path in the id, some within `NAME-ID.scope`.
fn from_cgroups(cgroups: &ProcessCGroups) -> Option<String> {
    cgroups
        .into_iter()
        .flat_map(|cgroup| cgroup.pathname.rsplit('/'))
        .find_map(|part| {
            let part = part.strip_suffix(".scope").unwrap_or(part);
            // libpod-conmon-ID is podman's monitor, outside the container.
            if part.contains("conmon") {
                return None;
            }
            // containerd's CRI: cri-containerd:ID; others: docker-ID, crio-ID, libpod-ID, ID.
            part.rsplit(['-', ':']).next().filter(|id| is_id(id)).map(str::to_owned)
        })
}

/// Engines mount the container's hostname and resolv.conf from a directory named by its id.
fn from_mounts(mounts: &MountInfos) -> Option<String> {
    let files = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run/.containerenv"].map(Path::new);
    // containerd mounts these from the pod's sandbox, whose id is not the container's.
    let is_own =
        |mount: &&MountInfo| files.contains(&mount.mount_point.as_path()) && !mount.root.contains("/sandboxes/");
    mounts
        .iter()
        .filter(is_own)
        .find_map(|mount| mount.root.rsplit('/').find(|part| is_id(part)))
        .map(str::to_owned)
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4e1ac6f1b7b0a3c5d9e8f7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b7";

    fn check(cgroup: &str, expected: Option<&str>) {
        let found = from_cgroups(&ProcessCGroups::from_read(cgroup.as_bytes()).unwrap());
        assert_eq!(found.as_deref(), expected, "{cgroup}");
    }

    #[test]
    fn engines_name_their_cgroups() {
        check(&format!("0::/system.slice/docker-{ID}.scope"), Some(ID));
        check(&format!("12:cpu:/docker/{ID}\n0::/"), Some(ID));
        check(
            &format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
            Some(ID),
        );
        check(
            &format!("0::/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{ID}"),
            Some(ID),
        );
        check(
            &format!("0::/kubepods/besteffort/pod1/crio-{ID}.scope/container"),
            Some(ID),
        );
        check(&format!("0::/machine.slice/libpod-{ID}.scope"), Some(ID));
        check(&format!("0::/machine.slice/libpod-conmon-{ID}.scope"), None);
        check("0::/user.slice/user-0.slice/session-1.scope", None);
        check("0::/", None);
    }

    #[test]
    fn mounts_tell_where_the_cgroup_does_not() {
        let from_mounts = |line: &str| from_mounts(&MountInfos::from_read(line.as_bytes()).unwrap());
        let line = format!("612 583 8:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/sda1 rw");
        assert_eq!(from_mounts(&line).as_deref(), Some(ID));
        let podman =
            format!("9 8 0:2 /containers/overlay-containers/{ID}/userdata/hosts /etc/hosts rw - tmpfs tmpfs rw");
        assert_eq!(from_mounts(&podman).as_deref(), Some(ID));
        assert_eq!(from_mounts("1 0 8:1 / / rw - ext4 /dev/sda1 rw"), None);
    }
}
