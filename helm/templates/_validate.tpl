{{/* Checks what a schema cannot express. Every message names the value and says what to do. All
     problems are reported at once. */}}

{{- define "stacktoken.validate" -}}
{{- $problems := list -}}
{{- range list "plainUrls" "database" "replicas" "running" "issuers" "tls" "drain" "network" "route" "httpRoute" "labels" "references" -}}
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

{{/* The schema refuses most of these values, but the schema check can be skipped, and this one cannot. */}}
{{- define "stacktoken.problems.plainUrls" -}}
{{- if regexMatch "postgres(ql)?://" (toJson .Values) }}
plain values contain a database URL, so every reader of the release can see its password: put it in a secret (kubectl create secret generic NAME --from-file=url=FILE) and set database.existingSecret.name=NAME
{{- end }}
{{- range $name := list "existingSecret" "directSecret" }}
{{- $secret := get $.Values.database $name }}
{{- if not (regexMatch "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$" $secret.name) }}
database.{{ $name }}.name is not the name of a secret (a-z, 0-9, - and .): the URL itself belongs into a secret, whose name this is
{{- end }}
{{- if not (regexMatch "^[-._a-zA-Z0-9]+$" $secret.key) }}
database.{{ $name }}.key is not a key of a secret (letters, digits, -, _ and .): the URL itself belongs into a secret, under this key
{{- end }}
{{- end }}
{{- if not (regexMatch "^(https?://[^/@ ]+/?)?$" .Values.tracing.otlpEndpoint) }}
tracing.otlpEndpoint is not an address such as http://collector.observability:4317, without a user, a password and a path
{{- end }}
{{- range $key := list "url" "directUrl" "dsn" "password" }}
{{- if hasKey $.Values.database $key }}
database.{{ $key }} is not accepted: put the whole URL in a secret and set database.existingSecret.name
{{- end }}
{{- end }}
{{- range $key, $value := .Values.extraEnv }}
{{- if hasPrefix "STACKTOKEN_" $key }}
extraEnv.{{ $key }} is not accepted: set it by its own value (settings, database, issuers, tls, log, tracing), so that it is checked
{{- end }}
{{- end }}
{{- end -}}

{{- define "stacktoken.problems.database" -}}
{{- with .Values.database }}
{{- if and .existingSecret.name .sqlite.enabled }}
database.existingSecret.name and database.sqlite.enabled are both set: choose PostgreSQL (sqlite.enabled=false) or SQLite (an empty existingSecret.name)
{{- end }}
{{- if not (or .existingSecret.name .sqlite.enabled) }}
no database is named: set database.existingSecret.name to a secret that contains a PostgreSQL URL, or database.sqlite.enabled=true for one replica on a volume
{{- end }}
{{- if and .directSecret.name .sqlite.enabled }}
database.directSecret.name is for PostgreSQL: leave it empty with database.sqlite.enabled
{{- end }}
{{- if and .ca.existingSecret.name .ca.existingConfigMap.name }}
database.ca comes from two places: set one of existingSecret.name and existingConfigMap.name
{{- end }}
{{- if and (or .ca.existingSecret.name .ca.existingConfigMap.name) .sqlite.enabled }}
database.ca is for PostgreSQL: leave it empty with database.sqlite.enabled
{{- end }}
{{- if and .sqlite.existingClaim (not .sqlite.enabled) }}
database.sqlite.existingClaim is set but SQLite is off: set database.sqlite.enabled=true, or empty it
{{- end }}
{{- end }}
{{- with .Values.guard }}
{{- if and .enabled (not .existingClaim) }}
guard.enabled needs a volume: set guard.existingClaim to a claim that all replicas can mount
{{- end }}
{{- if and .existingClaim (not .enabled) }}
guard.existingClaim is set but the guard is off: set guard.enabled=true, or empty it
{{- end }}
{{- if and .enabled .existingClaim (eq .existingClaim $.Values.database.sqlite.existingClaim) }}
guard.existingClaim is the volume of the database: a restore of the volume would set back the guard too
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
autoscaling has no target: set targetCPUUtilizationPercentage or targetMemoryUtilizationPercentage
{{- end }}
{{- range $name, $target := dict "cpu" $auto.targetCPUUtilizationPercentage "memory" $auto.targetMemoryUtilizationPercentage }}
{{- if and $target (not (dig "requests" $name "" $.Values.resources)) }}
autoscaling by {{ $name }} uses a percentage of the requested amount: set resources.requests.{{ $name }}
{{- end }}
{{- end }}
{{- end }}
{{- include "stacktoken.problems.disruption" (list .Values.podDisruptionBudget $replicas) }}
{{- end -}}

