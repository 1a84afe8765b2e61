{{/* The port of S3's endpoint. */}}
{{- define "longwave.objectsPort" -}}
{{- with .Values.objects.s3.endpoint -}}
{{- default (ternary "80" "443" (hasPrefix "http://" .)) (regexFind ":[0-9]+$" . | trimPrefix ":") -}}
{{- else -}}443{{- end -}}
{{- end -}}

{{/* Where servers and workers both go. */}}
{{- define "longwave.egressCommon" -}}
{{- $policy := .Values.networkPolicy }}
# Names.
- to:
    {{- toYaml $policy.dns.to | nindent 4 }}
  ports:
    {{- range $policy.dns.ports }}
    - {protocol: UDP, port: {{ int . }}}
    - {protocol: TCP, port: {{ int . }}}
    {{- end }}
{{- if eq .Values.objects.type "s3" }}
# Objects.
- to:
    {{- toYaml $policy.objects.to | nindent 4 }}
  ports:
    {{- range default (list (include "longwave.objectsPort" .)) $policy.objects.ports }}
    - {protocol: TCP, port: {{ int . }}}
    {{- end }}
{{- end }}
{{- end -}}
