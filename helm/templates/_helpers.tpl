{{/* Names, labels and parts that several objects share. */}}

{{/* The name of every object, in most cases with a suffix of at most 10 characters. The name of a
     service must be a DNS label: at most 63 characters, no dots, and a letter first. The name of a
     release may be something else, such as `1.5`. */}}
{{- define "stacktoken.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
{{- $full = contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]" $full) -}}
{{- $full = printf "%s-%s" $name .Release.Name -}}
{{- end -}}
{{- include "stacktoken.cut" (list 52 (replace "." "-" $full)) -}}
{{- end -}}

{{/* Truncates a string to a number of characters, so that it ends in a letter or a digit. */}}
{{- define "stacktoken.cut" -}}
{{- last . | trunc (first .) | regexFind "^.*[A-Za-z0-9]" -}}
{{- end -}}

{{- define "stacktoken.selectorLabels" -}}
app.kubernetes.io/name: {{ include "stacktoken.cut" (list 63 (.Values.nameOverride | default .Chart.Name)) | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "stacktoken.serverLabels" -}}
{{ include "stacktoken.selectorLabels" . }}
app.kubernetes.io/component: server
{{- end -}}

{{- define "stacktoken.labels" -}}
helm.sh/chart: {{ include "stacktoken.cut" (list 63 (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_")) | quote }}
{{ include "stacktoken.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
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

{{/* Converts a duration such as 500ms, 20s, 5m or 24h to milliseconds. */}}
{{- define "stacktoken.milliseconds" -}}
{{- $count := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- mul $count (get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) $unit) -}}
{{- end -}}

{{/* The maximum time that the program takes to stop after SIGTERM: both drains, 5 s to write the
     remaining audit rows, and 2 s to send the remaining spans. */}}
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

{{/* The settings that the restricted profile of Kubernetes' pod security standards requires. */}}
{{- define "stacktoken.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.runAs }}
{{- range $name, $id := dict "runAsUser" .user "runAsGroup" .group "fsGroup" .fsGroup }}
{{- if $id }}
{{ $name }}: {{ int64 $id }}
{{- end }}
{{- end }}
{{- end }}
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

{{- define "stacktoken.families" -}}
{{- with .Values.service.ipFamilyPolicy }}
  ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.service.ipFamilies }}
  ipFamilies:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end -}}

{{/* An egress rule of a NetworkPolicy, to some peers or to any address, on some ports. */}}
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
