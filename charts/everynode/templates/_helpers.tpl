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

{{/* The Secret that the webhook's certificate is in. Each mode has one of its own: Helm deletes that of the mode before,
     and refuses to take over one that cert-manager has made. */}}
{{- define "everynode.certSecret" -}}
{{- if eq .Values.webhook.certificates.mode "secret" }}
{{- $name := required "webhook.certificates.secretName is needed with webhook.certificates.mode=secret: the name of the Secret with tls.crt and tls.key" .Values.webhook.certificates.secretName }}
{{- if eq $name (printf "%s-tls" (include "everynode.webhook" .)) }}
{{- fail (printf "webhook.certificates.secretName is %s, the Secret of mode selfManaged, which Helm deletes: choose another name" $name) }}
{{- end }}
{{- $name }}
{{- else }}
{{- include "everynode.webhook" . }}-{{ ternary "cert-manager" "tls" (eq .Values.webhook.certificates.mode "certManager") }}
{{- end }}
{{- end }}

{{/* The name by which the API server knows the webhook. */}}
{{- define "everynode.webhookHost" -}}
{{ include "everynode.webhook" . }}.{{ .Release.Namespace }}.svc
{{- end }}

{{/* A file of the chart. Without it, half of the chart would be installed without a word. */}}
{{- define "everynode.file" -}}
{{- required (printf "the chart has no %s: get it whole, from a release or with git" .file) (.root.Files.Get .file) }}
{{- end }}

{{/* The minor version of Kubernetes, such as 1.36, that the scheduler has to behave as. Empty: its own, 1.37. A scheduler
     that is newer than the API server asks for resources that are not there, and does not start. */}}
{{- define "everynode.emulatedVersion" -}}
{{- $server := semver .Capabilities.KubeVersion.Version }}
{{- if .Values.scheduler.emulatedVersion }}
{{- .Values.scheduler.emulatedVersion }}
{{- else if lt (int $server.Minor) 37 }}
{{- printf "%d.%d" $server.Major $server.Minor }}
{{- end }}
{{- end }}

