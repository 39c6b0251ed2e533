{{/* What a schema cannot say. Every message names the value and says what to do. All that is
     wrong is told at once. */}}

{{- define "stacktoken.validate" -}}
{{- $problems := list -}}
{{- range list "plainUrls" "database" "replicas" "issuers" "tls" "drain" "network" "route" "labels" -}}
{{- range (include (printf "stacktoken.problems.%s" .) $ | splitList "\n") -}}
{{- with trim . -}}
{{- $problems = append $problems . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $problems -}}
{{- fail (printf "\n\nThese values do not work:\n  - %s\n" (join "\n  - " $problems)) -}}
{{- end -}}
{{- end -}}

{{/* The schema refuses most places already; it can be skipped, and this one is not. */}}
{{- define "stacktoken.problems.plainUrls" -}}
{{- if regexMatch "postgres(ql)?://" (toJson .Values) }}
a database URL stands in plain values, where every reader of the release can see its password: put it in a secret (kubectl create secret generic NAME --from-file=url=FILE) and set database.existingSecret.name=NAME
{{- end }}
{{- range $key := list "url" "directUrl" "dsn" "password" }}
{{- if hasKey $.Values.database $key }}
database.{{ $key }} is not taken: put the whole URL in a secret and set database.existingSecret.name
{{- end }}
{{- end }}
{{- range $key, $value := .Values.extraEnv }}
{{- if hasPrefix "STACKTOKEN_" $key }}
extraEnv.{{ $key }} is not taken: set it by its own value (settings, database, issuers, tls, log, tracing), so that it is checked
{{- end }}
{{- end }}
{{- end -}}

{{- define "stacktoken.problems.database" -}}
{{- with .Values.database }}
{{- if and .existingSecret.name .sqlite.enabled }}
database.existingSecret.name and database.sqlite.enabled are both set: choose PostgreSQL (sqlite.enabled=false) or SQLite (an empty existingSecret.name)
{{- end }}
{{- if not (or .existingSecret.name .sqlite.enabled) }}
no database is named: set database.existingSecret.name to a secret that holds a PostgreSQL URL, or database.sqlite.enabled=true for one replica on a volume
{{- end }}
{{- if and .directSecret.name .sqlite.enabled }}
database.directSecret.name is for PostgreSQL: leave it empty with database.sqlite.enabled
{{- end }}
{{- if and .sqlite.existingClaim (not .sqlite.enabled) }}
database.sqlite.existingClaim is set but SQLite is off: set database.sqlite.enabled=true, or empty it
{{- end }}
{{- end }}
{{- end -}}

{{- define "stacktoken.problems.replicas" -}}
{{- $auto := .Values.autoscaling -}}
{{- $replicas := int .Values.replicaCount -}}
{{- if .Values.database.sqlite.enabled }}
{{- if gt $replicas 1 }}
replicaCount is {{ $replicas }}, but an SQLite file serves one process: set replicaCount=1, or use PostgreSQL (database.existingSecret.name)
{{- end }}
{{- if $auto.enabled }}
autoscaling.enabled needs PostgreSQL, since an SQLite file serves one process: set autoscaling.enabled=false, or database.existingSecret.name
{{- end }}
{{- end }}
{{- if $auto.enabled }}
{{- $replicas = int $auto.minReplicas -}}
{{- if gt (int $auto.minReplicas) (int $auto.maxReplicas) }}
autoscaling.minReplicas {{ $auto.minReplicas }} is more than maxReplicas {{ $auto.maxReplicas }}: raise maxReplicas or lower minReplicas
{{- end }}
{{- if not (or $auto.targetCPUUtilizationPercentage $auto.targetMemoryUtilizationPercentage) }}
autoscaling has nothing to go by: set targetCPUUtilizationPercentage or targetMemoryUtilizationPercentage
{{- end }}
{{- range $name, $target := dict "cpu" $auto.targetCPUUtilizationPercentage "memory" $auto.targetMemoryUtilizationPercentage }}
{{- if and $target (not (dig "requests" $name "" $.Values.resources)) }}
autoscaling by {{ $name }} is a share of what a pod asks for: set resources.requests.{{ $name }}
{{- end }}
{{- end }}
{{- end }}
{{- include "stacktoken.problems.disruption" (list .Values.podDisruptionBudget $replicas) }}
{{- end -}}

{{- define "stacktoken.problems.disruption" -}}
{{- $budget := first . -}}
{{- $replicas := last . -}}
{{- if $budget.enabled }}
{{- $min := $budget.minAvailable -}}
{{- $max := $budget.maxUnavailable -}}
{{- if and (not (kindIs "invalid" $min)) (not (kindIs "invalid" $max)) }}
podDisruptionBudget has both minAvailable and maxUnavailable: set one of them to null
{{- end }}
{{- if and (not (kindIs "invalid" $min)) (not (kindIs "string" $min)) (ge (int $min) $replicas) }}
podDisruptionBudget.minAvailable {{ $min }} of {{ $replicas }} replicas would never let a node be drained: set it below {{ $replicas }}, or use maxUnavailable=1
{{- end }}
{{- if eq (toString $min) "100%" }}
podDisruptionBudget.minAvailable 100% would never let a node be drained: lower it, or use maxUnavailable=1
{{- end }}
{{- if has (toString $max) (list "0" "0%") }}
podDisruptionBudget.maxUnavailable {{ $max }} would never let a node be drained: set it to 1 or more
{{- end }}
{{- end }}
{{- end -}}

