{{/* Settings of all pods, which comply with the Pod Security Standard "restricted". */}}

{{- define "codealign.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .uid }}
runAsGroup: {{ .uid }}
fsGroup: {{ .uid }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "codealign.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Probes: (dict "health" 7401 "start" <seconds> "startService" "liveness"). The health port responds for the whole
lifetime of the process, so liveness may be strict; readiness reflects the service's dependencies. */}}
{{- define "codealign.probes" -}}
startupProbe:
  grpc: {port: {{ .health }}, service: {{ .startService }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ div (add .start 4) 5 }}
livenessProbe:
  grpc: {port: {{ .health }}, service: liveness}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  grpc: {port: {{ .health }}, service: readiness}
  periodSeconds: 3
  timeoutSeconds: 3
  failureThreshold: 2
{{- end -}}

{{/* Spread pods over zones and nodes if possible, or as "values" say. */}}
{{- define "codealign.spread" -}}
{{- $selector := include "codealign.selector" . }}
topologySpreadConstraints:
  {{- range dig "topologySpreadConstraints" (list) (default (dict) .values) }}
  - {{- toYaml . | nindent 4 }}
    {{- if not .labelSelector }}
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
    {{- end }}
  {{- else }}
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
  {{- end }}
  {{- end }}
{{- end -}}

{{/* Settings of every server: (dict "root" $ "prefix" "CODEALIGN_DATASET_" "port" 7400 "drain" 30). */}}
{{- define "codealign.serverEnv" -}}
- {name: {{ .prefix }}HOST, value: "0.0.0.0"}
- {name: {{ .prefix }}PORT, value: {{ .port | quote }}}
- {name: {{ .prefix }}HEALTH_PORT, value: {{ add .port 1 | quote }}}
- {name: {{ .prefix }}METRICS_PORT, value: {{ add .port 2 | quote }}}
- {name: {{ .prefix }}DRAIN_SECONDS, value: {{ .drain | quote }}}
- {name: {{ .prefix }}LOG_LEVEL, value: {{ .root.Values.log.level }}}
- {name: {{ .prefix }}LOG_FORMAT, value: {{ .root.Values.log.format }}}
{{- if eq .root.Values.tls.mode "disabled" }}
- {name: {{ .prefix }}ALLOW_PLAINTEXT, value: "true"}
{{- else }}
- {name: {{ .prefix }}TLS_CERT_FILE, value: /etc/codealign/tls/tls.crt}
- {name: {{ .prefix }}TLS_KEY_FILE, value: /etc/codealign/tls/tls.key}
- {name: {{ .prefix }}TLS_CLIENT_CA_FILE, value: /etc/codealign/tls/ca.crt}
{{- end }}
{{- end -}}

{{/* Export of traces: the standard variables of OpenTelemetry. */}}
{{- define "codealign.tracingEnv" -}}
{{- with .Values.tracing }}
{{- if .endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ .endpoint | quote }}}
- {name: OTEL_TRACES_SAMPLER, value: parentbased_traceidratio}
- {name: OTEL_TRACES_SAMPLER_ARG, value: {{ .ratio | toString | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* Client certificate of a service that calls others: (dict "root" $ "names" (list ca cert key)). */}}
{{- define "codealign.clientEnv" -}}
{{- if ne .root.Values.tls.mode "disabled" }}
- {name: {{ index .names 0 }}, value: /etc/codealign/tls/ca.crt}
- {name: {{ index .names 1 }}, value: /etc/codealign/tls/tls.crt}
- {name: {{ index .names 2 }}, value: /etc/codealign/tls/tls.key}
{{- end }}
{{- end -}}

{{/* Settings from the values: (dict "prefix" .. "settings" {..}). Maps become JSON, as vllm_args needs it; large
integers must not become 1e+09. */}}
{{- define "codealign.settingsEnv" -}}
{{- range $name, $value := .settings }}
- name: {{ $.prefix }}{{ upper $name }}
  {{- if kindIs "float64" $value }}
  value: {{ ternary (int64 $value | toString) (toString $value) (eq (floor $value) $value) | quote }}
  {{- else if or (kindIs "map" $value) (kindIs "slice" $value) }}
  value: {{ toJson $value | quote }}
  {{- else }}
  value: {{ toString $value | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Cache and download of models. */}}
{{- define "codealign.hubEnv" -}}
{{- include "codealign.hubEnvAt" (dict "root" . "cache" "/var/cache/codealign") -}}
{{- end -}}

{{- define "codealign.hubEnvAt" -}}
- {name: XDG_CACHE_HOME, value: {{ .cache }}}
- {name: HF_HOME, value: {{ .cache }}/huggingface}
{{- if .root.Values.hub.offline }}
- {name: HF_HUB_OFFLINE, value: "1"}
{{- end }}
{{- with .root.Values.hub.existingSecret }}
- name: HF_TOKEN
  valueFrom: {secretKeyRef: {name: {{ . }}, key: HF_TOKEN}}
{{- end }}
{{- end -}}

{{- define "codealign.s3Env" -}}
{{- with .Values.s3.endpoint }}
- {name: AWS_ENDPOINT_URL, value: {{ . | quote }}}
{{- end }}
{{- with .Values.s3.region }}
- {name: AWS_DEFAULT_REGION, value: {{ . | quote }}}
{{- end }}
{{- end -}}

{{- define "codealign.artifactsClaim" -}}
{{ default (printf "%s-artifacts" (include "codealign.fullname" .)) .Values.artifacts.existingClaim }}
{{- end -}}

{{- define "codealign.cacheVolume" -}}
- name: cache
  {{- if .Values.modelCache.persistent }}
  persistentVolumeClaim:
    claimName: {{ default (printf "%s-models" (include "codealign.fullname" .)) .Values.modelCache.existingClaim }}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- end -}}

{{/* Resources including GPUs: (dict "root" $ "component" "inference"), optionally with "values". */}}
{{- define "codealign.resources" -}}
{{- $values := default (index .root.Values .component) .values -}}
{{- $resources := deepCopy $values.resources -}}
{{- if and $values.gpu $values.gpu.count -}}
{{- $limits := merge (dict $values.gpu.resource ($values.gpu.count | int | toString)) (default (dict) $resources.limits) -}}
{{- $resources = set $resources "limits" $limits -}}
{{- end -}}
{{ toYaml $resources }}
{{- end -}}

{{/* Node selector and tolerations: (dict "root" $ "component" ..), optionally with "values". */}}
{{- define "codealign.placement" -}}
{{- $values := default (index .root.Values .component) .values -}}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $gpu := and $values.gpu $values.gpu.count }}
{{- if or $gpu $values.tolerations }}
tolerations:
  {{- if $gpu }}
  - {key: {{ $values.gpu.resource }}, operator: Exists, effect: NoSchedule}
  {{- end }}
  {{- with $values.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Restarts pods when their certificates are rotated. */}}
{{- define "codealign.podAnnotations" -}}
{{- if eq .Values.tls.mode "generated" }}
codealign/tls-rotation: {{ .Values.tls.generated.rotation | quote }}
{{- end }}
{{- end -}}
