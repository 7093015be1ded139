//! Files as people write them, and what is said of those that are wrong.

use super::*;

fn print(path: &str, text: &str) -> Vec<String> {
    let parsed = parse(Path::new(path), text);
    let objects = parsed.objects.iter().map(|(line, object)| format!("{line} {}", object.key()));
    let faults = parsed.faults.iter().map(|fault| format!("{} [{}] {}", fault.line, fault.field, fault.what));
    let skipped = (parsed.skipped > 0).then(|| format!("{} skipped", parsed.skipped));
    objects.chain(faults).chain(skipped).collect()
}

#[test]
fn documents_are_read_one_by_one() {
    let text = "# a file\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n\n---\napiVersion: apps/v1\nkind: Deployment\n--- # c\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop2}\n...\n";
    assert_eq!(print("a.yaml", text), ["3 Namespace shop", "12 Namespace shop2", "1 skipped"]);
    let maps = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a.yaml: b}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata: {ca.crt: c}\n";
    assert_eq!(print("a.yaml", maps), ["6 ConfigMap default/b", "1 skipped"]);
    assert_eq!(print("a.yaml", ""), [""; 0]);
    assert_eq!(print("a.yaml", "# nothing\n---\n"), [""; 0]);
    assert_eq!(
        print("a.yaml", "\u{feff}apiVersion: v1\r\nkind: Namespace\r\nmetadata: {name: shop}\r\n---\r\n"),
        ["1 Namespace shop"]
    );
}

#[test]
fn a_marker_within_a_block_scalar_is_a_marker() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  annotations:\n    a: |\n      ---\n      text\n";
    assert_eq!(print("a.yaml", text), ["1 Namespace shop"]);
}

#[test]
fn faults_have_line_and_field_and_spare_the_others() {
    let good = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: cart}\nspec:\n";
    for (bad, expected) in [
        (format!("{service}  ports:\n  - port: 80\n  - port: eighty\n"), "7 [spec.ports[1].port]"),
        (format!("{service}  ports: 80\n"), "5 [spec.ports]"),
        (format!("{service}  clusterIPs: [1, {{}}]\n"), "5 [spec.clusterIPs[1]]"),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: Cart}\n".into(), "1 [] metadata.name"),
        ("apiVersion: v1\nmetadata: {name: cart}\n".into(), "1 [kind] it is missing"),
        ("kind: Pod\nmetadata: {name: cart}\n".into(), "1 [apiVersion] it is missing"),
        ("apiVersion: v1\nkind: Pod\n  metadata: {name: cart}\n".into(), "3 []"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: [cart\n".into(), "[]"),
        ("just words\n".into(), "1 []"),
        ("apiVersion: v1\nkind: Service\nkind: Pod\nmetadata: {name: cart}\n".into(), "3 []"),
    ] {
        let text = format!("{good}---\n{bad}---\n{good}");
        let printed = print("a.yaml", &text);
        assert_eq!(printed[0], "1 Namespace shop", "{bad}");
        assert_eq!(printed.len(), 3, "{bad}{printed:?}");
        let (line, rest) = printed[2].split_once(' ').expect("line and rest");
        let relative = line.parse::<u64>().expect("a line") - 4;
        let fault = format!("{relative} {rest}");
        assert!(fault.contains(expected), "{fault} is not {expected}");
        assert!(!fault.contains('\n') && !fault.contains(" line "), "{fault}");
    }
}

#[test]
fn json_and_lists_are_read() {
    let text = "{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"shop\"}}\n{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Pod\", \"metadata\": {\"name\": \"a\"}\n}\n";
    assert_eq!(print("a.json", text), ["1 Namespace shop", "2 Pod default/a"]);
    assert_eq!(print("a.json", "{\"kind\":")[0].split(' ').next(), Some("1"));
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: shop}\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a}\n  spec: {containers: 7}\n- apiVersion: x/v1\n  kind: Route\n- kind: Pod\n- 7\n";
    let printed = print("a.yaml", list);
    assert_eq!(printed[0], "4 Namespace shop");
    assert!(printed[1].starts_with("7 [items[1].spec.containers] invalid type"), "{printed:?}");
    assert!(
        printed[2].starts_with("13 [items[2].apiVersion]")
            || printed[2].starts_with("13 [items[3].apiVersion]"),
        "{printed:?}"
    );
    assert!(printed[3].starts_with("14 [items[4].]"), "{printed:?}");
    assert_eq!(printed[4], "1 skipped");
}
