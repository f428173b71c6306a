{{/*
What is backed up: a YAML list with one element for each pod of Prometheus. `id` comes after the names
of its objects: nothing for the only Prometheus, -NAME in a fleet, and -1, -2, ... for more replicas.
*/}}
{{- define "prometheus-backup.instances" -}}
{{- /* Computed once: all templates of a rendering share .Values. */ -}}
{{- if not (hasKey .Values "computedInstances") -}}
{{- $_ := set .Values "computedInstances" (include "prometheus-backup.computed" .) -}}
{{- end -}}
{{- .Values.computedInstances -}}
{{- end -}}

{{- define "prometheus-backup.computed" -}}
{{- $root := . -}}
{{- $instances := list -}}
{{- range $entry := (.Values.prometheuses | default (list dict)) -}}
{{- $p := include "prometheus-backup.entry" (dict "root" $root "entry" $entry) | fromYaml -}}
{{- range $shard := until (int $p.shards) -}}
{{- range $replica := until (int $p.replicas) -}}
{{- $args := dict "root" $root "p" $p "shard" $shard "replica" $replica -}}
{{- $instances = append $instances (include "prometheus-backup.instance" $args | fromYaml) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $instances -}}
{{- end -}}

{{/* An entry of `prometheuses` with the defaults of `prometheus` and of its preset. */}}
{{- define "prometheus-backup.entry" -}}
{{- $p := deepCopy .root.Values.prometheus -}}
{{- range $key, $value := .entry -}}
{{- if and (kindIs "map" $value) (kindIs "map" (get $p $key)) -}}
{{- $merged := get $p $key -}}
{{- range $k, $v := $value -}}{{- $_ := set $merged $k $v -}}{{- end -}}
{{- else -}}
{{- $_ := set $p $key $value -}}
{{- end -}}
{{- end -}}
{{- $_ := set $p "name" (get .entry "name" | default "") -}}
{{- $who := printf "Prometheus %s" ($p.name | default "(without a name)") -}}
{{- $several := or (gt (int $p.replicas) 1) (gt (int $p.shards) 1) -}}
{{- if and $several (or $p.pod $p.url $p.claim $p.podLabels (eq $p.preset "custom")) -}}
{{- fail (printf "%s: pod, url, claim and podLabels are those of a single pod: give each replica an entry of its own in prometheuses" $who) -}}
{{- end -}}
{{- if and (gt (int $p.shards) 1) (eq $p.preset "statefulset") -}}
{{- fail (printf "%s: only the operator has shards: use the preset prometheus-operator or kube-prometheus-stack" $who) -}}
{{- end -}}
{{- if and (eq $p.preset "custom") (ne $p.mode "sidecar") -}}
{{- range $key := list "url" "claim" -}}
{{- if not (get $p $key) -}}
{{- fail (printf "%s: the preset custom needs %s" $who $key) -}}
{{- end -}}
{{- end -}}
{{- if not (or $p.pod $p.podLabels) -}}
{{- fail (printf "%s: the preset custom needs pod (the name of a StatefulSet's pod) or podLabels" $who) -}}
{{- end -}}
{{- end -}}
{{- range $key, $value := include "prometheus-backup.preset" $p | fromYaml -}}
{{- if not (hasKey $p $key) -}}{{- $_ := set $p $key $value -}}{{- end -}}
{{- end -}}
{{- toYaml $p -}}
{{- end -}}

{{/* The names that follow from a preset. */}}
{{- define "prometheus-backup.preset" -}}
{{- $object := .object -}}
{{- if eq .preset "kube-prometheus-stack" -}}
{{- /* As the chart computes it: its full name has at most 26 characters. */ -}}
{{- $full := contains "kube-prometheus-stack" .release | ternary .release (printf "%s-kube-prometheus-stack" .release) -}}
{{- $object = printf "%s-prometheus" ($full | trunc 26 | trimSuffix "-") -}}
{{- end -}}
{{- if has .preset (list "prometheus-operator" "kube-prometheus-stack") -}}
statefulset: prometheus-{{ $object }}
service: prometheus-operated
volume: prometheus-{{ $object }}-db
subPath: prometheus-db
uid: 1000
gid: 2000
{{- else -}}
statefulset: prometheus
service: prometheus
{{- /* A sidecar mounts the volume by its name: that in the chart prometheus of prometheus-community. */}}
volume: {{ eq .preset "custom" | ternary "storage-volume" "prometheus-storage" }}
subPath: ""
uid: 65534
gid: 65534
{{- end -}}
{{- end -}}

