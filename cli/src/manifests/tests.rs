//! The manifests as they are printed, and the rights that they give.

use super::*;
use std::path::PathBuf;
use std::{env, fs};

/// Each case: the rendering, and what it is fitted to.
fn cases() -> Vec<(&'static str, Variant, Fit)> {
    let elsewhere = Fit {
        namespace: "mesh".into(),
        image_prefix: "images.example:5000/weft".into(),
        image_tag: "0.1.0-fips".into(),
    };
    vec![
        ("default", Variant::Default, Fit::default()),
        ("ha", Variant::Ha, Fit::default()),
        ("cni-elsewhere", Variant::Cni, elsewhere),
    ]
}

/// A few objects of the odd kinds, so that the chart may change without this: `x.in.yaml` is printed as `x.out.yaml`.
#[test]
fn print_is_as_written_down() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/print");
    let fit = Fit {
        namespace: "mesh".into(),
        image_prefix: "images.example:5000/weft".into(),
        image_tag: "9.9.9".into(),
    };
    let rendering = fs::read_to_string(folder.join("odd.in.yaml")).unwrap();
    let printed = yaml(&objects(&rendering, &fit).unwrap()).unwrap();
    let file = folder.join("odd.out.yaml");
    if env::var_os("UPDATE").is_some() {
        fs::write(&file, &printed).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    assert!(printed == expected, "{} differs: UPDATE=1 rewrites it", file.display());
}

#[test]
fn nothing_of_the_defaults_is_left_elsewhere() {
    let (_, variant, fit) = cases().pop().unwrap();
    let printed = yaml(&objects(variant.rendering(), &fit).unwrap()).unwrap();
    for word in
        ["weft-system", "weft.mesh/control:", "weft.mesh/init:", "prefix: weft.mesh", "Helm", "helm.sh"]
    {
        assert!(!printed.contains(word), "{word} is left in what is printed");
    }
    for word in [
        "images.example:5000/weft/control:0.1.0-fips",
        "weft-control.mesh.svc",
        "namespace: mesh",
        "weft.mesh/inject",
    ] {
        assert!(printed.contains(word), "{word} is not in what is printed");
    }
}

#[test]
fn an_object_stays_what_it_is() {
    for (name, variant, _) in cases() {
        let written: Vec<Value> = serde_saphyr::from_multiple(variant.rendering()).unwrap();
        let written: Vec<_> = written.into_iter().filter(|document| !document.is_null()).collect();
        let printed = yaml(&objects(variant.rendering(), &Fit::default()).unwrap()).unwrap();
        let mut printed: Vec<Value> = serde_saphyr::from_multiple(&printed).unwrap();
        for mut object in written {
            relabel(&mut object);
            // The text of a document within is laid out anew.
            fit_injector(&mut object, &Fit::default()).unwrap();
            let at = printed.iter().position(|one| *one == object);
            let title = format!("{} {}", object["kind"], object["metadata"]["name"]);
            printed.remove(at.unwrap_or_else(|| panic!("{name}: {title} is not what it was")));
        }
        assert!(printed.is_empty(), "{name}: {printed:?} came from nowhere");
    }
}

#[test]
fn webhooks_come_last_and_the_namespace_first() {
    for (name, variant, fit) in cases() {
        let objects = objects(variant.rendering(), &fit).unwrap();
        assert_eq!(objects.first().unwrap().resource.kind, "Namespace", "{name}");
        assert_eq!(objects.last().unwrap().resource.kind, "MutatingWebhookConfiguration", "{name}");
        assert!(objects.len() > 10, "{name}: {} objects", objects.len());
    }
}

#[test]
fn a_namespace_is_replaced_as_a_whole_label() {
    for (text, fitted) in [
        ("weft-system", "mesh"),
        ("weft-control.weft-system.svc:8486", "weft-control.mesh.svc:8486"),
        ("--namespace=weft-system", "--namespace=mesh"),
        ("my-weft-system", "my-weft-system"),
        ("weft-system-2 weft-system", "weft-system-2 mesh"),
    ] {
        assert_eq!(replace_label(text, "weft-system", "mesh"), fitted);
    }
}

#[test]
fn an_unknown_kind_is_refused() {
    let text = "apiVersion: example.dev/v1\nkind: Odd\nmetadata: {name: odd}\n";
    let error = objects(text, &Fit::default()).unwrap_err().to_string();
    assert!(error.contains("no kind that is installed here"), "{error}");
}

#[test]
fn rights_are_those_of_the_bindings() {
    let text = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules:
- {apiGroups: ['', apps], resources: [pods], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {kind: ClusterRole, name: reader}
subjects: [{kind: ServiceAccount, name: a, namespace: ns}, {kind: User, name: u}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: secret, namespace: ns}
rules:
- {apiGroups: [''], resources: [secrets], resourceNames: [one], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: secret, namespace: ns}
roleRef: {kind: Role, name: secret}
subjects: [{kind: ServiceAccount, name: b, namespace: ns}]
";
    let right = |account: &str,
                 namespace: Option<&str>,
                 verb: &str,
                 group: &str,
                 resource: &str,
                 name: Option<&str>| {
        Right {
            account: ("ns".into(), account.into()),
            namespace: namespace.map(str::to_owned),
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            name: name.map(str::to_owned),
        }
    };
    let found = rights(&objects(text, &Fit::default()).unwrap());
    let expected = [
        right("a", None, "list", "", "pods", None),
        right("a", None, "list", "apps", "pods", None),
        right("b", Some("ns"), "get", "", "secrets", Some("one")),
    ];
    assert_eq!(found, expected);
}
