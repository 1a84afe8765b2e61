{{/*
A pool is poolDefaults with the pool's own values over them, maps key by key. (The template functions
merge and mergeOverwrite take false and 0 for absent.)
*/}}

{{/* Puts .over over .base, in place. */}}
{{- define "longwave.overlay" -}}
{{- $base := .base -}}
{{- range $key, $value := .over -}}
{{- $old := get $base $key -}}
{{- if and (kindIs "map" $value) (kindIs "map" $old) -}}
{{- template "longwave.overlay" (dict "base" $old "over" $value) -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $_ := set $base $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* .pool = the values of pool .name; .root is the chart's context. */}}
{{- define "longwave.pool" -}}
{{- $pool := deepCopy .root.Values.poolDefaults -}}
{{- template "longwave.overlay" (dict "base" $pool "over" (default (dict) (get .root.Values.pools .name))) -}}
{{- $_ := set . "pool" $pool -}}
{{- end -}}

{{/* "true" where a pool's workers may speak NCCL to each other. */}}
{{- define "longwave.nccl" -}}
{{- $found := false -}}
{{- range $name, $_ := .Values.pools -}}
{{- $of := dict "root" $ "name" $name -}}{{- template "longwave.pool" $of -}}
{{- if and $of.pool.enabled (ne $of.pool.device "cpu") (ne $of.pool.collective "zmq") (gt (int $of.pool.gpus) 0) -}}{{- $found = true -}}{{- end -}}
{{- end -}}
{{- if $found -}}true{{- end -}}
{{- end -}}

{{/* "true" where any pool scales by itself. */}}
{{- define "longwave.scales" -}}
{{- $found := false -}}
{{- range $name, $_ := .Values.pools -}}
{{- $of := dict "root" $ "name" $name -}}{{- template "longwave.pool" $of -}}
{{- if and $of.pool.enabled (ne $of.pool.autoscaling.type "none") -}}{{- $found = true -}}{{- end -}}
{{- end -}}
{{- if $found -}}true{{- end -}}
{{- end -}}
