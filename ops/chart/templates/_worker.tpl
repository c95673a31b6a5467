{{- define "syncline.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "syncline.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: worker
{{- end }}

{{- define "syncline.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "syncline.image" -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}

{{/* "true" or nothing: dict with value (auto, true or false), api (group/version/Kind) and root. */}}
{{- define "syncline.enabled" -}}
{{- if eq (toString .value) "auto" }}{{ if .root.Capabilities.APIVersions.Has .api }}true{{ end }}
{{- else if .value }}true{{ end }}
{{- end }}

{{- define "syncline.controlled" -}}
{{- include "syncline.enabled" (dict "root" . "value" .Values.workerController.enabled "api" "temporal.io/v1alpha1/WorkerDeployment") }}
{{- end }}

{{/* Nothing runs as root, gains rights or writes to the image. */}}
{{- define "syncline.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "syncline.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{/* What every container has in its environment: dict with root, secrets, and temporal (unless a controller sets that). */}}
{{- define "syncline.environment" -}}
{{- range $variable, $value := .root.Values.settings }}
{{- if regexMatch "(_DSN|_STORES|_QDRANTS|API_KEY|PASSWORD|SECRET|TOKEN)$" $variable }}
{{- fail (printf "settings.%s may carry a secret, and all who may read the Deployment could read it: name a Secret in secrets.%s" $variable $variable) }}
{{- end }}
- { name: {{ $variable }}, value: {{ $value | toString | quote }} }
{{- end }}
{{- range $variable, $secret := .secrets }}
- name: {{ $variable }}
  valueFrom: { secretKeyRef: { name: {{ $secret.name }}, key: {{ $secret.key }} } }
{{- end }}
{{- with .root.Values.temporal }}
{{- if $.temporal }}
- { name: TEMPORAL_ADDRESS, value: {{ .address | quote }} }
- { name: TEMPORAL_NAMESPACE, value: {{ .namespace | quote }} }
{{- if .apiKey.secret }}
- name: TEMPORAL_API_KEY
  valueFrom: { secretKeyRef: { name: {{ .apiKey.secret }}, key: {{ .apiKey.key }} } }
{{- end }}
{{- if .tls.secret }}
- { name: TEMPORAL_TLS, value: "true" }
- { name: TEMPORAL_TLS_CLIENT_CERT_PATH, value: /etc/temporal/tls/tls.crt }
- { name: TEMPORAL_TLS_CLIENT_KEY_PATH, value: /etc/temporal/tls/tls.key }
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "syncline.mounts" -}}
- { name: tmp, mountPath: /tmp }
{{- if and .temporal .root.Values.temporal.tls.secret }}
- { name: temporal-tls, mountPath: /etc/temporal/tls, readOnly: true }
{{- end }}
{{- with .root.Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "syncline.volumes" -}}
- { name: tmp, emptyDir: {} }
{{- if and .temporal .root.Values.temporal.tls.secret }}
- { name: temporal-tls, secret: { secretName: {{ .root.Values.temporal.tls.secret }} } }
{{- end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "syncline.placement" -}}
automountServiceAccountToken: false
{{- with .Values.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "syncline.probe" -}}
httpGet: { path: {{ .path }}, port: probes }
{{- with omit . "path" }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The pod of a worker, the same for a Deployment and for Temporal's Worker Controller. */}}
{{- define "syncline.workerPod" -}}
{{- $own := not (include "syncline.controlled" .) }}
metadata:
  labels:
    {{- include "syncline.labels" . | nindent 4 }}
    app.kubernetes.io/component: worker
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "syncline.placement" . | nindent 2 }}
  securityContext:
    {{- include "syncline.podSecurity" . | nindent 4 }}
  # Longer than the worker needs to let its cycles finish.
  terminationGracePeriodSeconds: {{ add .Values.gracefulShutdownSeconds 20 }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "syncline.selector" . | nindent 10 }}
  containers:
    - name: worker
      image: {{ include "syncline.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      {{- if not $own }}
      # The controller names deployment and build in variables that it adds last, which no `$(…)` here can refer to.
      command: [/bin/sh, -c]
      args:
        - SYNCLINE_DEPLOYMENT_NAME="$TEMPORAL_DEPLOYMENT_NAME" SYNCLINE_BUILD_ID="$TEMPORAL_WORKER_BUILD_ID" exec syncline worker
      {{- end }}
      env:
        - { name: SYNCLINE_METRICS_ADDRESS, value: "0.0.0.0:{{ .Values.metrics.port }}" }
        - { name: SYNCLINE_PROBES, value: "0.0.0.0:{{ .Values.probes.port }}" }
        - { name: SYNCLINE_GRACEFUL_SHUTDOWN_SECONDS, value: {{ .Values.gracefulShutdownSeconds | quote }} }
        {{- include "syncline.environment" (dict "root" . "secrets" .Values.secrets "temporal" $own) | nindent 8 }}
      ports:
        - { name: metrics, containerPort: {{ .Values.metrics.port }} }
        - { name: probes, containerPort: {{ .Values.probes.port }} }
      startupProbe:
        {{- include "syncline.probe" .Values.probes.startup | nindent 8 }}
      livenessProbe:
        {{- include "syncline.probe" .Values.probes.liveness | nindent 8 }}
      readinessProbe:
        {{- include "syncline.probe" .Values.probes.readiness | nindent 8 }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        {{- include "syncline.containerSecurity" . | nindent 8 }}
      volumeMounts:
        {{- include "syncline.mounts" (dict "root" . "temporal" $own) | nindent 8 }}
  volumes:
    {{- include "syncline.volumes" (dict "root" . "temporal" $own) | nindent 4 }}
{{- end }}