{{/* One pod of Prometheus. */}}
{{- define "prometheus-backup.instance" -}}
{{- $p := .p -}}
{{- $values := .root.Values -}}
{{- $id := $p.name | empty | ternary "" (printf "-%s" $p.name) -}}
{{- $own := "" -}}
{{- if .shard -}}{{- $own = printf "-shard-%d" (int .shard) -}}{{- end -}}
{{- if .replica -}}{{- $own = printf "%s-%d" $own (int .replica) -}}{{- end -}}
{{- $set := $p.statefulset -}}
{{- if .shard -}}{{- $set = printf "%s-shard-%d" $set (int .shard) -}}{{- end -}}
{{- $pod := $p.pod | default (printf "%s-%d" $set (int .replica)) -}}
{{- /* Only the pods of a StatefulSet have a name that stays. */ -}}
{{- if and (or $p.podLabels (eq $p.preset "custom")) (not $p.pod) -}}{{- $pod = "" -}}{{- end -}}
{{- $several := gt (mul (int $p.replicas) (int $p.shards)) 1 -}}
{{- $base := $values.repository.prefix -}}
{{- $address := $values.repository.url | trimSuffix "/" -}}
{{- $suffix := printf "%s%s" $id $own -}}
{{- if $p.prefix -}}
{{- $base = $p.prefix | trimSuffix "/" -}}
{{- $suffix = $own -}}
{{- if $address -}}
{{- $address = printf "%s/%s" (regexFind "^[a-z0-9]+://[^/]+" $address) $base -}}
{{- end -}}
{{- end -}}
{{- if and (eq $p.mode "sidecar") $several -}}
{{- /* All pods have the same container, which knows the name of its pod. */ -}}
{{- $suffix = printf "%s-%s" ($p.prefix | empty | ternary $id "") $pod -}}
{{- end -}}
{{- $prefix := printf "%s%s" ($base | trimSuffix "/") $suffix -}}
{{- $namespace := $p.namespace | default .root.Release.Namespace -}}
{{- $labels := merge (dict) $p.labels $values.labels -}}
{{- if not (hasKey $labels "replica") -}}
{{- $_ := set $labels "replica" ($pod | default $p.name | default "prometheus") -}}
{{- end -}}
id: {{ printf "%s%s" $id $own | quote }}
name: {{ $p.name | quote }}
mode: {{ $p.mode }}
preset: {{ $p.preset }}
statefulset: {{ $p.statefulset }}
object: {{ $p.object }}
namespace: {{ $namespace | quote }}
cronjob: {{ printf "%sprometheus-backup%s%s" $values.namePrefix $id $own | quote }}
several: {{ $several }}
pod: {{ $pod | quote }}
podLabels:
  {{- toYaml ($p.podLabels | default (dict "statefulset.kubernetes.io/pod-name" $pod)) | nindent 2 }}
url: {{ $p.url | default (printf "%s://%s.%s:%d%s" $p.scheme $pod $p.service (int $p.port) $p.path) | quote }}
port: {{ $p.port }}
localUrl: {{ printf "%s://localhost:%d%s" $p.scheme (int $p.port) $p.path | quote }}
claim: {{ $p.claim | default ($pod | empty | ternary "" (printf "%s-%s" $p.volume $pod)) | quote }}
volume: {{ $p.volume | quote }}
subPath: {{ $p.subPath | quote }}
snapshotMode: {{ $p.snapshotMode }}
layout: {{ $p.layout | quote }}
uid: {{ $p.uid }}
gid: {{ $p.gid }}
prefix: {{ $prefix | quote }}
repository: {{ if $address }}{{ printf "%s%s" $address $suffix | quote }}{{ else }}{{ printf "s3://%s/%s" $values.repository.bucket $prefix | quote }}{{ end }}
labels:
  {{- toYaml $labels | nindent 2 }}
retention:
  {{- toYaml $p.retention | nindent 2 }}
{{- end -}}

