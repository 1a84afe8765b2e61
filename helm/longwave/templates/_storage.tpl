{{/* Where rows and bytes are: the data volume, the stores, the models. */}}

{{- define "longwave.claim" -}}
{{- default (printf "%s-data" (include "longwave.fullname" .)) .Values.persistence.existingClaim -}}
{{- end -}}

{{/* "true" where a volume holds the job store, the objects or both. */}}
{{- define "longwave.hasData" -}}
{{- if or (eq .Values.store.type "sqlite") (eq .Values.objects.type "file") -}}true{{- end -}}
{{- end -}}

{{/* "true" where pods on other nodes cannot have the volume: workers then follow the server. */}}
{{- define "longwave.oneNode" -}}
{{- if and (eq .Values.objects.type "file") (not (has "ReadWriteMany" .Values.persistence.accessModes)) -}}true{{- end -}}
{{- end -}}

{{/* The affinity that keeps the pods of such a volume together. Workers must be where the server is. The server would
rather be where workers are, but need not: on a drained node they would bind it to what is going away.
(dict "root" $ "part" "server" or "worker" "affinity" MAP) */}}
{{- define "longwave.besideAffinity" -}}
{{- if include "longwave.oneNode" .root -}}
{{- $server := eq .part "server" -}}
{{- $labels := merge (dict "app.kubernetes.io/component" (ternary "worker" "server" $server)) (include "longwave.selector" .root | fromYaml) -}}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" $labels) -}}
{{- $preferred := dict "preferredDuringSchedulingIgnoredDuringExecution" (list (dict "weight" 100 "podAffinityTerm" $term)) -}}
{{- $required := dict "requiredDuringSchedulingIgnoredDuringExecution" (list $term) -}}
{{- toYaml (merge (dict "podAffinity" (ternary $preferred $required $server)) (deepCopy .affinity)) -}}
{{- else if .affinity -}}
{{- toYaml .affinity -}}
{{- end -}}
{{- end -}}

{{- define "longwave.dataVolume" -}}
- name: data
  persistentVolumeClaim:
    claimName: {{ include "longwave.claim" . }}
{{- end -}}

{{- define "longwave.storeUrl" -}}
{{- with .Values.store.postgresql -}}
postgresql://{{ .host }}:{{ .port }}/{{ .database }}?sslmode={{ .sslmode }}
{{- end -}}
{{- end -}}

{{- define "longwave.objectsUrl" -}}
{{- if eq .Values.objects.type "s3" -}}
s3://{{ .Values.objects.s3.bucket }}{{ with .Values.objects.s3.prefix }}/{{ . }}{{ end }}
{{- else -}}
file:///data/objects
{{- end -}}
{{- end -}}

{{/* User and password of PostgreSQL, as libpq reads them: never on a command line. */}}
{{- define "longwave.storeEnv" -}}
{{- if eq .Values.store.type "postgresql" }}
{{- with .Values.store.postgresql }}
- name: PGUSER
  valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .usernameKey }}}}
- name: PGPASSWORD
  valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .passwordKey }}}}
{{- end }}
{{- end }}
{{- end -}}

{{/* Endpoint and credentials of S3, as all of its clients read them. */}}
{{- define "longwave.objectsEnv" -}}
{{- if eq .Values.objects.type "s3" }}
{{- with .Values.objects.s3 }}
- name: AWS_REGION
  value: {{ .region | quote }}
{{- with .endpoint }}
- name: AWS_ENDPOINT_URL_S3
  value: {{ . | quote }}
{{- end }}
{{- if .existingSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .accessKeyIdKey }}}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .secretAccessKeyKey }}}}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "longwave.modelsVolume" -}}
{{- if eq .Values.models.source "claim" }}
- name: models
  persistentVolumeClaim: {claimName: {{ .Values.models.existingClaim }}, readOnly: true}
{{- else if eq .Values.models.source "copy" }}
- name: models
  emptyDir:
    sizeLimit: {{ .Values.models.copy.sizeLimit }}
{{- end }}
{{- end -}}

{{- define "longwave.modelsMount" -}}
{{- if ne .Values.models.source "image" }}
- name: models
  mountPath: {{ .Values.models.path }}
  readOnly: true
{{- end }}
{{- end -}}

{{/* Fills the models' volume of a pod from another image or a download of it. */}}
{{- define "longwave.modelsInit" -}}
{{- if eq .Values.models.source "copy" }}
initContainers:
  - name: models
    image: {{ .Values.models.copy.image }}
    command: {{ toJson .Values.models.copy.command }}
    securityContext:
      {{- toYaml .Values.containerSecurityContext | nindent 6 }}
    resources:
      {{- toYaml .Values.models.copy.resources | nindent 6 }}
    volumeMounts:
      - {name: models, mountPath: {{ .Values.models.path }}}
      - {name: tmp, mountPath: /tmp}
{{- end }}
{{- end -}}
