{{/* What the program is given: environment, volumes and where they are mounted. */}}

{{/* The database, for the server and for migrations alike. */}}
{{- define "stacktoken.databaseEnv" -}}
{{- if .Values.database.sqlite.enabled -}}
- name: STACKTOKEN_DATABASE_URL
  value: sqlite:/data/stacktoken.db
{{- else -}}
- name: STACKTOKEN_DATABASE_URL_FILE
  value: /etc/stacktoken/database/url
{{- if .Values.database.directSecret.name }}
- name: STACKTOKEN_DATABASE_DIRECT_URL_FILE
  value: /etc/stacktoken/database/direct-url
{{- end }}
- name: STACKTOKEN_DATABASE_CONNECTIONS
  value: {{ int64 .Values.database.connections | quote }}
{{- end }}
- name: STACKTOKEN_LOG
  value: {{ .Values.log.filter | quote }}
- name: STACKTOKEN_LOG_FORMAT
  value: {{ .Values.log.format }}
{{- end -}}

{{- define "stacktoken.databaseMount" -}}
{{- if .Values.database.sqlite.enabled -}}
- name: data
  mountPath: /data
{{- else -}}
- name: database
  mountPath: /etc/stacktoken/database
  readOnly: true
{{- end -}}
{{- end -}}

{{- define "stacktoken.databaseVolume" -}}
{{- with .Values.database -}}
{{- if .sqlite.enabled -}}
- name: data
  persistentVolumeClaim:
    claimName: {{ .sqlite.existingClaim | default (include "stacktoken.fullname" $) }}
{{- else -}}
- name: database
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ .existingSecret.name }}
          items:
            - key: {{ .existingSecret.key }}
              path: url
      {{- if .directSecret.name }}
      - secret:
          name: {{ .directSecret.name }}
          items:
            - key: {{ .directSecret.key }}
              path: direct-url
      {{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "stacktoken.serverEnv" -}}
- name: STACKTOKEN_LISTEN
  value: "0.0.0.0:{{ int64 .Values.ports.grpc }}"
- name: STACKTOKEN_ADMIN_LISTEN
  value: "0.0.0.0:{{ int64 .Values.ports.admin }}"
{{ include "stacktoken.databaseEnv" . }}
- name: STACKTOKEN_ISSUERS
  value: /etc/stacktoken/issuers/{{ include "stacktoken.issuersKey" . }}
{{- if or .Values.authzRoutes.text .Values.authzRoutes.existingConfigMap.name }}
- name: STACKTOKEN_AUTHZ_ROUTES
  value: /etc/stacktoken/routes/routes.toml
{{- end }}
{{- if .Values.tls.enabled }}
- name: STACKTOKEN_TLS_CERT
  value: /etc/stacktoken/tls/tls.crt
- name: STACKTOKEN_TLS_KEY
  value: /etc/stacktoken/tls/tls.key
{{- if .Values.tls.clientCa.existingSecret }}
- name: STACKTOKEN_TLS_CLIENT_CA
  value: /etc/stacktoken/client-ca/ca.crt
{{- end }}
{{- end }}
{{- if .Values.tracing.otlpEndpoint }}
- name: STACKTOKEN_OTLP_ENDPOINT
  value: {{ .Values.tracing.otlpEndpoint | quote }}
- name: STACKTOKEN_TRACE_SAMPLE_RATIO
  value: {{ .Values.tracing.sampleRatio | quote }}
{{- end }}
{{- range $name, $value := .Values.settings }}
{{- if not (kindIs "invalid" $value) }}
- name: STACKTOKEN_{{ snakecase $name | upper }}
  value: {{ (kindIs "float64" $value | ternary (printf "%.0f" $value) (toString $value)) | quote }}
{{- end }}
{{- end }}
{{- range $name, $value := .Values.extraEnv }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "stacktoken.issuersKey" -}}
{{- with .Values.issuers -}}
{{- if .existingConfigMap.name -}}
{{ .existingConfigMap.key }}
{{- else if .existingSecret.name -}}
{{ .existingSecret.key }}
{{- else -}}
issuers.toml
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "stacktoken.serverMounts" -}}
{{ include "stacktoken.databaseMount" . }}
- name: issuers
  mountPath: /etc/stacktoken/issuers
  readOnly: true
{{- if or .Values.authzRoutes.text .Values.authzRoutes.existingConfigMap.name }}
- name: routes
  mountPath: /etc/stacktoken/routes
  readOnly: true
{{- end }}
{{- if .Values.tls.enabled }}
- name: tls
  mountPath: /etc/stacktoken/tls
  readOnly: true
{{- if .Values.tls.clientCa.existingSecret }}
- name: client-ca
  mountPath: /etc/stacktoken/client-ca
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}

{{- define "stacktoken.serverVolumes" -}}
{{ include "stacktoken.databaseVolume" . }}
- name: issuers
  {{- if .Values.issuers.existingSecret.name }}
  secret:
    secretName: {{ .Values.issuers.existingSecret.name }}
    defaultMode: 0440
  {{- else }}
  configMap:
    name: {{ .Values.issuers.existingConfigMap.name | default (printf "%s-issuers" (include "stacktoken.fullname" .)) }}
  {{- end }}
{{- with .Values.authzRoutes }}
{{- if or .text .existingConfigMap.name }}
- name: routes
  configMap:
    name: {{ .existingConfigMap.name | default (printf "%s-routes" (include "stacktoken.fullname" $)) }}
    items:
      - key: {{ empty .existingConfigMap.name | ternary "routes.toml" .existingConfigMap.key }}
        path: routes.toml
{{- end }}
{{- end }}
{{- with .Values.tls }}
{{- if .enabled }}
- name: tls
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    items:
      - key: {{ .certKey }}
        path: tls.crt
      - key: {{ .keyKey }}
        path: tls.key
{{- if .clientCa.existingSecret }}
- name: client-ca
  secret:
    secretName: {{ .clientCa.existingSecret }}
    defaultMode: 0440
    items:
      - key: {{ .clientCa.key }}
        path: ca.crt
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
