{{/* Scaling by KEDA and by a HorizontalPodAutoscaler. */}}

{{/* ScaledObject and its authentication: (dict "root" $ "component" "runners" "gateway" "sandbox" "scaling" {..}),
optionally with "target" (its reference, unless the Deployment of that name) and "metadata" of the trigger.

A List, because Helm creates its items in this order. It would otherwise create ScaledObjects first, and KEDA, if it
then finds no authentication, connects without TLS and keeps that connection. */}}
{{- define "codealign.scaledObject" -}}
{{- $name := include "codealign.component" . -}}
{{- $gateway := include "codealign.component" (dict "root" .root "component" .gateway) -}}
apiVersion: v1
kind: List
metadata:
  name: {{ $name }} # A list has no name; this one satisfies `helm lint`.
items:
  {{- if ne .root.Values.tls.mode "disabled" }}
  - apiVersion: keda.sh/v1alpha1
    kind: TriggerAuthentication
    metadata:
      name: {{ $name }}
      labels:
        {{- include "codealign.labels" . | nindent 8 }}
    spec:
      {{- $secret := include "codealign.kedaSecret" .root }}
      secretTargetRef:
        - {parameter: caCert, name: {{ $secret }}, key: ca.crt}
        - {parameter: tlsClientCert, name: {{ $secret }}, key: tls.crt}
        - {parameter: tlsClientKey, name: {{ $secret }}, key: tls.key}
  {{- end }}
  - apiVersion: keda.sh/v1alpha1
    kind: ScaledObject
    metadata:
      name: {{ $name }}
      labels:
        {{- include "codealign.labels" . | nindent 8 }}
    spec:
      scaleTargetRef:
        {{- toYaml (merge (default (dict) .target) (dict "name" $name)) | nindent 8 }}
      minReplicaCount: {{ .scaling.min }}
      maxReplicaCount: {{ .scaling.max }}
      pollingInterval: {{ .scaling.pollingSeconds }}
      cooldownPeriod: {{ .scaling.cooldownSeconds }}
      advanced:
        horizontalPodAutoscalerConfig:
          behavior:
            {{- include "codealign.scalingBehavior" .scaling | nindent 12 }}
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
          {{- end }}
{{- end -}}

{{- define "codealign.kedaSecret" -}}
{{- include "codealign.component" (dict "root" . "component" "keda") }}-tls
{{- end -}}

{{/* Variable of pods that KEDA scales, which makes KEDA wait for its certificate: it connects to no gateway before it can
resolve the variables of the pods. Without the certificate, which cert-manager issues after the installation, it would
connect without TLS, and keep that connection. The value is a public certificate: (dict "root" $ "scaling" {..}) */}}
{{- define "codealign.kedaEnv" -}}
{{- if and (eq .scaling.mode "keda") (eq .root.Values.tls.mode "certManager") }}
- name: KEDA_AUTHORITY
  valueFrom: {secretKeyRef: {name: {{ include "codealign.kedaSecret" .root }}, key: ca.crt}}
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
