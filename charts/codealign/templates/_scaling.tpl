{{/* Scaling by KEDA and by a HorizontalPodAutoscaler. */}}

{{/* ScaledObject and its authentication: (dict "root" $ "component" "runners" "gateway" "sandbox" "scaling" {..}),
optionally with "target" (its reference, unless the Deployment of that name) and "metadata" of the trigger. */}}
{{- define "codealign.scaledObject" -}}
{{- $name := include "codealign.component" . -}}
{{- $gateway := include "codealign.component" (dict "root" .root "component" .gateway) -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ $name }}
  labels:
    {{- include "codealign.labels" . | nindent 4 }}
spec:
  scaleTargetRef:
    {{- toYaml (merge (default (dict) .target) (dict "name" $name)) | nindent 4 }}
  minReplicaCount: {{ .scaling.min }}
  maxReplicaCount: {{ .scaling.max }}
  pollingInterval: {{ .scaling.pollingSeconds }}
  cooldownPeriod: {{ .scaling.cooldownSeconds }}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        {{- include "codealign.scalingBehavior" .scaling | nindent 8 }}
  triggers:
    # Push scaler: the first demand wakes replicas without waiting for the next poll.
    - type: external-push
      metadata:
        scalerAddress: {{ $gateway }}.{{ .root.Release.Namespace }}.svc:7400
        {{- range $key, $value := .metadata }}
        {{ $key }}: {{ $value | toString | quote }}
        {{- end }}
      {{- if ne .root.Values.tls.mode "disabled" }}
      authenticationRef: {name: {{ $name }}}
---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata:
  name: {{ $name }}
  labels:
    {{- include "codealign.labels" . | nindent 4 }}
spec:
  {{- $secret := printf "%s-tls" (include "codealign.component" (dict "root" .root "component" "keda")) }}
  secretTargetRef:
    - {parameter: caCert, name: {{ $secret }}, key: ca.crt}
    - {parameter: tlsClientCert, name: {{ $secret }}, key: tls.crt}
    - {parameter: tlsClientKey, name: {{ $secret }}, key: tls.key}
      {{- end }}
{{- end -}}

{{/* Scale up immediately, since work is already waiting; scale down after a while of idleness. */}}
{{- define "codealign.scalingBehavior" -}}
scaleUp:
  stabilizationWindowSeconds: 0
  policies:
    - {type: Percent, value: 100, periodSeconds: 5}
    - {type: Pods, value: 16, periodSeconds: 5}
scaleDown:
  stabilizationWindowSeconds: {{ min 3600 .cooldownSeconds }}
  policies:
    - {type: Percent, value: 100, periodSeconds: 15}
{{- end -}}
