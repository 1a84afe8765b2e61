{{/* What the pods of servers and workers have in common. */}}

{{/* Identity and where a pod goes: (dict "root" $ "of" MAP "account" NAME "selector" LABELS). */}}
{{- define "longwave.podBasics" -}}
serviceAccountName: {{ .account }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .of.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{ toYaml (merge (dict) . (dict "labelSelector" (dict "matchLabels" $.selector))) | nindent 4 | trim }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Environment of both: what the arguments refer to, and the number of processors that the pod may use. */}}
{{- define "longwave.podEnv" -}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: CPUS
  valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: "1"}}
{{- end -}}

{{/* Probes on a named port: (dict "of" MAP "port" NAME "scheme" HTTP). Startup and liveness ask whether the process
answers, readiness whether it can take work. */}}
{{- define "longwave.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: {{ .port }}, scheme: {{ .scheme }}}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: {{ div (add1 .of.startupSeconds) 2 }}
livenessProbe:
  httpGet: {path: /healthz, port: {{ .port }}, scheme: {{ .scheme }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: {{ .port }}, scheme: {{ .scheme }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}

{{/* Seconds that one of several servers goes on before it is told to stop; "" where there is nobody else to go to, or
Kubernetes cannot. */}}
{{- define "longwave.preStop" -}}
{{- if and (gt (int .Values.server.replicas) 1) (semverCompare ">=1.30-0" .Capabilities.KubeVersion.Version) -}}5{{- end -}}
{{- end -}}

{{/* Where Prometheus looks that has no monitors. */}}
{{- define "longwave.scrapeAnnotations" -}}
{{- if and .root.Values.metrics.podAnnotations (not .root.Values.metrics.serviceMonitor.enabled) }}
prometheus.io/scrape: "true"
prometheus.io/path: /metrics
prometheus.io/port: {{ .port | quote }}
prometheus.io/scheme: {{ .scheme }}
{{- end }}
{{- end -}}
