{{/* Names, labels and images. */}}

{{- define "longwave.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels that never change: selectors are immutable. */}}
{{- define "longwave.selector" -}}
app.kubernetes.io/name: longwave
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "longwave.labels" -}}
{{ include "longwave.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Without versions: a new chart alone starts no pod again. */}}
{{- define "longwave.podLabels" -}}
{{ include "longwave.selector" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* An image: (dict "root" $ "of" "image" or "cudaImage" "over" MAP). A tag in MAP counts more than a digest beside
the repository's other values. */}}
{{- define "longwave.image" -}}
{{- $base := get .root.Values .of -}}
{{- $over := default (dict) .over -}}
{{- $repository := default $base.repository $over.repository -}}
{{- $digest := ternary $over.digest $base.digest (not (not (or $over.digest $over.tag $over.repository))) -}}
{{- if $digest -}}
{{- printf "%s@%s" $repository $digest -}}
{{- else -}}
{{- $suffix := ternary "-cuda" "" (eq .of "cudaImage") -}}
{{- printf "%s:%s" $repository (coalesce $over.tag $base.tag (printf "%s%s" .root.Chart.AppVersion $suffix)) -}}
{{- end -}}
{{- end -}}

{{- define "longwave.serverAccount" -}}
{{- default (printf "%s-server" (include "longwave.fullname" .)) .Values.serviceAccounts.server.name -}}
{{- end -}}

{{- define "longwave.workerAccount" -}}
{{- default (printf "%s-worker" (include "longwave.fullname" .)) .Values.serviceAccounts.worker.name -}}
{{- end -}}

{{- define "longwave.url" -}}
{{- printf "%s://%s:%v" (ternary "https" "http" .Values.tls.enabled) (include "longwave.fullname" .) .Values.server.service.port -}}
{{- end -}}

{{/* The address of this pod in a tcp:// endpoint; IPv6 needs brackets. */}}
{{- define "longwave.podAddress" -}}
{{- ternary "[$(POD_IP)]" "$(POD_IP)" (eq .Values.ipFamily "IPv6") -}}
{{- end -}}

{{- define "longwave.anyAddress" -}}
{{- ternary "[::]" "0.0.0.0" (eq .Values.ipFamily "IPv6") -}}
{{- end -}}
