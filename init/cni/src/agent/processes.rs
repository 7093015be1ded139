//! Which network namespace a running pod has: that of its first process, known by the pod's UID in the process' cgroup.
//!
//! All runtimes put the UID there, under both versions of cgroups, whatever they call their namespaces' files and wherever they keep
//! them; and unlike an address it is never used twice. The price is that the agent sees the node's processes (hostPID).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The lowest process of each pod that runs on this node, by the pod's UID. The lowest is the one that holds the pod's
/// namespaces, or at least older than what containers start.
pub fn first_processes(proc: &Path) -> io::Result<BTreeMap<String, u32>> {
    let mut first = BTreeMap::new();
    for entry in fs::read_dir(proc)? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Some(uid) = uid_of(proc, pid) else { continue };
        let lowest = first.entry(uid).or_insert(pid);
        *lowest = pid.min(*lowest);
    }
    Ok(first)
}

/// The network namespace of a pod's process; none when the process has ended, or has that of the node.
pub fn network_namespace(proc: &Path, uid: &str, pid: u32) -> io::Result<Option<File>> {
    let namespace = match File::open(proc.join(pid.to_string()).join("ns/net")) {
        Ok(namespace) => namespace,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // Its number may have become another process' meanwhile; what was opened stays what it was.
    if uid_of(proc, pid).as_deref() != Some(uid) {
        return Ok(None);
    }
    let (own, its) = (fs::metadata("/proc/self/ns/net")?, namespace.metadata()?);
    Ok(((own.dev(), own.ino()) != (its.dev(), its.ino())).then_some(namespace))
}

fn uid_of(proc: &Path, pid: u32) -> Option<String> {
    pod_uid(&fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).ok()?)
}

/// The UID of a pod in the text of a process' `cgroup`: `…/pod8d5c…-…` where the kubelet makes cgroups itself,
/// `…-pod8d5c…_….slice` where systemd does.
pub fn pod_uid(cgroup: &str) -> Option<String> {
    let parts = cgroup.lines().flat_map(|line| line.split(['/', ':']).rev());
    parts.filter_map(uid_in).next()
}

fn uid_in(part: &str) -> Option<String> {
    let part = part.strip_suffix(".slice").unwrap_or(part);
    let uid = &part[part.rfind("pod")? + "pod".len()..];
    let dashed = uid.replace('_', "-");
    let groups: Vec<usize> = dashed.split('-').map(str::len).collect();
    let is_hex = dashed.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    (is_hex && groups == [8, 4, 4, 4, 12]).then_some(dashed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uid_is_found_in_every_shape_of_cgroup() {
        const UID: &str = "8d5c1c9a-0b5e-4c53-9f0e-3d1d1a6f7b11";
        let table = [
            (format!("0::/kubepods/burstable/pod{UID}/9c1f\n"), Some(UID)),
            (format!("0::/kubepods/pod{UID}\n"), Some(UID)),
            (
                format!(
                    "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{}.slice/cri-containerd-77.scope\n",
                    UID.replace('-', "_")
                ),
                Some(UID),
            ),
            (
                format!("12:cpu,cpuacct:/weft/node1/kubepods/besteffort/pod{UID}/ab\n11:memory:/x\n"),
                Some(UID),
            ),
            // Seen from another cgroup namespace.
            (format!("0::/../../pod{UID}/ab\n"), Some(UID)),
            (
                format!(
                    "0::/system.slice/containerd.service/kubepods-pod{}.slice:cri-containerd:ab\n",
                    UID.replace('-', "_")
                ),
                Some(UID),
            ),
            // A node that is itself a container of a pod.
            (
                format!("0::/kubepods/pod00000000-0000-0000-0000-000000000000/node/kubepods/pod{UID}/ab\n"),
                Some(UID),
            ),
            ("0::/system.slice/podman.service\n".to_owned(), None),
            ("0::/kubepods/podX\n".to_owned(), None),
            (String::new(), None),
        ];
        for (cgroup, expected) in table {
            assert_eq!(pod_uid(&cgroup).as_deref(), expected, "{cgroup}");
        }
    }
}
