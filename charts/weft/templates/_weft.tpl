{{- /* Labels of an object of a component: include "weft.labels" (list . "control"), with further ones: (list . "control" $further).
Ours win over the user's: selectors, policies and `weft uninstall` go by them. */ -}}
{{- define "weft.labels" -}}
{{- $root := index . 0 -}}
{{- $further := dict -}}
{{- if gt (len .) 2 }}{{ $further = index . 2 }}{{ end -}}
{{- $ours := dict
  "app.kubernetes.io/name" "weft"
  "app.kubernetes.io/part-of" "weft"
  "app.kubernetes.io/component" (index . 1)
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- toYaml (mergeOverwrite dict $root.Values.commonLabels $further $ours) }}
{{- end }}

{{- /* What never changes on a pod, so that an upgrade can be one: include "weft.selector" "control" */ -}}
{{- define "weft.selector" -}}
app.kubernetes.io/name: weft
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- /* Labels and annotations of a component's pods, whose values stand under its name: include "weft.podMetadata" (list . "control").
What carries the mesh is not in it. */ -}}
{{- define "weft.podMetadata" -}}
{{- $values := index (index . 0).Values (index . 1) -}}
labels:
  {{- include "weft.labels" (append . (mergeOverwrite dict $values.podLabels (dict "weft.mesh/inject" "disabled"))) | nindent 2 }}
{{- with $values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* An image of the release: include "weft.image" (list . "control") */ -}}
{{- define "weft.image" -}}
{{- $root := index . 0 -}}
{{ $root.Values.image.prefix }}/{{ index . 1 }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}
{{- end }}

{{- /* Where a component's pods may run: include "weft.scheduling" (list . "control") */ -}}
{{- define "weft.scheduling" -}}
{{- $values := index (index . 0).Values (index . 1) -}}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Replicas apart from each other: on different nodes, and in different zones where there are some. A tainted node that takes
none of them is not counted, and neither are the pods of the version that is being replaced. */ -}}
{{- define "weft.spread" -}}
topologySpreadConstraints:
  - topologyKey: kubernetes.io/hostname
    maxSkew: 1
    whenUnsatisfiable: DoNotSchedule
    nodeTaintsPolicy: Honor
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "weft.selector" . | nindent 8 }}
  - topologyKey: topology.kubernetes.io/zone
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    nodeTaintsPolicy: Honor
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "weft.selector" . | nindent 8 }}
{{- end }}

{{- /* What "restricted" Pod Security asks of a container, and a read-only root besides. */ -}}
{{- define "weft.restricted" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- /* ... and of a pod. */ -}}
{{- define "weft.restrictedPod" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- /* Liveness and readiness on the port that is named admin. Not ready is no reason for a restart: it waits for what it names. */ -}}
{{- define "weft.probes" -}}
livenessProbe:
  httpGet:
    path: /live
    port: admin
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /ready
    port: admin
  periodSeconds: 2
  timeoutSeconds: 5
{{- end }}

{{- /* What both webhooks share. */ -}}
{{- define "weft.webhook" -}}
admissionReviewVersions: [v1]
clientConfig:
  service:
    name: weft-injector
    namespace: {{ .Release.Namespace }}
    path: /inject
    port: 443
rules:
  - apiGroups: [""]
    apiVersions: [v1]
    operations: [CREATE]
    resources: [pods]
    scope: Namespaced
matchPolicy: Equivalent
reinvocationPolicy: IfNeeded
sideEffects: None
timeoutSeconds: 5
{{- end }}
