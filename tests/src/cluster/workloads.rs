//! Manifests of the program `echo` in the shapes that scenarios need. `NAMESPACE` stands for theirs.

/// A service account, a Deployment of servers behind a Service at port 80, whose target is a port by name.
pub fn server(name: &str, replicas: u32) -> String {
    format!(
        r#"
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}, namespace: NAMESPACE}}
---
{}---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: NAMESPACE}}
spec:
  replicas: {replicas}
  strategy: {{rollingUpdate: {{maxUnavailable: 0, maxSurge: 1}}}}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      serviceAccountName: {name}
      containers:
      - name: app
        image: weft.test/echo:1
        args: [serve]
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
"#,
        service(name, "")
    )
}

/// A Service at port 80 for the pods of this app, with more fields of its spec as flow YAML (`clusterIP: None, `).
pub fn service(name: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: NAMESPACE}}\n\
         spec: {{{more}selector: {{app: {name}}}, ports: [{{name: http, port: 80, targetPort: http}}]}}\n"
    )
}

/// A pod with an account of its own that waits to be told what to do.
pub fn client(name: &str) -> String {
    pod(name, "[sleep]", "")
}

/// A pod, its account, and its application's arguments and further fields, both as flow YAML.
pub fn pod(name: &str, args: &str, more: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}, namespace: NAMESPACE}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: NAMESPACE, labels: {{app: {name}}}}}
spec:
  serviceAccountName: {name}
  terminationGracePeriodSeconds: 5
  containers:
  - {{name: app, image: "weft.test/echo:1", args: {args}{more}}}
"#
    )
}

/// The same, with what the restricted Pod Security wants of each pod's application.
pub fn restricted(manifest: &str) -> String {
    let context = "securityContext: {runAsNonRoot: true, runAsUser: 65532, allowPrivilegeEscalation: false, \
                   capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}";
    let manifest = manifest.replace("  - {name: app, ", &format!("  - {{name: app, {context}, "));
    manifest.replace("      - name: app\n", &format!("      - name: app\n        {context}\n"))
}