{{/* Checks that turning autoscaling on does not reduce the number of pods. */}}
{{- define "stacktoken.problems.running" -}}
{{- $max := int64 .Values.autoscaling.maxReplicas -}}
{{- $running := include "stacktoken.replicas" . | int64 -}}
{{- if and .Values.autoscaling.enabled (gt $running $max) (not (include "stacktoken.scaler" .)) }}
{{ $running }} pods run, so autoscaling with autoscaling.maxReplicas {{ $max }} would stop {{ sub $running $max }} of them: set autoscaling.maxReplicas={{ $running }} or more, or first run fewer with replicaCount
{{- end }}
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
no issuers are named, so no call would be accepted: set issuers.text (--set-file issuers.text=issuers.toml), issuers.existingConfigMap.name or issuers.existingSecret.name
{{- else if gt (len $given) 1 }}
issuers come from more than one place: set only one of issuers.text, issuers.existingConfigMap.name and issuers.existingSecret.name
{{- end }}
{{- if and .files (not .text) }}
issuers.files can be used only with issuers.text: put the files into the existing ConfigMap or secret, and empty issuers.files
{{- end }}
{{- if hasKey .files "issuers.toml" }}
issuers.files has an issuers.toml: that is the name of issuers.text, so choose another
{{- end }}
{{- if and .text (not (contains "[[" .text)) }}
issuers.text has no entry: it must contain at least one [[issuers]] entry as docs/operations.md describes
{{- end }}
{{- if and (contains "[[mtls]]" .text) (not $.Values.tls.clientCa.existingSecret) }}
issuers.text identifies services by certificate ([[mtls]]), but no client CA is set: set tls.enabled=true and tls.clientCa.existingSecret
{{- end }}
{{- end }}
{{- with .Values.authzRoutes }}
{{- if and .text .existingConfigMap.name }}
authzRoutes come from two places: set only one of authzRoutes.text and authzRoutes.existingConfigMap.name
{{- end }}
{{- end }}
{{- with .Values.catalogue }}
{{- if and .text .existingConfigMap.name }}
catalogue comes from two places: set only one of catalogue.text and catalogue.existingConfigMap.name
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
tls.clientCa.existingSecret requires client certificates to be verified (mTLS), which needs TLS: set tls.enabled=true and tls.existingSecret
{{- end }}
{{- end }}
{{- if and .Values.tests.clientSecret (not .Values.tls.clientCa.existingSecret) }}
tests.clientSecret is presented only to a server that requests it: set tls.clientCa.existingSecret, or empty it
{{- end }}
{{- if eq (int .Values.ports.grpc) (int .Values.ports.admin) }}
ports.grpc and ports.admin are both {{ int .Values.ports.grpc }}: give each its own
{{- end }}
{{- if .Values.http.enabled }}
{{- if has (int .Values.ports.http) (list (int .Values.ports.grpc) (int .Values.ports.admin)) }}
ports.http is {{ int .Values.ports.http }}, as another port is: give each its own
{{- end }}
{{- if eq (int .Values.service.httpPort) (int .Values.service.port) }}
service.port and service.httpPort are both {{ int .Values.service.port }}: give each its own
{{- end }}
{{- if not .Values.http.publicUrl }}
http.enabled needs the URL at which clients reach the port: set http.publicUrl, such as https://tokens.example.com
{{- end }}
{{- end }}
{{- end -}}

