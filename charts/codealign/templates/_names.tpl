{{/* Names and labels of all resources. */}}

{{- define "codealign.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Component names of the five services. */}}
{{- define "codealign.services" -}}
dataset coordinator sandbox inference trainer
{{- end -}}

{{/* Name of a component: (dict "root" $ "component" "dataset"). */}}
{{- define "codealign.component" -}}
{{ include "codealign.fullname" .root }}-{{ .component }}
{{- end -}}

{{- define "codealign.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "codealign.labels" -}}
{{ include "codealign.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: codealign
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Image reference: (dict "root" $ "image" "codealign-dataset"). A name with a tag or digest is used unchanged. */}}
{{- define "codealign.image" -}}
{{- if regexMatch "(@|:[^/]+$)" .image -}}
{{ .image }}
{{- else -}}
{{- $image := .root.Values.image -}}
{{ $image.registry }}{{ .image }}:{{ default .root.Chart.AppVersion $image.tag }}
{{- if not $image.tag }}{{ with get $image.digests .image }}@{{ . }}{{ end }}{{ end -}}
{{- end -}}
{{- end -}}

{{- define "codealign.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Address of a service: the same in its certificate, its callers' settings and KEDA's trigger. */}}
{{- define "codealign.address" -}}
{{ include "codealign.component" . }}:7400
{{- end -}}

{{/* DNS names in a component's certificate: (dict "root" $ "component" ..). */}}
{{- define "codealign.dnsNames" -}}
{{- $name := include "codealign.component" . -}}
{{- $namespace := .root.Release.Namespace -}}
{{ list $name (printf "%s.%s" $name $namespace) (printf "%s.%s.svc" $name $namespace) (printf "%s.%s.svc.cluster.local" $name $namespace) "localhost" | toJson }}
{{- end -}}

{{/* Components with a certificate. KEDA, the operator and users are only clients; all runners share one name, and so do
all inference workers. */}}
{{- define "codealign.certified" -}}
{{- $workers := .Values.inference.workers -}}
{{- $keda := or (eq .Values.runners.scaling.mode "keda") (and $workers.enabled (eq $workers.scaling.mode "keda")) -}}
dataset coordinator sandbox inference{{ if $workers.enabled }} inference-workers{{ end }} trainer runners operator{{ if $keda }} keda{{ end }}{{ if .Values.console.enabled }} console{{ end }} client
{{- end -}}
