{{/* The number of pods, their probes and their placement. */}}

{{/* The `replicas` of the Deployment. With autoscaling, the manifest contains no number, because it
     would overwrite the autoscaler's number at each upgrade. But if the previous manifest had a
     number, Kubernetes would treat its absence as 1 and stop all other pods. In that case, the
     manifest contains the number of pods that are running now. */}}
{{- define "stacktoken.replicas" -}}
{{- if not .Values.autoscaling.enabled -}}
{{- int64 .Values.replicaCount -}}
{{- else -}}
{{- $there := lookup "apps/v1" "Deployment" .Release.Namespace (include "stacktoken.fullname" .) -}}
{{- $named := hasKey (dig "metadata" "annotations" (dict) $there) "stacktoken/replicas-in-manifest" -}}
{{- if and $there (or $named (not (include "stacktoken.scaler" .))) -}}
{{- max (int64 .Values.autoscaling.minReplicas) (dig "spec" "replicas" 1 $there | int64) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The maximum number of pods at once, including those that an upgrade starts before it stops others. */}}
{{- define "stacktoken.podsAtMost" -}}
{{- $pods := .Values.autoscaling.enabled | ternary .Values.autoscaling.maxReplicas .Values.replicaCount | int64 -}}
{{- $surge := toString .Values.maxSurge -}}
{{- if hasSuffix "%" $surge -}}
{{- add $pods (div (add (mul $pods (trimSuffix "%" $surge | int64)) 99) 100) -}}
{{- else -}}
{{- add $pods (int64 $surge) -}}
{{- end -}}
{{- end -}}

{{/* The maximum number of database connections. Each pod opens four in addition to those for calls. */}}
{{- define "stacktoken.connections" -}}
{{- mul (include "stacktoken.podsAtMost" . | int64) (add 4 (int64 .Values.database.connections)) -}}
{{- end -}}

{{/* Whether the autoscaler already exists in the cluster. */}}
{{- define "stacktoken.scaler" -}}
{{- if lookup "autoscaling/v2" "HorizontalPodAutoscaler" .Release.Namespace (include "stacktoken.fullname" .) -}}
yes
{{- end -}}
{{- end -}}

{{/* The built-in gRPC probe does not support TLS, so with TLS the probes use the admin port. */}}
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
  httpGet:
    path: /livez
    port: admin
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
    whenUnsatisfiable: {{ .Values.topologySpread.zones | quote }}
    labelSelector:
      matchLabels:
        {{- include "stacktoken.serverLabels" . | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: {{ .Values.topologySpread.nodes | quote }}
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
priorityClassName: {{ . | quote }}
{{- end }}
{{- end -}}
