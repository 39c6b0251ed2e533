{{/* Whether `helm test` has a test. With a client CA, the test needs a client certificate. */}}
{{- define "stacktoken.testable" -}}
{{- if and .Values.tests.enabled (or .Values.tests.clientSecret (not .Values.tls.clientCa.existingSecret)) -}}
yes
{{- end -}}
{{- end -}}