{{/* Fails if two pods of Prometheus would share a name, a folder in the bucket, or a volume. */}}
{{- define "prometheus-backup.check" -}}
{{- if not (or .Values.repository.url .Values.repository.bucket) -}}
{{- fail "no repository: set repository.bucket, or repository.url" -}}
{{- end -}}
{{- $names := dict -}}
{{- $folders := dict -}}
{{- $volumes := dict -}}
{{- range $i := include "prometheus-backup.instances" . | fromYamlArray -}}
{{- $who := printf "%s (%s/%s)" $i.cronjob $i.namespace ($i.pod | default $i.claim | default "a sidecar") -}}
{{- if gt (len $i.cronjob) 52 -}}
{{- fail (printf "%s: the name of a CronJob has at most 52 characters: give %s a shorter name" $i.cronjob ($i.name | empty | ternary "namePrefix" "the entry of prometheuses, or namePrefix,")) -}}
{{- end -}}
{{- $kept := 0 -}}
{{- range $tier := list "daily" "monthly" "yearly" -}}
{{- $kept = add $kept (get (hasKey $i.retention $tier | ternary $i.retention $.Values.retention) $tier) -}}
{{- end -}}
{{- if not $kept -}}
{{- fail (printf "%s: its retention keeps nothing: daily, monthly and yearly are all 0" $who) -}}
{{- end -}}
{{- if hasKey $names $i.cronjob -}}
{{- fail (printf "%s and %s would have the same name: give the entries of prometheuses different names" (get $names $i.cronjob) $who) -}}
{{- end -}}
{{- $_ := set $names $i.cronjob $who -}}
{{- if hasKey $folders $i.repository -}}
{{- fail (printf "%s and %s would store their backups in the same folder, %s: give one of them another prefix" (get $folders $i.repository) $who $i.repository) -}}
{{- end -}}
{{- $_ := set $folders $i.repository $who -}}
{{- if $i.claim -}}
{{- $volume := printf "%s/%s/%s" $i.namespace $i.claim $i.subPath | trimSuffix "/" -}}
{{- if hasKey $volumes $volume -}}
{{- fail (printf "%s and %s would back up the same volume, %s: remove one of them, or correct its names" (get $volumes $volume) $who $volume) -}}
{{- end -}}
{{- $_ := set $volumes $volume $who -}}
{{- end -}}
{{- end -}}
{{- range $kind, $paths := dict "store their backups in" $folders "back up" $volumes -}}
{{- range $path, $who := $paths -}}
{{- $above := "" -}}
{{- range $part := initial (splitList "/" $path) -}}
{{- $above = printf "%s%s" $above $part -}}
{{- if hasKey $paths $above -}}
{{- fail (printf "%s would %s %s, which lies in %s, that of %s: choose one that lies elsewhere" $who $kind $path $above (get $paths $above)) -}}
{{- end -}}
{{- $above = printf "%s/" $above -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The namespaces with a Prometheus, and that of the exporter: a YAML list. */}}
{{- define "prometheus-backup.namespaces" -}}
{{- $namespaces := .Values.exporter.enabled | ternary (list .Release.Namespace) list -}}
{{- range include "prometheus-backup.instances" . | fromYamlArray -}}
{{- $namespaces = append $namespaces .namespace -}}
{{- end -}}
{{- $namespaces | uniq | sortAlpha | toYaml -}}
{{- end -}}

{{/*
Labels of all metrics about one Prometheus, as in METRICS_LABELS: those of its backups, without `replica`
if there is only one Prometheus.
*/}}
{{- define "prometheus-backup.metricsLabels" -}}
namespace=$(POD_NAMESPACE),cronjob={{ .cronjob }}
{{- range $name, $value := .labels -}}
{{- if or $.name $.several (ne $name "replica") }},{{ $name }}={{ $value }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* The file with the repositories that the exporter serves. */}}
{{- define "prometheus-backup.repositories" -}}
repositories:
{{- range $i := include "prometheus-backup.instances" . | fromYamlArray }}
- repository: {{ $i.repository | quote }}
  labels:
    {{- toYaml (merge (dict "namespace" $i.namespace "cronjob" $i.cronjob) $i.labels) | nindent 4 }}
  {{- range $tier, $value := $i.retention }}
  {{- if not (empty (toString $value)) }}
  retention_{{ $tier }}: {{ toJson $value }}
  {{- end }}
  {{- end }}
{{- end }}
{{- end -}}
