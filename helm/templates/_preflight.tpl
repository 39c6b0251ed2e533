{{/* Checks that the objects to which the values refer exist in the cluster, before anything is
     changed. Otherwise a pod whose secret is missing would not start, and only its events would say
     why. */}}

{{/* Whether there is a cluster to query. Every namespace of a cluster has this account, and
     `helm template` finds none. */}}
{{- define "stacktoken.askable" -}}
{{- if and .Values.preflight.enabled (lookup "v1" "ServiceAccount" .Release.Namespace "default") -}}
yes
{{- end -}}
{{- end -}}

{{- define "stacktoken.problems.references" -}}
{{- if include "stacktoken.askable" . }}
{{- $database := .Values.database -}}
{{- $issuers := .Values.issuers -}}
{{- $tls := .Values.tls -}}
{{- $references := list
  (list "Secret" "database.existingSecret" $database.existingSecret.name $database.existingSecret.key "url")
  (list "Secret" "database.directSecret" $database.directSecret.name $database.directSecret.key "url")
  (list "Secret" "database.ca.existingSecret" $database.ca.existingSecret.name $database.ca.existingSecret.key)
  (list "ConfigMap" "database.ca.existingConfigMap" $database.ca.existingConfigMap.name $database.ca.existingConfigMap.key)
  (list "Secret" "issuers.existingSecret" $issuers.existingSecret.name $issuers.existingSecret.key)
  (list "ConfigMap" "issuers.existingConfigMap" $issuers.existingConfigMap.name $issuers.existingConfigMap.key)
  (list "ConfigMap" "authzRoutes.existingConfigMap" .Values.authzRoutes.existingConfigMap.name .Values.authzRoutes.existingConfigMap.key)
  (list "ConfigMap" "catalogue.existingConfigMap" .Values.catalogue.existingConfigMap.name .Values.catalogue.existingConfigMap.key)
  (list "Secret" "tls.existingSecret" $tls.existingSecret $tls.certKey)
  (list "Secret" "tls.existingSecret" $tls.existingSecret $tls.keyKey)
  (list "Secret" "tls.clientCa.existingSecret" $tls.clientCa.existingSecret $tls.clientCa.key)
  (list "PersistentVolumeClaim" "database.sqlite.existingClaim" $database.sqlite.existingClaim)
  (list "PersistentVolumeClaim" "guard.existingClaim" .Values.guard.existingClaim)
  (list "Secret" "guard.keySecret" .Values.guard.keySecret.name .Values.guard.keySecret.key)
-}}
{{- if and .Values.migrations.enabled (not $database.sqlite.enabled) -}}
{{- $references = append $references (list "ServiceAccount" "migrations.serviceAccountName" .Values.migrations.serviceAccountName) -}}
{{- end -}}
{{- if not .Values.serviceAccount.create -}}
{{- $references = append $references (list "ServiceAccount" "serviceAccount.name" .Values.serviceAccount.name) -}}
{{- end -}}
{{- range $references }}
{{- if index . 2 }}
{{- include "stacktoken.problems.reference" (prepend . $.Release.Namespace) }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Checks that one object exists. Takes the namespace, the kind, the value that names the object,
     and the name of the object. Optionally also takes a key that the object must have, and whether
     the key contains a URL. Never prints the content of a secret. */}}
{{- define "stacktoken.problems.reference" -}}
{{- $kind := index . 1 -}}
{{- $value := index . 2 -}}
{{- $name := index . 3 -}}
{{- $found := lookup "v1" $kind (first .) $name -}}
{{- if not $found }}
{{ $value }} names the {{ $kind }} {{ $name }}, which the namespace {{ first . }} does not have: create it first, or set preflight.enabled=false if something creates it after this
{{- else if gt (len .) 4 }}
{{- $key := index . 4 -}}
{{- $held := merge (dict) ($found.data | default dict) ($found.binaryData | default dict) -}}
{{- if not (hasKey $held $key) }}
{{ $value }}: the {{ $kind }} {{ $name }} has no key {{ $key }} (it has {{ keys $held | sortAlpha | join ", " | default "none" }}): add it, or name the right one
{{- else if not (get $held $key) }}
{{ $value }}: the key {{ $key }} of the {{ $kind }} {{ $name }} is empty: fill it
{{- else if and (gt (len .) 5) (not (get $held $key | b64dec | trim | regexMatch "^postgres(ql)?://")) }}
{{ $value }}: the key {{ $key }} of the {{ $kind }} {{ $name }} does not begin with postgres:// or postgresql://: put the whole URL in it
{{- end }}
{{- end }}
{{- end -}}
