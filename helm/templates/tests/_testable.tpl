{{/* With a client CA the pod would be turned away: it has no certificate of its own. */}}
{{- define "stacktoken.testable" -}}
{{- if and .Values.tests.enabled (not .Values.tls.clientCa.existingSecret) -}}
yes
{{- end -}}
{{- end -}}
