{{/* Probes and placement of the server's pods. */}}

{{/* The built-in gRPC probe speaks no TLS, so with TLS the admin port is asked instead. */}}
{{- define "stacktoken.askServing" -}}
{{- if .Values.tls.enabled -}}
httpGet:
  path: /readyz
  port: admin
{{- else -}}
grpc:
  port: {{ int64 .Values.ports.grpc }}
  service: stacktoken.v1.IntrospectionService
{{- end -}}
{{- end -}}

{{- define "stacktoken.probes" -}}
startupProbe:
  {{- include "stacktoken.askServing" . | nindent 2 }}
  {{- toYaml .Values.probes.startup | nindent 2 }}
livenessProbe:
  httpGet:
    path: /livez
    port: admin
  {{- toYaml .Values.probes.liveness | nindent 2 }}
readinessProbe:
  {{- include "stacktoken.askServing" . | nindent 2 }}
  {{- toYaml .Values.probes.readiness | nindent 2 }}
{{- end -}}

{{- define "stacktoken.scheduling" -}}
{{- if .Values.topologySpread.enabled }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: {{ .Values.topologySpread.zones }}
    labelSelector:
      matchLabels:
        {{- include "stacktoken.serverLabels" . | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: {{ .Values.topologySpread.nodes }}
    labelSelector:
      matchLabels:
        {{- include "stacktoken.serverLabels" . | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
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
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}