{{- define "stacktoken.problems.issuers" -}}
{{- with .Values.issuers }}
{{- $given := compact (list .text .existingConfigMap.name .existingSecret.name) -}}
{{- if eq (len $given) 0 }}
no issuers are named, so nobody could call: set issuers.text (--set-file issuers.text=issuers.toml), issuers.existingConfigMap.name or issuers.existingSecret.name
{{- else if gt (len $given) 1 }}
issuers come from more than one place: set only one of issuers.text, issuers.existingConfigMap.name and issuers.existingSecret.name
{{- end }}
{{- if and .files (not .text) }}
issuers.files stand beside issuers.text only: put the files into the existing ConfigMap or secret, and empty issuers.files
{{- end }}
{{- if hasKey .files "issuers.toml" }}
issuers.files has an issuers.toml: that is the name of issuers.text, so choose another
{{- end }}
{{- if and .text (not (contains "[[" .text)) }}
issuers.text has no entry: it must hold at least one [[issuers]] as docs/operations.md describes
{{- end }}
{{- if and (contains "[[mtls]]" .text) (not $.Values.tls.clientCa.existingSecret) }}
issuers.text knows services by certificate ([[mtls]]), but nobody is asked for one: set tls.enabled=true and tls.clientCa.existingSecret
{{- end }}
{{- end }}
{{- with .Values.authzRoutes }}
{{- if and .text .existingConfigMap.name }}
authzRoutes come from two places: set only one of authzRoutes.text and authzRoutes.existingConfigMap.name
{{- end }}
{{- end }}
{{- end -}}

{{- define "stacktoken.problems.tls" -}}
{{- with .Values.tls }}
{{- if and .enabled (not .existingSecret) }}
tls.enabled needs a certificate: set tls.existingSecret to a secret of type kubernetes.io/tls
{{- end }}
{{- if and .existingSecret (not .enabled) }}
tls.existingSecret is set but TLS is off: set tls.enabled=true, or empty it
{{- end }}
{{- if and .clientCa.existingSecret (not .enabled) }}
tls.clientCa.existingSecret asks callers for certificates (mTLS), which needs TLS: set tls.enabled=true and tls.existingSecret
{{- end }}
{{- end }}
{{- if and .Values.tests.clientSecret (not .Values.tls.clientCa.existingSecret) }}
tests.clientSecret is shown only to a server that asks for it: set tls.clientCa.existingSecret, or empty it
{{- end }}
{{- if eq (int .Values.ports.grpc) (int .Values.ports.admin) }}
ports.grpc and ports.admin are both {{ int .Values.ports.grpc }}: give each its own
{{- end }}
{{- end -}}

{{- define "stacktoken.problems.drain" -}}
{{- $needs := include "stacktoken.drainSeconds" . | int -}}
{{- with .Values.terminationGracePeriodSeconds }}
{{- if le (int .) $needs }}
terminationGracePeriodSeconds is {{ int . }}, but a stop may take {{ $needs }} s (settings.drainDelay + settings.drainGrace + 5 s for the audit + 2 s for spans): set it to more than {{ $needs }}, or to null to have it computed
{{- end }}
{{- end }}
{{- end -}}

{{- define "stacktoken.problems.network" -}}
{{- if .Values.networkPolicy.enabled }}
{{- if not .Values.networkPolicy.callers }}
networkPolicy.callers is empty, so nothing could call the service: name the pods that may (such as [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: cms}}}]), or set networkPolicy.enabled=false
{{- end }}
{{- if and .Values.serviceMonitor.enabled (not .Values.networkPolicy.scrapers) }}
serviceMonitor.enabled asks Prometheus to scrape, but networkPolicy.scrapers lets nobody in: name Prometheus' pods there
{{- end }}
{{- end }}
{{- if and .Values.service.loadBalancerSourceRanges (ne .Values.service.type "LoadBalancer") }}
service.loadBalancerSourceRanges counts only for service.type=LoadBalancer: empty it, or change the type
{{- end }}
{{- if and .Values.service.headless (ne .Values.service.type "ClusterIP") }}
service.headless needs service.type=ClusterIP
{{- end }}
{{- end -}}

{{- define "stacktoken.problems.route" -}}
{{- with .Values.grpcRoute }}
{{- if .enabled }}
{{- if not .parentRefs }}
grpcRoute.enabled needs a gateway: set grpcRoute.parentRefs, such as [{name: public, namespace: gateways}]
{{- end }}
{{- if not .services }}
grpcRoute.services is empty, so nothing could be called: name at least stacktoken.v1.IntrospectionService
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "stacktoken.problems.labels" -}}
{{- range $name := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart" }}
{{- if hasKey $.Values.podLabels $name }}
podLabels.{{ $name }} is the chart's own: choose another label
{{- end }}
{{- end }}
{{- if hasKey .Values.podAnnotations "checksum/config" }}
podAnnotations.checksum/config is the chart's own: choose another name
{{- end }}
{{- end -}}
