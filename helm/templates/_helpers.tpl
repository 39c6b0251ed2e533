{{/* Names, labels and the parts that several objects share. */}}

{{- define "stacktoken.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "stacktoken.selectorLabels" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "stacktoken.serverLabels" -}}
{{ include "stacktoken.selectorLabels" . }}
app.kubernetes.io/component: server
{{- end -}}

{{- define "stacktoken.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "stacktoken.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "stacktoken.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "stacktoken.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "stacktoken.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* A time such as 500ms, 20s, 5m or 24h in milliseconds. */}}
{{- define "stacktoken.milliseconds" -}}
{{- $count := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- mul $count (get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) $unit) -}}
{{- end -}}

{{/* How long the program takes at most from SIGTERM: both drains, 5 s to write what
     is left of the audit, and 2 s to send what is left of the spans. */}}
{{- define "stacktoken.drainSeconds" -}}
{{- $delay := include "stacktoken.milliseconds" .Values.settings.drainDelay | int64 -}}
{{- $grace := include "stacktoken.milliseconds" .Values.settings.drainGrace | int64 -}}
{{- add 7 (div (add $delay $grace 999) 1000) -}}
{{- end -}}

{{- define "stacktoken.terminationSeconds" -}}
{{- with .Values.terminationGracePeriodSeconds -}}
{{- int64 . -}}
{{- else -}}
{{- add 3 (include "stacktoken.drainSeconds" . | int64) -}}
{{- end -}}
{{- end -}}

{{/* The restricted profile of Kubernetes' pod security standards. */}}
{{- define "stacktoken.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "stacktoken.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* One rule of a NetworkPolicy: to some peers, or to any address, on some ports. */}}
{{- define "stacktoken.egressTo" -}}
- ports:
    {{- range $port := .ports }}
    {{- range $protocol := $.protocols | default (list "TCP") }}
    - port: {{ int64 $port }}
      protocol: {{ $protocol }}
    {{- end }}
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
