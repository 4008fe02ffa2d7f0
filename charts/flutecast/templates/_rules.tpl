{{- /* Written by `make charts` from manifests/. */ -}}
{{- define "flutecast.rules.operator" -}}
rules:
{{- /* manifests/operator/rbac.yaml */}}
  - apiGroups: [flutecast.io]
    resources: [tenants, devices, pushformats]
    verbs: [list, watch]
  - apiGroups: [flutecast.io]
    resources: [tenants/status, devices/status, pushformats/status]
    verbs: [patch]
  # Only for Tenants with enrollment.policy Automatic: a Device is created for a code that nobody has. Without this rule such
  # Tenants say EnrollmentUnavailable, and all else works. docs/enrollment.md
  - apiGroups: [flutecast.io]
    resources: [devices]
    verbs: [create]
  - apiGroups: [events.k8s.io]
    resources: [events]
    verbs: [create, patch]
  - apiGroups: [""]
    resources: [configmaps]
    verbs: [list, watch, create, patch, delete]
  - apiGroups: [""]
    resources: [secrets]
    resourceNames: [flutecast-access]
    verbs: [list, watch, create, patch]
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    verbs: [create]
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    resourceNames: [flutecast-operator]
    verbs: [get, update]
  - apiGroups: [discovery.k8s.io]
    resources: [endpointslices]
    verbs: [list, watch]
{{- end }}
{{- define "flutecast.rules.finalizers" -}}
{{- /* manifests/operator/finalizers.yaml */}}
  # Finalizers can't be granted apart from the rest of an object.
  - apiGroups: [flutecast.io]
    resources: [tenants, pushformats]
    verbs: [patch]
  # What is in a namespace that goes as a whole is let go.
  - apiGroups: [""]
    resources: [namespaces]
    verbs: [get]
{{- end }}
{{- define "flutecast.rules.natsPasswords" -}}
{{- /* manifests/operator/nats-passwords.yaml */}}
  # Made once, by server-side apply, which needs the right to patch; then only read.
  - apiGroups: [""]
    resources: [secrets]
    resourceNames: [{{ include "flutecast.madeNatsPasswords" . }}]
    verbs: [get, create, patch]
{{- end }}
{{- define "flutecast.rules.cleanUp" -}}
rules:
{{- /* manifests/operator/clean-up.yaml */}}
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    verbs: [create]
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    resourceNames: [flutecast-operator]
    verbs: [get, update, delete]
  # Finalizers can't be granted apart from the rest of an object.
  - apiGroups: [flutecast.io]
    resources: [tenants, pushformats]
    verbs: [list, patch]
  - apiGroups: [""]
    resources: [configmaps]
    verbs: [list, delete]
  - apiGroups: [""]
    resources: [secrets]
    resourceNames: [flutecast-access]
    verbs: [get, delete]
  - apiGroups: [""]
    resources: [secrets]
    resourceNames: [{{ include "flutecast.madeNatsPasswords" . }}]
    verbs: [delete]
{{- end }}
{{- define "flutecast.rules.dataplane" -}}
rules:
{{- /* manifests/dataplane/rbac.yaml */}}
  # The mapping. Rights can't be limited by label; ConfigMaps of others are not asked for.
  - apiGroups: [""]
    resources: [configmaps]
    verbs: [list, watch]
  # Who may read: token digests, never tokens. No other Secret can be seen.
  - apiGroups: [""]
    resources: [secrets]
    resourceNames: [flutecast-access]
    verbs: [list, watch]
  # The other pods of the Service.
  - apiGroups: [discovery.k8s.io]
    resources: [endpointslices]
    verbs: [list, watch]
{{- end }}
