{{/*
Secrets that the chart makes. Each is made once: where the cluster has it already its content is taken
again, so an upgrade changes nothing. All templates of a rendering see the same content (.Values.generated,
set on first use; the schema is checked before that, so a user cannot).
*/}}

{{- define "longwave.authSecret" -}}
{{- default (printf "%s-auth" (include "longwave.fullname" .)) .Values.auth.existingSecret -}}
{{- end -}}
{{- define "longwave.tlsSecret" -}}
{{- default (printf "%s-tls" (include "longwave.fullname" .)) .Values.tls.existingSecret -}}
{{- end -}}
{{- define "longwave.curveSecret" -}}
{{- default (printf "%s-curve" (include "longwave.fullname" .)) .Values.curve.existingSecret -}}
{{- end -}}

{{- define "longwave.generate" -}}
{{- if not (hasKey .Values "generated") -}}
{{- $made := dict -}}
{{- if and (eq .Values.auth.mode "tokens") (not .Values.auth.existingSecret) -}}
{{- $found := default (dict) (lookup "v1" "Secret" .Release.Namespace (include "longwave.authSecret" .)).data -}}
{{- if not (hasKey $found .Values.auth.adminTokenKey) -}}
{{- /* The first install, or another name for the key of the token that is there. */ -}}
{{- $old := append (keys $found | sortAlpha) "" | first -}}
{{- $_ := set $found .Values.auth.adminTokenKey (default (randAlphaNum 48 | b64enc) (get $found $old)) -}}
{{- end -}}
{{- $_ := set $made "auth" $found -}}
{{- end -}}
{{- if and .Values.tls.enabled (not .Values.tls.existingSecret) -}}
{{- $found := (lookup "v1" "Secret" .Release.Namespace (include "longwave.tlsSecret" .)).data -}}
{{- if not $found -}}
{{- $name := include "longwave.fullname" . -}}
{{- $names := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.%s" $name .Release.Namespace .Values.clusterDomain) "localhost" -}}
{{- $ca := genCA (printf "%s-ca" $name) 3650 -}}
{{- $certificate := genSignedCert $name (list "127.0.0.1") (concat $names .Values.tls.extraNames) 3650 $ca -}}
{{- $found = dict "tls.crt" ($certificate.Cert | b64enc) "tls.key" ($certificate.Key | b64enc) "ca.crt" ($ca.Cert | b64enc) -}}
{{- end -}}
{{- $_ := set $made "tls" $found -}}
{{- end -}}
{{- if and .Values.curve.enabled (not .Values.curve.existingSecret) -}}
{{- $found := (lookup "v1" "Secret" .Release.Namespace (include "longwave.curveSecret" .)).data -}}
{{- if not $found -}}
{{- $found = dict "curve.key" (printf "%x" (b64dec (randBytes 32)) | b64enc) -}}
{{- end -}}
{{- $_ := set $made "curve" $found -}}
{{- end -}}
{{- $_ := set .Values "generated" $made -}}
{{- end -}}
{{- end -}}

{{/* A hash that changes with the content of a secret, whoever made it: (list $ "curve" NAME). */}}
{{- define "longwave.secretSum" -}}
{{- $root := index . 0 -}}
{{- template "longwave.generate" $root -}}
{{- $data := get $root.Values.generated (index . 1) -}}
{{- if not $data -}}{{- $data = (lookup "v1" "Secret" $root.Release.Namespace (index . 2)).data -}}{{- end -}}
{{- toJson $data | sha256sum -}}
{{- end -}}
