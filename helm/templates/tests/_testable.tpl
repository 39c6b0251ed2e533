{{/* With a client CA, a pod without a certificate of its own would be turned away. */}}
{{- define "stacktoken.testable" -}}
{{- if and .Values.tests.enabled (or .Values.tests.clientSecret (not .Values.tls.clientCa.existingSecret)) -}}
yes
{{- end -}}
{{- end -}}
