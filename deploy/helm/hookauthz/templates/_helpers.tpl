{{- define "hookauthz.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "hookauthz.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 54 | trimSuffix "-" -}}
{{- else if contains (include "hookauthz.name" .) .Release.Name -}}
{{- .Release.Name | trunc 54 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "hookauthz.name" .) | trunc 54 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "hookauthz.selectorLabels" -}}
app.kubernetes.io/name: {{ include "hookauthz.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "hookauthz.labels" -}}
{{ include "hookauthz.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "hookauthz.metadata" -}}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "hookauthz.labels" . | nindent 2 }}
{{- end -}}

{{- define "hookauthz.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "hookauthz.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "hookauthz.policiesConfigMap" -}}
{{- default (printf "%s-policies" (include "hookauthz.fullname" .)) .Values.policies.existingConfigMap -}}
{{- end -}}

{{- define "hookauthz.envoyConfigMap" -}}
{{- default (printf "%s-envoy" (include "hookauthz.fullname" .)) .Values.envoy.existingConfigMap -}}
{{- end -}}

{{- define "hookauthz.image" -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository .tag -}}
{{- end -}}
{{- end -}}

{{- /* "true" where more than one replica may run. */ -}}
{{- define "hookauthz.many" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1) -}}true{{- end -}}
{{- end -}}

{{- /* "true" where the store is shared. */ -}}
{{- define "hookauthz.shared" -}}
{{- if ne .Values.store.url "memory" -}}true{{- end -}}
{{- end -}}

{{- /* What is the same for every container. */ -}}
{{- define "hookauthz.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* The command line. Every flag is one of serve; a test holds them against the program. */ -}}
{{- define "hookauthz.args" -}}
- serve
- --policies=/etc/hookauthz/policies
{{- if eq .Values.listener.mode "uds" }}
- --listen=unix:/run/hookauthz/authz.sock
{{- else }}
- --listen=:{{ .Values.listener.port }}
{{- end }}
{{- if eq .Values.listener.mode "mtls" }}
- --tls-cert=/run/hookauthz-tls/tls.crt
- --tls-key=/run/hookauthz-tls/tls.key
- --tls-client-ca=/run/hookauthz-tls/ca.crt
{{- range .Values.listener.clientSANs }}
- {{ printf "--tls-client-san=%s" . | quote }}
{{- end }}
{{- else if eq .Values.listener.mode "insecure" }}
- --insecure-listen
{{- end }}
- --admin=127.0.0.1:9002
- --metrics=:{{ .Values.metrics.port }}
- {{ printf "--store=%s" .Values.store.url | quote }}
{{- if include "hookauthz.shared" . }}
- --store-timeout={{ .Values.store.timeout }}
- --store-required={{ .Values.store.required }}
{{- if .Values.store.passwordSecret.name }}
- --store-password-file=/run/hookauthz-store/password
{{- end }}
{{- if .Values.store.ca.secretName }}
- --store-ca=/run/hookauthz-store/ca.crt
{{- end }}
{{- end }}
{{- with .Values.environment }}
- {{ printf "--environment=%s" . | quote }}
{{- end }}
- --max-body={{ .Values.maxBody }}
- --max-inflight-bytes={{ .Values.maxInflight }}
- --cache-dir=/var/cache/hookauthz
- --state=/var/lib/hookauthz/incidents
{{- if .Values.audit.enabled }}
- --audit=/var/lib/hookauthz/audit.jsonl
{{- end }}
- --drain={{ .Values.drain }}
- --log-level={{ .Values.log.level }}
- --log-format={{ .Values.log.format }}
{{- range .Values.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}
