{{- define "destination" -}}
{server: "https://kubernetes.default.svc", namespace: {{ .Values.name }}}
{{- end }}

{{- /* What fails is tried again for ever, and each try takes the newest commit: what mends a bad commit waits for nobody. */}}
{{- define "retry" -}}
{limit: -1, refresh: true, backoff: {duration: 5s, factor: 2, maxDuration: 20s}}
{{- end }}
