{{/* The beginning of all names. Everything cluster-wide has it, so that releases do not collide. */}}
{{- define "everynode.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "everynode.scheduler" -}}
{{ include "everynode.fullname" . }}-scheduler
{{- end }}

{{- define "everynode.webhook" -}}
{{ include "everynode.fullname" . }}-webhook
{{- end }}

{{/* The profile's name, by which pods choose the scheduler. */}}
{{- define "everynode.schedulerName" -}}
{{ default (include "everynode.scheduler" .) .Values.scheduler.name }}
{{- end }}

{{/* The Secret that the webhook's certificate is in. */}}
{{- define "everynode.certSecret" -}}
{{- if eq .Values.webhook.certificates.mode "secret" }}
{{- required "webhook.certificates.secretName is needed with webhook.certificates.mode=secret: the name of the Secret with tls.crt and tls.key" .Values.webhook.certificates.secretName }}
{{- else }}
{{- include "everynode.webhook" . }}-tls
{{- end }}
{{- end }}

{{/* The name by which the API server knows the webhook. */}}
{{- define "everynode.webhookHost" -}}
{{ include "everynode.webhook" . }}.{{ .Release.Namespace }}.svc
{{- end }}

{{/* Selector labels. Takes the root and the component. */}}
{{- define "everynode.selectorLabels" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels, and annotations if there are any. Takes the root, the component and further labels. */}}
{{- define "everynode.metadata" -}}
labels:
  {{- include "everynode.selectorLabels" . | nindent 2 }}
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
  {{- with merge (dict) (default dict .labels) .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (default dict .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The image. Takes the root and the component's values. */}}
{{- define "everynode.image" -}}
{{- $all := .root.Values.image }}
{{- $registry := default $all.registry .values.image.registry }}
{{- with $registry }}{{ trimSuffix "/" . }}/{{ end }}{{ .values.image.repository }}
{{- if .values.image.digest }}@{{ .values.image.digest }}
{{- else }}:{{ coalesce .values.image.tag $all.tag .root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* The ServiceAccount. Takes the root, the component and its values. */}}
{{- define "everynode.serviceAccountName" -}}
{{- if .values.serviceAccount.create }}
{{- default (include (printf "everynode.%s" .component) .root) .values.serviceAccount.name }}
{{- else }}
{{- required (printf "%s.serviceAccount.name is needed with %s.serviceAccount.create=false" .component .component) .values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* A pod's metadata. Takes the root, the component, its values and the checksum of its configuration. */}}
{{- define "everynode.podMetadata" -}}
labels:
  {{- include "everynode.selectorLabels" . | nindent 2 }}
  {{- with merge (dict) .values.podLabels .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  # Pods are replaced when their configuration changes.
  checksum/config: {{ .checksum }}
  {{- with merge (dict) .values.podAnnotations .root.Values.commonAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* What both components' pods have alike. Takes the root, the component and its values. */}}
{{- define "everynode.podSpec" -}}
serviceAccountName: {{ include "everynode.serviceAccountName" . }}
priorityClassName: {{ .values.priorityClassName }}
securityContext:
  {{- toYaml .values.podSecurityContext | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- if .values.topologySpreadConstraints }}
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
{{- else }}
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "everynode.selectorLabels" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end }}

{{/* The scheduler's configuration: the shipped one of the mode, with this release's names. */}}
{{- define "everynode.schedulerConfig" -}}
{{- if .Values.scheduler.config }}
{{- tpl .Values.scheduler.config . }}
{{- else }}
{{- $config := .Files.Get (printf "files/scheduler-config/%s.yaml" .Values.mode) | fromYaml }}
{{- $election := merge (dict) .Values.scheduler.leaderElection $config.leaderElection }}
{{- if eq .Values.mode "second" }}
{{- $election = merge (dict "resourceName" (include "everynode.scheduler" .) "resourceNamespace" .Release.Namespace) $election }}
{{- end }}
{{- $profiles := list }}
{{- range $config.profiles }}
{{- $profile := . }}
{{- if ne .schedulerName "default-scheduler" }}
{{- $profile = merge (dict "schedulerName" (include "everynode.schedulerName" $)) $profile }}
{{- end }}
{{- with $.Values.scheduler.pluginConfig }}
{{- $profile = merge (dict "pluginConfig" .) $profile }}
{{- end }}
{{- $profiles = append $profiles $profile }}
{{- end }}
{{- merge (dict "leaderElection" $election "profiles" $profiles) $config | toYaml }}
{{- end }}
{{- end }}

{{/* The webhook's policies. */}}
{{- define "everynode.webhookConfig" -}}
apiVersion: config.everynode.dev/v1alpha1
kind: WebhookConfiguration
{{ dict "policies" .Values.webhook.policies | toYaml }}
{{- with .Values.webhook.validation }}
{{- if or (ne .mode "Deny") .ignore }}
{{ dict "validation" . | toYaml }}
{{- end }}
{{- end }}
{{- end }}