{{/* Selector labels. Takes the root and the component. */}}
{{- define "everynode.selectorLabels" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels, and annotations if there are any. Takes the root, the component and further labels and annotations, which
     replace none of the chart's own. */}}
{{- define "everynode.metadata" -}}
{{- $own := dict "app.kubernetes.io/version" .root.Chart.AppVersion "app.kubernetes.io/managed-by" .root.Release.Service
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
labels:
  {{- merge (include "everynode.selectorLabels" . | fromYaml) $own (default dict .labels) .root.Values.commonLabels | toYaml | nindent 2 }}
{{- with merge (dict) (default dict .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The image. Takes the root and the component's values. */}}
{{- define "everynode.image" -}}
{{- $all := .root.Values.image }}
{{- with coalesce (.root.Values.global).imageRegistry .values.image.registry $all.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ .values.image.repository }}
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

{{/* Where a pod may run, and how its image is pulled. Takes the root and the component's values. */}}
{{- define "everynode.placement" -}}
securityContext:
  {{- toYaml .values.podSecurityContext | nindent 2 }}
{{- $secrets := .root.Values.image.pullSecrets }}
{{- range (.root.Values.global).imagePullSecrets }}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) }}
{{- end }}
{{- with $secrets }}
imagePullSecrets:
  {{- uniq . | toYaml | nindent 2 }}
{{- end }}
{{- range $field := list "nodeSelector" "tolerations" "affinity" }}
{{- with index $.values $field }}
{{ $field }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* A component's Deployment. Takes the root, the component, its values, the checksum of its configuration, its arguments,
     its port, the paths of its probes, and the Secret with its certificate if it is mounted. */}}
{{- define "everynode.deployment" -}}
{{- $name := include (printf "everynode.%s" .component) .root -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  namespace: {{ .root.Release.Namespace }}
  name: {{ $name }}
  {{- include "everynode.metadata" (merge (dict "annotations" .values.annotations) .) | nindent 2 }}
spec:
  replicas: {{ .values.replicas }}
  {{- if not (kindIs "invalid" .values.revisionHistoryLimit) }}
  revisionHistoryLimit: {{ .values.revisionHistoryLimit }}
  {{- end }}
  selector:
    matchLabels:
      {{- include "everynode.selectorLabels" . | nindent 6 }}
  {{- with .values.strategy }}
  strategy:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  template:
    metadata:
      labels:
        {{- merge (include "everynode.selectorLabels" . | fromYaml) .values.podLabels .root.Values.commonLabels | toYaml | nindent 8 }}
      annotations:
        {{- merge (dict "checksum/config" .checksum) .values.podAnnotations .root.Values.commonAnnotations | toYaml | nindent 8 }}
    spec:
      serviceAccountName: {{ include "everynode.serviceAccountName" . }}
      priorityClassName: {{ .values.priorityClassName }}
      {{- if .values.hostNetwork }}
      hostNetwork: true
      dnsPolicy: ClusterFirstWithHostNet
      {{- end }}
      {{- with .terminationGracePeriodSeconds }}
      terminationGracePeriodSeconds: {{ . }}
      {{- end }}
      {{- include "everynode.placement" . | nindent 6 }}
      topologySpreadConstraints:
        {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
        {{- if not $.values.topologySpreadConstraints }}
        - topologyKey: {{ . }}
          maxSkew: 1
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "everynode.selectorLabels" $ | nindent 14 }}
          matchLabelKeys: [pod-template-hash]
        {{- end }}
        {{- end }}
        {{- with .values.topologySpreadConstraints }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      containers:
        - name: {{ .component }}
          image: {{ include "everynode.image" . }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          args:
            {{- concat (list (printf "--v=%v" .values.logLevel) (printf "--logging-format=%s" .values.logFormat)) .args .values.extraArgs | toYaml | nindent 12 }}
          env:
            # Go collects garbage more often near the memory limit, instead of being ended by it.
            - name: GOMEMLIMIT
              valueFrom:
                resourceFieldRef: {resource: limits.memory}
            {{- with .values.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - name: https
              containerPort: {{ .port }}
          {{- range $probe, $path := .probes }}
          {{ $probe }}:
            {{- merge (dict "httpGet" (dict "scheme" "HTTPS" "port" "https" "path" $path)) (default dict (index $.values $probe)) | toYaml | nindent 12 }}
          {{- end }}
          resources:
            {{- toYaml .values.resources | nindent 12 }}
          securityContext:
            {{- toYaml .values.securityContext | nindent 12 }}
          volumeMounts:
            - name: config
              mountPath: /etc/everynode
              readOnly: true
            {{- if .secret }}
            - name: tls
              mountPath: /etc/everynode-tls
              readOnly: true
            {{- end }}
            {{- with .values.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        - name: config
          configMap:
            name: {{ $name }}
        {{- with .secret }}
        - name: tls
          secret:
            secretName: {{ . }}
            # Readable for any user: the cluster may choose one.
            defaultMode: 0444
        {{- end }}
        {{- with .values.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end }}

{{/* The scheduler's configuration: the shipped one of the mode, with this release's names. */}}
{{- define "everynode.schedulerConfig" -}}
{{- if .Values.scheduler.config }}
{{- tpl .Values.scheduler.config . }}
{{- else }}
{{- $config := include "everynode.file" (dict "root" . "file" (printf "files/scheduler-config/%s.yaml" .Values.mode)) | fromYaml }}
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
{{- merge (dict "clientConnection" .Values.scheduler.clientConnection "leaderElection" $election "profiles" $profiles) $config | toYaml }}
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

{{/* The leases of schedulers by their names, as the webhook is told. A profile of ours has the lease of our configuration,
     and none where it elects no leader; the cluster's own scheduler has its usual one. */}}
{{- define "everynode.schedulerLeases" -}}
{{- $leases := dict }}
{{- if ne (.Values.webhook.binder).enabled false }}
{{- $_ := set $leases "default-scheduler" "kube-system/kube-scheduler" }}
{{- if .Values.scheduler.enabled }}
{{- $config := include "everynode.schedulerConfig" . | fromYaml }}
{{- $election := default dict $config.leaderElection }}
{{- range $config.profiles }}
{{- $name := default "default-scheduler" .schedulerName }}
{{- if eq (toString $election.leaderElect) "false" }}
{{- $leases = omit $leases $name }}
{{- else }}
{{- $_ := set $leases $name (printf "%s/%s" (default "kube-system" $election.resourceNamespace) (default "kube-scheduler" $election.resourceName)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- toYaml $leases }}
{{- end }}
