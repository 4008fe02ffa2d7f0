{{- define "flutecast.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Names of objects that belong to the whole cluster: one of each per release. */ -}}
{{- define "flutecast.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "flutecast.fullname" .) -}}
{{- end -}}

{{- /* (dict "root" $ "component" "operator") */ -}}
{{- define "flutecast.selectorLabels" -}}
app.kubernetes.io/name: flutecast
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "flutecast.labels" -}}
{{ include "flutecast.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: flutecast
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* (dict "root" $ "image" .Values.operator.image "tag" "the tag where the image has none") */ -}}
{{- define "flutecast.image" -}}
{{- if kindIs "string" .image -}}
{{- .image -}}
{{- else -}}
{{- $registry := coalesce (.root.Values.global | default dict).imageRegistry .root.Values.image.registry .image.registry -}}
{{- with $registry }}{{ . }}/{{ end }}{{ .image.repository -}}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ coalesce .image.tag .tag }}{{ end -}}
{{- end -}}
{{- end -}}

{{- /* The version of our own programs, where a program's image has none. */ -}}
{{- define "flutecast.tag" -}}
{{- default .Chart.AppVersion .Values.image.tag -}}
{{- end -}}

{{- /* Whom operator, data plane and the clean-up reach, beside a bundled NATS. */ -}}
{{- define "flutecast.egress" -}}
{{- /* `helm upgrade --reuse-values` leaves out values that the release was made without, and a rule without ports lets everything out. */ -}}
# Names.
- ports:
    {{- range .Values.networkPolicy.dnsPorts | default (list 53) }}
    - {port: {{ int . }}, protocol: UDP}
    - {port: {{ int . }}, protocol: TCP}
    {{- end }}
# The Kubernetes API, which no selector names.
- ports:
    {{- range .Values.networkPolicy.apiServerPorts | default (list 443 6443) }}
    - {port: {{ int . }}, protocol: TCP}
    {{- end }}
{{- if not .Values.nats.bundled.enabled }}
# NATS, wherever it is.
- ports:
    {{- range .Values.networkPolicy.natsPorts | default (list 4222) }}
    - {port: {{ int . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- end -}}

{{- define "flutecast.imagePullSecrets" -}}
{{- $names := list -}}
{{- range concat ((.Values.global | default dict).imagePullSecrets | default list) .Values.image.pullSecrets -}}
{{- /* Umbrella charts write names or objects. */ -}}
{{- $names = append $names (kindIs "string" . | ternary . (dig "name" "" (kindIs "map" . | ternary . dict))) -}}
{{- end -}}
{{- with uniq $names }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* What a namespace with the Pod Security level "restricted" asks for. */ -}}
{{- define "flutecast.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "flutecast.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- /* (dict "root" $ "given" .Values.operator.priorityClassName) */ -}}
{{- define "flutecast.priorityClass" -}}
{{- if .given -}}
priorityClassName: {{ .given }}
{{- else if .root.Values.priorityClass.create -}}
priorityClassName: {{ include "flutecast.clusterName" .root }}
{{- end -}}
{{- end -}}

{{- /* The end of a port of a Service. (dict "type" "NodePort" "port" 30080) */ -}}
{{- define "flutecast.nodePort" -}}
{{- if and .port (ne .type "ClusterIP") }}, nodePort: {{ int .port }}{{ end -}}
{{- end -}}

{{- /* The paths under which gateways lead to the data plane, as JSON. Below /v1 it is the API's own path. */ -}}
{{- define "flutecast.pathPrefixes" -}}
{{- $prefixes := list -}}
{{- range list .Values.ingress .Values.httpRoute -}}
{{- $path := .path | trimSuffix "/" -}}
{{- if and .enabled $path (not (hasPrefix "/v1/" (printf "%s/" $path))) }}{{ $prefixes = append $prefixes $path }}{{ end -}}
{{- end -}}
{{- uniq $prefixes | toJson -}}
{{- end -}}

{{- /* How the pods of this release call it on NATS. */ -}}
{{- define "flutecast.natsRelease" -}}
{{- default .Release.Namespace .Values.nats.release -}}
{{- end -}}

{{- /* The Secret with the passwords of the bundled NATS that the operator makes, unless one is given. */ -}}
{{- define "flutecast.madeNatsPasswords" -}}
{{- printf "%s-nats-passwords" (include "flutecast.fullname" .) -}}
{{- end -}}

{{- define "flutecast.natsPasswords" -}}
{{- default (include "flutecast.madeNatsPasswords" .) .Values.nats.bundled.passwordsSecretName -}}
{{- end -}}

