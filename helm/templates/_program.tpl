{{/* The environment of the program, its volumes and their mounts. */}}

{{/* The database settings, for the server and for migrations. */}}
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
  value: {{ .Values.log.format | quote }}
{{- end -}}

{{/* The mode 0440, with which only the user and the group of the pod can read the files. It is
     written in decimal, because YAML 1.2 reads 0440 as 440. */}}
{{- define "stacktoken.fileMode" -}}
288
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
    claimName: {{ .sqlite.existingClaim | default (include "stacktoken.fullname" $) | quote }}
{{- else -}}
- name: database
  projected:
    defaultMode: {{ include "stacktoken.fileMode" . }}
    sources:
      - secret:
          name: {{ .existingSecret.name | quote }}
          items:
            - key: {{ .existingSecret.key | quote }}
              path: url
      {{- if .directSecret.name }}
      - secret:
          name: {{ .directSecret.name | quote }}
          items:
            - key: {{ .directSecret.key | quote }}
              path: direct-url
      {{- end }}
      {{- with .ca.existingSecret }}
      {{- if .name }}
      - secret:
          name: {{ .name | quote }}
          items:
            - key: {{ .key | quote }}
              path: ca.crt
      {{- end }}
      {{- end }}
      {{- with .ca.existingConfigMap }}
      {{- if .name }}
      - configMap:
          name: {{ .name | quote }}
          items:
            - key: {{ .key | quote }}
              path: ca.crt
      {{- end }}
      {{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The listen address as it is written before a port, with IPv6 in brackets. */}}
{{- define "stacktoken.listenAddress" -}}
{{- contains ":" .Values.listenAddress | ternary "[::]" .Values.listenAddress -}}
{{- end -}}

{{- define "stacktoken.serverEnv" -}}
- name: STACKTOKEN_LISTEN
  value: "{{ include "stacktoken.listenAddress" . }}:{{ int64 .Values.ports.grpc }}"
- name: STACKTOKEN_ADMIN_LISTEN
  value: "{{ include "stacktoken.listenAddress" . }}:{{ int64 .Values.ports.admin }}"
{{- if .Values.http.enabled }}
- name: STACKTOKEN_HTTP_LISTEN
  value: "{{ include "stacktoken.listenAddress" . }}:{{ int64 .Values.ports.http }}"
- name: STACKTOKEN_HTTP_PUBLIC_URL
  value: {{ .Values.http.publicUrl | quote }}
{{- end }}
{{ include "stacktoken.databaseEnv" . }}
{{- with .Values.guard }}
{{- if .enabled }}
- name: STACKTOKEN_GUARD
  value: /guard
- name: STACKTOKEN_GUARD_MODE
  value: {{ .mode | quote }}
{{- if .keySecret.name }}
- name: STACKTOKEN_GUARD_KEY_FILE
  value: /etc/stacktoken/guard/guard.key
{{- end }}
{{- end }}
{{- end }}
- name: STACKTOKEN_ISSUERS
  value: "/etc/stacktoken/issuers/{{ include "stacktoken.issuersKey" . }}"
{{- if or .Values.authzRoutes.text .Values.authzRoutes.existingConfigMap.name }}
- name: STACKTOKEN_AUTHZ_ROUTES
  value: /etc/stacktoken/routes/routes.toml
{{- end }}
{{- if or .Values.catalogue.text .Values.catalogue.existingConfigMap.name }}
- name: STACKTOKEN_CATALOGUE
  value: /etc/stacktoken/catalogue/catalogue.toml
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
- name: {{ $name | quote }}
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
{{- if .Values.guard.enabled }}
- name: guard
  mountPath: /guard
{{- if .Values.guard.keySecret.name }}
- name: guard-key
  mountPath: /etc/stacktoken/guard
  readOnly: true
{{- end }}
{{- end }}
- name: issuers
  mountPath: /etc/stacktoken/issuers
  readOnly: true
{{- if or .Values.authzRoutes.text .Values.authzRoutes.existingConfigMap.name }}
- name: routes
  mountPath: /etc/stacktoken/routes
  readOnly: true
{{- end }}
{{- if or .Values.catalogue.text .Values.catalogue.existingConfigMap.name }}
- name: catalogue
  mountPath: /etc/stacktoken/catalogue
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
{{- with .Values.guard }}
{{- if .enabled }}
- name: guard
  persistentVolumeClaim:
    claimName: {{ .existingClaim | quote }}
{{- if .keySecret.name }}
- name: guard-key
  secret:
    secretName: {{ .keySecret.name | quote }}
    defaultMode: {{ include "stacktoken.fileMode" $ }}
    items:
      - key: {{ .keySecret.key | quote }}
        path: guard.key
{{- end }}
{{- end }}
{{- end }}
- name: issuers
  {{- if .Values.issuers.existingSecret.name }}
  secret:
    secretName: {{ .Values.issuers.existingSecret.name | quote }}
    defaultMode: {{ include "stacktoken.fileMode" . }}
  {{- else }}
  configMap:
    name: {{ .Values.issuers.existingConfigMap.name | default (printf "%s-issuers" (include "stacktoken.fullname" .)) | quote }}
  {{- end }}
{{- with .Values.authzRoutes }}
{{- if or .text .existingConfigMap.name }}
- name: routes
  configMap:
    name: {{ .existingConfigMap.name | default (printf "%s-routes" (include "stacktoken.fullname" $)) | quote }}
    items:
      - key: {{ empty .existingConfigMap.name | ternary "routes.toml" .existingConfigMap.key | quote }}
        path: routes.toml
{{- end }}
{{- end }}
{{- with .Values.catalogue }}
{{- if or .text .existingConfigMap.name }}
- name: catalogue
  configMap:
    name: {{ .existingConfigMap.name | default (printf "%s-catalogue" (include "stacktoken.fullname" $)) | quote }}
    items:
      - key: {{ empty .existingConfigMap.name | ternary "catalogue.toml" .existingConfigMap.key | quote }}
        path: catalogue.toml
{{- end }}
{{- end }}
{{- with .Values.tls }}
{{- if .enabled }}
- name: tls
  secret:
    secretName: {{ .existingSecret | quote }}
    defaultMode: {{ include "stacktoken.fileMode" . }}
    items:
      - key: {{ .certKey | quote }}
        path: tls.crt
      - key: {{ .keyKey | quote }}
        path: tls.key
{{- if .clientCa.existingSecret }}
- name: client-ca
  secret:
    secretName: {{ .clientCa.existingSecret | quote }}
    defaultMode: {{ include "stacktoken.fileMode" . }}
    items:
      - key: {{ .clientCa.key | quote }}
        path: ca.crt
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
