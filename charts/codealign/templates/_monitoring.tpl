{{/* Objects for the Prometheus operator and Grafana. */}}

{{/* Whether to create objects of the Prometheus operator: `mode` is auto, enabled or disabled. */}}
{{- define "codealign.monitored" -}}
{{- or (eq .mode "enabled") (and (eq .mode "auto") (.root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}
{{- end -}}

{{- define "codealign.monitorLabels" -}}
{{ include "codealign.labels" . }}
{{- with .root.Values.monitoring.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "codealign.endpoint" -}}
{port: metrics, interval: {{ .root.Values.monitoring.interval }}, relabelings: [{targetLabel: job, replacement: codealign-{{ .component }}}]}
{{- end -}}
