{{- define "prometheus-backup.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end -}}

{{/* Metadata of an object. Needs root, name, namespace and app. */}}
{{- define "prometheus-backup.metadata" -}}
name: {{ .name }}
namespace: {{ .namespace }}
labels:
  {{- toYaml (merge (dict "app" (printf "%s%s" .root.Values.namePrefix .app)) (.labels | default dict) .root.Values.extraLabels) | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) .root.Values.extraAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Metadata of a pod. Needs root and app. */}}
{{- define "prometheus-backup.podMetadata" -}}
{{- $labels := merge (dict "app" (printf "%s%s" .root.Values.namePrefix .app)) .root.Values.pods.labels .root.Values.extraLabels -}}
{{- if eq .root.Values.credentials.type "azure" -}}
{{- $_ := set $labels "azure.workload.identity/use" "true" -}}
{{- end -}}
labels:
  {{- toYaml $labels | nindent 2 }}
{{- with merge (dict) .root.Values.pods.annotations .root.Values.extraAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What all pods have in common. Needs root, account, uid and gid. */}}
{{- define "prometheus-backup.podSpec" -}}
serviceAccountName: {{ .root.Values.namePrefix }}{{ .account }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .uid }}
  runAsGroup: {{ .gid }}
  {{- with .fsGroup }}
  fsGroup: {{ . }}
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- with .root.Values.pods.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.pods.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.pods.tolerations }}
tolerations:
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "prometheus-backup.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Image, settings and credentials of a container of the program. Needs root. */}}
{{- define "prometheus-backup.program" -}}
image: {{ include "prometheus-backup.image" .root }}
{{- with .root.Values.image.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
envFrom:
- configMapRef:
    name: {{ .root.Values.namePrefix }}prometheus-backup
securityContext:
  {{- include "prometheus-backup.securityContext" . | nindent 2 }}
{{- end -}}

{{/* Entries of `env` with the repository of one Prometheus. Needs root and instance. */}}
{{- define "prometheus-backup.repositoryEnv" -}}
{{- $r := .root.Values.repository -}}
{{- if and $r.url (ne .instance.repository ($r.url | trimSuffix "/")) }}
- name: REPOSITORY
  value: {{ .instance.repository | quote }}
{{- else if and (not $r.url) (ne .instance.prefix ($r.prefix | trimSuffix "/")) }}
- name: S3_PREFIX
  value: {{ .instance.prefix | quote }}
{{- end }}
{{- end -}}

{{/* Entries of `env` with the retention: from the ConfigMap, or that of one Prometheus. Needs instance. */}}
{{- define "prometheus-backup.retentionEnv" -}}
{{- range $tier := list "daily" "monthly" "yearly" }}
{{- $variable := printf "RETENTION_%s" (upper $tier) }}
- name: {{ $variable }}
  value: {{ hasKey $.instance.retention $tier | ternary (get $.instance.retention $tier | toString) (printf "$(%s)" $variable) | quote }}
{{- end }}
{{- range $tier := list "all" "history" }}
{{- if hasKey $.instance.retention $tier }}
- name: RETENTION_{{ upper $tier }}
  value: {{ get $.instance.retention $tier | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Entries of `env` that say how one Prometheus is backed up, where it differs. Needs instance. */}}
{{- define "prometheus-backup.modeEnv" -}}
{{- if ne .instance.snapshotMode "admin-api" }}
- name: SNAPSHOT_MODE
  value: {{ .instance.snapshotMode }}
{{- end }}
{{- with .instance.layout }}
- name: LAYOUT
  value: {{ . }}
{{- end }}
{{- end -}}

{{/* Entries of `env` that push the metrics of one CronJob. Needs root and instance. */}}
{{- define "prometheus-backup.pushgatewayEnv" -}}
{{- with .root.Values.pushgateway.url }}
- name: PUSHGATEWAY_URL
  value: {{ . | quote }}
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: METRICS_LABELS
  value: {{ include "prometheus-backup.metricsLabels" $.instance | quote }}
{{- end }}
{{- end -}}

{{/* Entries of `env` with the credentials, and those of the user. */}}
{{- define "prometheus-backup.credentialsEnv" -}}
{{- $c := .Values.credentials -}}
{{- if has $c.type (list "auto" "secret") }}
{{- range $variable, $key := dict "AWS_ACCESS_KEY_ID" $c.secret.accessKeyId "AWS_SECRET_ACCESS_KEY" $c.secret.secretAccessKey }}
- name: {{ $variable }}
  valueFrom:
    secretKeyRef:
      name: {{ $c.secret.name }}
      key: {{ $key }}
      {{- if eq $c.type "auto" }}
      optional: true
      {{- end }}
{{- end }}
{{- end }}
{{- with .Values.pods.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "prometheus-backup.tmpMount" -}}
- name: tmp
  mountPath: /tmp
{{- with .Values.pods.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Needs root and size. */}}
{{- define "prometheus-backup.tmpVolume" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ .size }}
{{- with .root.Values.pods.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What a Job does when a container ends. Needs container and exits, those that a retry would not change. */}}
{{- define "prometheus-backup.podFailurePolicy" -}}
rules:
- action: FailJob
  onExitCodes:
    containerName: {{ .container }}
    operator: In
    values: {{ toJson .exits }}
# The pod was evicted: start it again without counting it as a failure.
- action: Ignore
  onPodConditions:
  - type: DisruptionTarget
    status: "True"
{{- end -}}

{{/* The egress that every job needs: DNS, the store, and the servers of the credentials. */}}
{{- define "prometheus-backup.egress" -}}
- ports:
  - protocol: UDP
    port: 53
  - protocol: TCP
    port: 53
- ports:
  {{- range .Values.networkPolicy.storePorts }}
  - protocol: TCP
    port: {{ . }}
  {{- end }}
{{- $type := .Values.credentials.type }}
{{- $servers := list }}
{{- if has $type (list "auto" "pod-identity") }}{{ $servers = append $servers "169.254.170.23/32" }}{{ end }}
{{- if has $type (list "auto" "instance" "gke") }}{{ $servers = append $servers "169.254.169.254/32" }}{{ end }}
{{- with $servers }}
- to:
  {{- range . }}
  - ipBlock:
      cidr: {{ . }}
  {{- end }}
  ports:
  - protocol: TCP
    port: 80
{{- end }}
{{- if has $type (list "auto" "gke") }}
- to:
  - ipBlock:
      cidr: 169.254.169.252/32
  ports:
  - protocol: TCP
    port: 988
{{- end }}
{{- with .Values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The egress to the Pushgateway. */}}
{{- define "prometheus-backup.pushgatewayEgress" -}}
{{- with .Values.pushgateway }}
{{- if .url }}
- to:
  - namespaceSelector: {}
    podSelector:
      matchLabels:
        {{- toYaml .podLabels | nindent 8 }}
  ports:
  - protocol: TCP
    port: {{ regexFind ":[0-9]+(/|$)" .url | trimAll ":/" | default 80 }}
{{- end }}
{{- end }}
{{- end -}}

{{/*
The schedule of one Prometheus. In a fleet, it is moved by a number of minutes that follows from its name,
less than staggerMinutes. Needs root, schedule and instance.
*/}}
{{- define "prometheus-backup.schedule" -}}
{{- include "prometheus-backup.checkSchedule" .schedule -}}
{{- $window := int .root.Values.staggerMinutes -}}
{{- if or (not .instance.id) (eq $window 0) -}}
{{ .schedule }}
{{- else -}}
{{- $fields := splitList " " .schedule -}}
{{- if or (ne (len $fields) 5) (not (regexMatch "^[0-9]+$" (first $fields))) -}}
{{- fail (printf "cannot stagger the schedule %q: its minute must be a number: change it, or set staggerMinutes to 0" .schedule) -}}
{{- end -}}
{{- $key := printf "%s/%s" .instance.namespace .instance.cronjob -}}
{{- $minute := int (first $fields) -}}
{{- $hour := index $fields 1 -}}
{{- if regexMatch "^[0-9]+$" $hour -}}
{{- $start := add (mul (int $hour) 60) $minute -}}
{{- if gt (add $start $window) 1440 -}}
{{- fail (printf "cannot stagger the schedule %q over %d minutes: some jobs would start after midnight: start earlier, or set a smaller staggerMinutes" .schedule $window) -}}
{{- end -}}
{{- $at := add $start (mod (include "prometheus-backup.hash" $key | int64) $window) -}}
{{ mod $at 60 }} {{ div $at 60 }} {{ rest (rest $fields) | join " " }}
{{- else -}}
{{ mod (add $minute (mod (include "prometheus-backup.hash" $key | int64) $window)) 60 }} {{ rest $fields | join " " }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Fails for a schedule that Kubernetes refuses: a text of five fields. */}}
{{- define "prometheus-backup.checkSchedule" -}}
{{- $months := "|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)" -}}
{{- $days := "|(?i:sun|mon|tue|wed|thu|fri|sat)" -}}
{{- $fields := list
  (list "minute" "[0-5]?[0-9]" "0 to 59")
  (list "hour" "[01]?[0-9]|2[0-3]" "0 to 23")
  (list "day of the month" "0?[1-9]|[12][0-9]|3[01]" "1 to 31")
  (list "month" (printf "0?[1-9]|1[0-2]%s" $months) "1 to 12, or jan to dec")
  (list "day of the week" (printf "[0-6]%s" $days) "0 (Sunday) to 6, or sun to sat") -}}
{{- $schedule := . -}}
{{- range $number, $text := splitList " " . -}}
{{- $field := index $fields $number -}}
{{- $one := index $field 1 -}}
{{- $item := printf "([*?]|(%s)(-(%s))?)(/[1-9][0-9]?)?" $one $one -}}
{{- if not (regexMatch (printf "^%s(,%s)*$" $item $item) $text) -}}
{{- fail (printf "cannot use the schedule %q: its %s is %q: give %s, *, a list, a range or */STEP" $schedule (index $field 0) $text (index $field 2)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A number that follows from a text. */}}
{{- define "prometheus-backup.hash" -}}
{{ . | sha256sum | adler32sum }}
{{- end -}}

{{/* BACKUP_LABELS of one Prometheus. */}}
{{- define "prometheus-backup.backupLabels" -}}
{{- $pairs := list -}}
{{- range $name, $value := .labels -}}
{{- $pairs = append $pairs (printf "%s=%s" $name $value) -}}
{{- end -}}
{{- $pairs | join "," -}}
{{- end -}}

{{/* Entries of `env` that every job has. Needs root and instance. */}}
{{- define "prometheus-backup.jobEnv" -}}
{{- include "prometheus-backup.repositoryEnv" . }}
{{- include "prometheus-backup.pushgatewayEnv" . }}
{{- include "prometheus-backup.credentialsEnv" .root }}
{{- end -}}

{{/*
The containers, without their names, that run in Prometheus' pod: one. Needs root and instance. All pods of
a StatefulSet have the same one, so it takes what differs from the name of its pod.
*/}}
{{- define "prometheus-backup.sidecarContainer" -}}
{{- $i := .instance -}}
{{- $values := .root.Values -}}
{{- include "prometheus-backup.program" . }}
args: [daily, {{ include "prometheus-backup.dailyAt" . | quote }}]
env:
- name: PROMETHEUS_URL
  value: {{ $i.localUrl | quote }}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: BACKUP_LABELS
  {{- $labels := $i.labels }}
  {{- if and $i.pod (eq $i.pod $labels.replica) }}
  {{- $labels = merge (dict "replica" "$(POD_NAME)") $labels }}
  {{- end }}
  value: {{ include "prometheus-backup.backupLabels" (dict "labels" $labels) | quote }}
{{- include "prometheus-backup.modeEnv" . }}
{{- $own := $i }}
{{- if $i.several }}
{{- $own = dict }}
{{- range $key := list "prefix" "repository" }}
{{- $_ := set $own $key (printf "%s$(POD_NAME)" (get $i $key | trimSuffix $i.pod)) }}
{{- end }}
{{- end }}
{{- include "prometheus-backup.repositoryEnv" (dict "root" .root "instance" $own) }}
{{- include "prometheus-backup.retentionEnv" . }}
{{- include "prometheus-backup.credentialsEnv" .root }}
resources:
  requests:
    cpu: 100m
    memory: 256Mi
  limits:
    {{- toYaml $values.backup.resources.limits | nindent 4 }}
volumeMounts:
- name: {{ $i.volume }}
  mountPath: /prometheus
  {{- with $i.subPath }}
  subPath: {{ . }}
  {{- end }}
  {{- if eq $i.snapshotMode "blocks" }}
  readOnly: true
  {{- end }}
- name: prometheus-backup-tmp
  mountPath: /tmp
{{- with $values.pods.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "prometheus-backup.sidecarVolumes" -}}
- name: prometheus-backup-tmp
  emptyDir:
    sizeLimit: 256Mi
{{- with .root.Values.pods.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
What adds the container and its volumes to Prometheus' pod, as a whole file: values of another chart, or a
patch of an object. Needs root, instance and preset.
*/}}
{{- define "prometheus-backup.sidecarFile" -}}
{{- $container := include "prometheus-backup.sidecarContainer" . | fromYaml -}}
{{- $volumes := include "prometheus-backup.sidecarVolumes" . | fromYamlArray -}}
{{- $named := list (merge (dict "name" "prometheus-backup") $container) -}}
{{- $spec := dict "containers" $named "volumes" $volumes -}}
{{- $file := dict -}}
{{- if eq .preset "kube-prometheus-stack" -}}
{{- $file = dict "prometheus" (dict "prometheusSpec" $spec) -}}
{{- else if eq .preset "custom" -}}
{{- $server := dict "sidecarContainers" (dict "prometheus-backup" $container) "extraVolumes" $volumes -}}
{{- $file = dict "server" $server -}}
{{- else if eq .preset "prometheus-operator" -}}
{{- $file = dict "spec" $spec -}}
{{- else -}}
{{- $file = dict "spec" (dict "template" (dict "spec" $spec)) -}}
{{- end -}}
{{- toYaml $file -}}
{{- end -}}

{{/* The time of day of the backup's schedule, for a sidecar. Needs root and instance. */}}
{{- define "prometheus-backup.dailyAt" -}}
{{- $fields := splitList " " (include "prometheus-backup.schedule" (dict "root" .root "instance" .instance "schedule" .root.Values.backup.schedule)) -}}
{{- if not (regexMatch "^[0-9]+ [0-9]+ \\* \\* \\*$" (join " " $fields)) -}}
{{- fail (printf "a sidecar makes a backup each day: backup.schedule must be like %q" "0 2 * * *") -}}
{{- end -}}
{{ printf "%02d:%02d" (index $fields 1 | int) (index $fields 0 | int) }}
{{- end -}}
