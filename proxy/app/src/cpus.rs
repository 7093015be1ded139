//! How many workers the proxy may keep busy: what its cgroup grants, not what the machine has.

use std::{fs, path::Path};

/// One worker for each CPU of the grant, begun ones included; one where nothing is granted in particular: a sidecar
/// takes no more of a machine than it was given.
pub fn granted() -> usize {
    quota(Path::new("/sys/fs/cgroup")).map_or(1, |quota| quota.ceil().max(1.0) as usize)
}

/// The CPU quota of the cgroup mounted at `root`, in CPUs: `cpu.max` of version 2, else version 1's pair of files.
fn quota(root: &Path) -> Option<f64> {
    let (quota, period) = match fs::read_to_string(root.join("cpu.max")) {
        Ok(max) => {
            let (quota, period) = max.trim().split_once(' ')?;
            (quota.to_owned(), period.to_owned())
        }
        Err(_) => {
            let read = |file| fs::read_to_string(root.join("cpu").join(file)).ok();
            (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?)
        }
    };
    let (quota, period): (f64, f64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_cgroups_are_read() {
        let cases: [(&[(&str, &str)], Option<f64>); 5] = [
            (&[("cpu.max", "150000 100000\n")], Some(1.5)),
            (&[("cpu.max", "max 100000\n")], None),
            (&[("cpu/cpu.cfs_quota_us", "200000\n"), ("cpu/cpu.cfs_period_us", "100000\n")], Some(2.0)),
            (&[("cpu/cpu.cfs_quota_us", "-1\n"), ("cpu/cpu.cfs_period_us", "100000\n")], None),
            (&[], None),
        ];
        for (number, (files, expected)) in cases.into_iter().enumerate() {
            let root = std::env::temp_dir().join(format!("weft-cpus-{}-{number}", std::process::id()));
            for (file, text) in files {
                let path = root.join(file);
                fs::create_dir_all(path.parent().expect("it has a folder")).expect("a temporary folder");
                fs::write(path, text).expect("a temporary file");
            }
            assert_eq!(quota(&root), expected, "{files:?}");
            let _ = fs::remove_dir_all(&root);
        }
    }
}
