{{- define "destination" -}}
{server: "https://kubernetes.default.svc", namespace: {{ .Values.name }}}
{{- end }}

{{- /* What fails is tried again for two and a half minutes, and each try takes the newest commit. After that a new commit is tried at once. Not
for ever: an Application can't be deleted while it tries. */}}
{{- define "retry" -}}
{limit: 10, refresh: true, backoff: {duration: 2s, factor: 2, maxDuration: 20s}}
{{- end }}