{{- /* "true" where the operator makes it. */ -}}
{{- define "flutecast.makesNatsPasswords" -}}
{{- if and .Values.nats.bundled.enabled (not .Values.nats.bundled.passwordsSecretName) }}true{{ end -}}
{{- end -}}

{{- /* "true" where a program reads its password from a file. An operator that makes the passwords would wait for itself.
(dict "root" $ "program" "operator") */ -}}
{{- define "flutecast.natsPasswordFile" -}}
{{- $makes := and (eq .program "operator") (include "flutecast.makesNatsPasswords" .root) -}}
{{- if and .root.Values.nats.bundled.enabled (not $makes) }}true{{ end -}}
{{- end -}}

{{- /* The environment of a program: where NATS is. (dict "root" $ "program" "operator") */ -}}
{{- define "flutecast.natsEnv" -}}
{{- $nats := .root.Values.nats -}}
{{- if $nats.bundled.enabled -}}
- name: FLUTECAST_NATS
  value: nats://{{ .program }}@{{ include "flutecast.fullname" .root }}-nats:4222
{{- if include "flutecast.natsPasswordFile" . }}
- name: FLUTECAST_NATS_PASSWORD_FILE
  value: /etc/flutecast/nats-password/password
{{- end }}
{{- else if $nats.urlSecretName -}}
- name: FLUTECAST_NATS
  valueFrom:
    secretKeyRef:
      name: {{ $nats.urlSecretName }}
      key: {{ .program }}
{{- else -}}
- name: FLUTECAST_NATS
  value: {{ $nats.url | quote }}
{{- end }}
{{- if $nats.credentialsSecretName }}
- name: FLUTECAST_NATS_CREDS
  value: /etc/flutecast/nats/nats.creds
{{- end }}
{{- if or $nats.tls.caSecretName $nats.tls.caConfigMapName }}
- name: FLUTECAST_NATS_CA
  value: /etc/flutecast/nats-ca/ca.crt
{{- end }}
{{- end -}}

{{- /* (dict "root" $ "program" "operator"), as the two around it. */ -}}
{{- define "flutecast.natsMounts" -}}
{{- if include "flutecast.natsPasswordFile" . }}
- name: nats-password
  mountPath: /etc/flutecast/nats-password
  readOnly: true
{{- end }}
{{- if .root.Values.nats.credentialsSecretName }}
- name: nats-credentials
  mountPath: /etc/flutecast/nats
  readOnly: true
{{- end }}
{{- if or .root.Values.nats.tls.caSecretName .root.Values.nats.tls.caConfigMapName }}
- name: nats-ca
  mountPath: /etc/flutecast/nats-ca
  readOnly: true
{{- end }}
{{- end -}}

{{- define "flutecast.natsVolumes" -}}
{{- $nats := .root.Values.nats -}}
{{- if include "flutecast.natsPasswordFile" . }}
- name: nats-password
  secret:
    secretName: {{ include "flutecast.natsPasswords" .root }}
    items:
      - {key: {{ .program }}, path: password}
{{- end }}
{{- with $nats.credentialsSecretName }}
- name: nats-credentials
  secret:
    secretName: {{ . }}
    items:
      - key: {{ $.program }}.creds
        path: nats.creds
{{- end }}
{{- with $nats.tls.caSecretName }}
- name: nats-ca
  secret:
    secretName: {{ . }}
    items:
      - {key: ca.crt, path: ca.crt}
{{- end }}
{{- with $nats.tls.caConfigMapName }}
- name: nats-ca
  configMap:
    name: {{ . }}
    items:
      - {key: ca.crt, path: ca.crt}
{{- end }}
{{- end -}}

{{- /* A quantity of bytes as a number of Mi. */ -}}
{{- define "flutecast.mebibytes" -}}
{{- $factor := dict "Ki" (divf 1 1024) "Mi" 1 "Gi" 1024 "Ti" 1048576 -}}
{{- $unit := regexFind "[A-Z]i$" (toString .) -}}
{{- mulf (float64 (trimSuffix $unit (toString .))) (get $factor $unit | default (divf 1 1048576)) -}}
{{- end -}}

