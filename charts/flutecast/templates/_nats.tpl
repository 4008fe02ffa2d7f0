{{- /* The bundled server. One account; each user may do what its program does and no more. Nobody may publish on live.>: what comes there
was stored before. On last.> only the operator may. */ -}}
{{- define "flutecast.natsConfiguration" -}}
{{- $release := include "flutecast.natsRelease" . -}}
{{- with .Values.nats.bundled -}}
server_name: {{ include "flutecast.fullname" $ }}-nats
listen: {{ printf "%s:4222" $.Values.bindAddress | quote }}
http: {{ printf "%s:8222" $.Values.bindAddress | quote }}
max_payload: {{ .maxPayload }}
jetstream {
  store_dir: /data
  max_memory_store: {{ .jetstream.maxMemory }}
  max_file_store: {{ .jetstream.maxFile }}
  sync_interval: {{ .jetstream.syncInterval | default "10s" | quote }}
}
{{- if .mqtt.enabled }}
mqtt {
  listen: {{ printf "%s:1883" $.Values.bindAddress | quote }}
}
{{- end }}
accounts {
  FLUTECAST {
    jetstream: enabled
    users: [
      {
        user: operator
        password: $OPERATOR_PASSWORD
        permissions {
          publish: [
            "$JS.API.>", "$JS.ACK.>"
            # Last values that outlive the messages.
            "last.>"
            "flutecast.serving.{{ $release }}.query"
            # Devices that speak MQTT have no reply subject.
            "flutecast.*.enrolled.>"
          ]
          subscribe: [
            "_INBOX.>", "$JS.EVENT.ADVISORY.STREAM.>"
            "flutecast.serving.{{ $release }}.*", "flutecast.*.enroll", "live.>"
          ]
          # It answers those who enrol.
          allow_responses: { max: 1, expires: "30s" }
        }
      }
      {
        user: dataplane
        password: $DATAPLANE_PASSWORD
        permissions {
          publish: [
            "$JS.API.DIRECT.GET.>", "$JS.API.STREAM.INFO.>", "$JS.API.CONSUMER.INFO.>", "$JS.API.CONSUMER.MSG.NEXT.>", "$JS.ACK.>"
            # What comes from sources whose ids stand in the payload is sorted to the devices' own subjects. What a pod that died left of it is
            # asked for from the stream's leader.
            "iot.>", "$JS.API.STREAM.MSG.GET.>"
            "flutecast.serving.{{ $release }}.*", "flutecast.load.{{ $release }}.*"
          ]
          subscribe: [
            "_INBOX.>", "live.>", "flutecast.serving.{{ $release }}.query", "flutecast.load.{{ $release }}.*"
          ]
        }
      }
      {
        user: devices
        password: $DEVICES_PASSWORD
        permissions {
          publish: {{ concat (list "iot.>" "flutecast.*.enroll") .sourceSubjects | toRawJson }}
          # Answers to what they ask, also over MQTT.
          subscribe: ["_INBOX.>", "flutecast.*.enrolled.>", "$MQTT.sub.>", "$MQTT.deliver.pubrel.>"]
        }
      }
    ]
  }
}
{{- end -}}
{{- end -}}
