{{/* What a schema cannot say: combinations of values that could not work. One clear line each. */}}
{{- define "longwave.checks" -}}
{{- $v := .Values -}}
{{- if and (eq $v.store.type "sqlite") (gt (int $v.server.replicas) 1) -}}
{{- fail (printf "server.replicas %v: several servers need store.type postgresql" $v.server.replicas) -}}
{{- end -}}
{{- if and (include "longwave.oneNode" .) (gt (int $v.server.replicas) 1) -}}
{{- fail (printf "server.replicas %v: several servers need objects.type s3, or persistence.accessModes [ReadWriteMany]" $v.server.replicas) -}}
{{- end -}}
{{- if has "ReadWriteOncePod" $v.persistence.accessModes -}}
{{- if eq $v.objects.type "file" -}}
{{- fail "persistence.accessModes ReadWriteOncePod: workers read and write objects on the same volume; take ReadWriteOnce, or objects.type s3" -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.store.type "postgresql") (not (and $v.store.postgresql.host $v.store.postgresql.existingSecret)) -}}
{{- fail "store.type postgresql needs store.postgresql.host and store.postgresql.existingSecret" -}}
{{- end -}}
{{- if and (eq $v.objects.type "s3") (not (and $v.objects.s3.bucket $v.objects.s3.existingSecret)) -}}
{{- fail "objects.type s3 needs objects.s3.bucket and objects.s3.existingSecret" -}}
{{- end -}}
{{- if and (eq $v.models.source "claim") (not $v.models.existingClaim) -}}
{{- fail "models.source claim needs models.existingClaim" -}}
{{- end -}}
{{- if and (eq $v.models.source "copy") (not (and $v.models.copy.image $v.models.copy.command)) -}}
{{- fail "models.source copy needs models.copy.image and models.copy.command" -}}
{{- end -}}
{{- $pause := include "longwave.preStop" . -}}
{{- if le (int $v.server.terminationGracePeriodSeconds) (add $v.server.drainSeconds (int $pause) | int) -}}
{{- fail (printf "server.terminationGracePeriodSeconds %v: must be more than server.drainSeconds, %v%s" $v.server.terminationGracePeriodSeconds $v.server.drainSeconds (ternary (printf ", and %s before it" $pause) "" (ne $pause ""))) -}}
{{- end -}}
{{- if and (eq $v.auth.mode "none") $v.ingress.enabled -}}
{{- fail "ingress.enabled with auth.mode none: everybody who reaches the ingress could run and delete jobs" -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.host) -}}
{{- fail "ingress.enabled needs ingress.host" -}}
{{- end -}}
{{- if and (include "longwave.oneNode" .) (dig "podAffinity" "preferredDuringSchedulingIgnoredDuringExecution" nil $v.server.affinity) -}}
{{- fail "server.affinity.podAffinity: with objects on one node's volume the chart sets it; take objects.type s3 to place servers yourself" -}}
{{- end -}}
{{- range $name, $_ := $v.pools -}}
{{- $of := dict "root" $ "name" $name -}}{{- template "longwave.pool" $of -}}{{- $pool := $of.pool -}}
{{- with $pool.autoscaling -}}
{{- if and (eq .type "keda") (not $v.autoscaling.prometheusUrl) -}}
{{- fail (printf "pools.%s.autoscaling.type keda needs autoscaling.prometheusUrl" $name) -}}
{{- end -}}
{{- if and (eq .type "hpa") (lt (int .minReplicas) 1) -}}
{{- fail (printf "pools.%s.autoscaling.minReplicas %v: an HPA cannot scale to zero; take autoscaling.type keda" $name .minReplicas) -}}
{{- end -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail (printf "pools.%s.autoscaling: minReplicas %v is more than maxReplicas %v" $name .minReplicas .maxReplicas) -}}
{{- end -}}
{{- end -}}
{{- if and (hasPrefix "cuda" $pool.device) (lt (int $pool.gpus) 1) -}}
{{- fail (printf "pools.%s: device %s needs gpus 1 or more" $name $pool.device) -}}
{{- end -}}
{{- if and (gt (int $pool.gpus) 0) (eq $pool.device "cpu") -}}
{{- fail (printf "pools.%s: gpus %v with device cpu would hold GPUs that nothing uses" $name $pool.gpus) -}}
{{- end -}}
{{- if gt (add (len (include "longwave.fullname" $)) (len $name)) 52 -}}
{{- fail (printf "pools.%s: the name is too long beside %s; 52 characters together" $name (include "longwave.fullname" $)) -}}
{{- end -}}
{{- if and (include "longwave.oneNode" $) (dig "affinity" "podAffinity" "requiredDuringSchedulingIgnoredDuringExecution" nil $pool) -}}
{{- fail (printf "pools.%s.affinity.podAffinity: with objects on one node's volume the chart sets it; take objects.type s3 to place workers yourself" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