{{- /* How many data-plane pods. With an autoscaler that is not ours to say; but what is left out where Helm said it before becomes 1, and
all screens would go to one pod. So the number stays as it is on the cluster until the autoscaler has set one itself. */ -}}
{{- define "flutecast.dataplaneReplicas" -}}
{{- if .Values.dataplane.autoscaling.enabled -}}
{{- $there := lookup "apps/v1" "Deployment" .Release.Namespace (printf "%s-dataplane" (include "flutecast.fullname" .)) -}}
{{- if $there -}}
{{- $applied := false }}{{ $scaled := false -}}
{{- range $there.metadata.managedFields -}}
{{- if and (eq .operation "Apply") (not .subresource) }}{{ $applied = true }}{{ end -}}
{{- if eq (toString .subresource) "scale" }}{{ $scaled = true }}{{ end -}}
{{- end -}}
{{- /* Without server-side apply Helm compares with what it said last, and takes back what it doesn't say any more. */ -}}
{{- if not (and $applied $scaled) }}{{ $there.spec.replicas }}{{ end -}}
{{- end -}}
{{- else -}}
{{- .Values.dataplane.replicas -}}
{{- end -}}
{{- end -}}

{{- /* A volume that is there: the API server would refuse another one, in the middle of an upgrade. */ -}}
{{- define "flutecast.checkVolume" -}}
{{- $name := printf "%s-nats" (include "flutecast.fullname" .) -}}
{{- $wanted := .Values.nats.bundled.persistence -}}
{{- with lookup "apps/v1" "StatefulSet" .Release.Namespace $name -}}
{{- $how := printf "; docs/upgrade.md (a larger volume) says how it is done: kubectl delete statefulset --namespace %s %s --cascade=orphan, then this upgrade again" $.Release.Namespace $name -}}
{{- $claims := .spec.volumeClaimTemplates | default list -}}
{{- if ne (gt (len $claims) 0) $wanted.enabled -}}
{{- fail (printf "nats.bundled.persistence.enabled: Kubernetes doesn't change that of a StatefulSet that is there%s" $how) -}}
{{- end -}}
{{- range $claims -}}
{{- $size := .spec.resources.requests.storage -}}
{{- if ne (include "flutecast.mebibytes" $size) (include "flutecast.mebibytes" $wanted.size) -}}
{{- fail (printf "nats.bundled.persistence.size: the volume has %s, and Kubernetes doesn't change that of a StatefulSet that is there%s" $size $how) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What can't be said in values.schema.json, because it is about several values at once. */ -}}
{{- define "flutecast.check" -}}
{{- $nats := .Values.nats -}}
{{- $ways := 0 -}}
{{- if $nats.bundled.enabled }}{{ $ways = add1 $ways }}{{ end -}}
{{- if $nats.url }}{{ $ways = add1 $ways }}{{ end -}}
{{- if $nats.urlSecretName }}{{ $ways = add1 $ways }}{{ end -}}
{{- if ne (int $ways) 1 -}}
{{- fail "NATS: set exactly one of nats.url, nats.urlSecretName and nats.bundled.enabled" -}}
{{- end -}}
{{- if and $nats.bundled.enabled (or $nats.credentialsSecretName $nats.tls.caSecretName $nats.tls.caConfigMapName) -}}
{{- fail "NATS: nats.credentialsSecretName and nats.tls are for a NATS that isn't bundled" -}}
{{- end -}}
{{- if and $nats.tls.caSecretName $nats.tls.caConfigMapName -}}
{{- fail "NATS: set one of nats.tls.caSecretName and nats.tls.caConfigMapName" -}}
{{- end -}}
{{- if and $nats.bundled.enabled (not .Values.uninstall.keepStreams) -}}
{{- fail "uninstall.keepStreams: the bundled NATS goes with the release; nats.bundled.persistence.keep says what becomes of its data" -}}
{{- end -}}
{{- if $nats.bundled.enabled -}}
{{- with $nats.bundled -}}
{{- if and .persistence.enabled (gt (float64 (include "flutecast.mebibytes" .jetstream.maxFile)) (float64 (include "flutecast.mebibytes" .persistence.size))) -}}
{{- fail (printf "nats.bundled.jetstream.maxFile: %s don't fit on a volume of %s (nats.bundled.persistence.size)" .jetstream.maxFile .persistence.size) -}}
{{- end -}}
{{- end -}}
{{- include "flutecast.checkVolume" . -}}
{{- end -}}
{{- with .Values.dataplane.autoscaling -}}
{{- if and .enabled (eq (int .targetCPU) 0) (eq (int .targetClients) 0) -}}
{{- fail "dataplane.autoscaling: set targetCPU or targetClients" -}}
{{- end -}}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) -}}
{{- fail "dataplane.autoscaling: minReplicas is more than maxReplicas" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs: name the Gateway" -}}
{{- end -}}
{{- end -}}