{{- define "stacktoken.problems.drain" -}}
{{- with .Values.settings.freshnessBound }}
{{- $bound := include "stacktoken.milliseconds" . | int64 -}}
{{- if or (lt $bound 200) (gt $bound 60000) }}
settings.freshnessBound is {{ . }}: choose a duration from 200ms to 1m
{{- end }}
{{- end }}
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
{{- if and .Values.http.enabled (not .Values.networkPolicy.httpCallers) }}
networkPolicy.httpCallers is empty, so nothing could reach the HTTP port: name the pods that may, or set http.enabled=false
{{- end }}
{{- if and .Values.serviceMonitor.enabled (not .Values.networkPolicy.scrapers) }}
serviceMonitor.enabled asks Prometheus to scrape, but networkPolicy.scrapers is empty: name the pods of Prometheus there
{{- end }}
{{- end }}
{{- if and .Values.service.loadBalancerSourceRanges (ne .Values.service.type "LoadBalancer") }}
service.loadBalancerSourceRanges is used only with service.type=LoadBalancer: empty it, or change the type
{{- end }}
{{- if and .Values.service.loadBalancerClass (ne .Values.service.type "LoadBalancer") }}
service.loadBalancerClass is used only with service.type=LoadBalancer: empty it, or change the type
{{- end }}
{{- if and .Values.service.externalTrafficPolicy (eq .Values.service.type "ClusterIP") }}
service.externalTrafficPolicy is used only with service.type=NodePort and LoadBalancer: empty it, or change the type
{{- end }}
{{- if and (eq (len .Values.service.ipFamilies) 2) (not (hasSuffix "DualStack" .Values.service.ipFamilyPolicy)) }}
service.ipFamilies names two families: set service.ipFamilyPolicy to PreferDualStack or RequireDualStack, or name one
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
grpcRoute.services is empty, so nothing could be called: name at least one, such as [{service: stacktoken.v1.TokenService}]
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "stacktoken.problems.httpRoute" -}}
{{- with .Values.httpRoute }}
{{- if .enabled }}
{{- if not $.Values.http.enabled }}
httpRoute.enabled needs the port to which it leads: set http.enabled=true
{{- end }}
{{- if not .parentRefs }}
httpRoute.enabled needs a gateway: set httpRoute.parentRefs, such as [{name: public, namespace: gateways}]
{{- end }}
{{- if not .paths }}
httpRoute.paths is empty, so nothing could be reached: name at least one, such as /v3/stacks/management_tokens
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "stacktoken.problems.labels" -}}
{{- range $name := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart" }}
{{- range $value := list "podLabels" "migrations.podLabels" "tests.podLabels" "serviceMonitor.labels" "prometheusRule.labels" "dashboard.labels" "grpcRoute.labels" "httpRoute.labels" }}
{{- $labels := $.Values -}}
{{- range splitList "." $value -}}
{{- $labels = get $labels . -}}
{{- end }}
{{- if hasKey $labels $name }}
{{ $value }}.{{ $name }} is the chart's own: choose another label
{{- end }}
{{- end }}
{{- end }}
{{- if hasKey .Values.podAnnotations "checksum/config" }}
podAnnotations.checksum/config is the chart's own: choose another name
{{- end }}
{{- if hasKey .Values.deploymentAnnotations "stacktoken/replicas-in-manifest" }}
deploymentAnnotations.stacktoken/replicas-in-manifest is the chart's own: choose another name
{{- end }}
{{- range $name, $_ := .Values.tests.podAnnotations }}
{{- if hasPrefix "helm.sh/" $name }}
tests.podAnnotations.{{ $name }} is the chart's own: choose another name
{{- end }}
{{- end }}
{{- end -}}
