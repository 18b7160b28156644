{{/* Settings of each service's pod: `codealign.<service>.env`, `.envFrom`, `.volumes`, `.mounts`, `.init`. */}}

{{/* The dataset service */}}

{{- define "codealign.databaseUrl" -}}
valueFrom:
  secretKeyRef:
    {{- if .Values.postgresql.enabled }}
    name: {{ include "codealign.component" (dict "root" . "component" "postgresql") }}
    key: url
    {{- else if .Values.externalDatabase.existingSecret }}
    name: {{ .Values.externalDatabase.existingSecret }}
    key: {{ .Values.externalDatabase.key }}
    {{- else }}
    name: {{ include "codealign.fullname" . }}-database
    key: url
    {{- end }}
{{- end -}}

{{- define "codealign.dataset.env" -}}
- {name: CODEALIGN_DATASET_DATA_DIR, value: /var/lib/codealign/data}
- {name: CODEALIGN_DATASET_VERSIONS_URL, value: {{ default "/var/lib/codealign/artifacts/versions" .Values.dataset.versionsUrl | quote }}}
- name: CODEALIGN_DATASET_DATABASE_URL
  {{- include "codealign.databaseUrl" . | nindent 2 }}
{{ include "codealign.s3Env" . }}
{{- end -}}

{{- define "codealign.dataset.volumes" -}}
- {name: data, emptyDir: {}}
{{- if not .Values.dataset.versionsUrl }}
- {name: artifacts, persistentVolumeClaim: {claimName: {{ include "codealign.artifactsClaim" . }}}}
{{- end }}
{{- end -}}

{{- define "codealign.dataset.mounts" -}}
- {name: data, mountPath: /var/lib/codealign/data}
{{- if not .Values.dataset.versionsUrl }}
- {name: artifacts, mountPath: /var/lib/codealign/artifacts}
{{- end }}
{{- end -}}

{{/* Migrates the schema before the service starts, after waiting for the database. Concurrent migrations wait for each
other. */}}
{{- define "codealign.dataset.init" -}}
- name: migrate
  image: {{ include "codealign.image" (dict "root" . "image" .Values.dataset.image) }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command:
    - /bin/sh
    - -c
    - |
      tried=0
      until python3 -P -m codealign.dataset.main migrate; do
        tried=$((tried + 1))
        [ "$tried" -lt 30 ] || exit 1
        sleep 2
      done
  env:
    - {name: CODEALIGN_DATASET_DATA_DIR, value: /var/lib/codealign/data}
    - {name: CODEALIGN_DATASET_LOG_LEVEL, value: {{ .Values.log.level }}}
    - {name: CODEALIGN_DATASET_LOG_FORMAT, value: {{ .Values.log.format }}}
    - name: CODEALIGN_DATASET_DATABASE_URL
      {{- include "codealign.databaseUrl" . | nindent 6 }}
  terminationMessagePolicy: FallbackToLogsOnError
  resources:
    {{- toYaml .Values.dataset.resources | nindent 4 }}
  securityContext:
    {{- include "codealign.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: data, mountPath: /var/lib/codealign/data}
    - {name: tmp, mountPath: /tmp}
{{- end -}}

{{/* The coordinator */}}

{{- define "codealign.coordinator.env" -}}
{{- range $name, $component := dict "DATASET" "dataset" "INFERENCE" "inference" "SANDBOX" "sandbox" "TRAINING" "trainer" }}
- {name: CODEALIGN_COORDINATOR_{{ $name }}_ADDRESS, value: {{ include "codealign.address" (dict "root" $ "component" $component) | quote }}}
{{- end }}
{{ include "codealign.clientEnv" (dict "root" . "names" (list "CODEALIGN_COORDINATOR_CLIENT_CA_FILE" "CODEALIGN_COORDINATOR_CLIENT_CERT_FILE" "CODEALIGN_COORDINATOR_CLIENT_KEY_FILE")) }}
{{ include "codealign.hubEnv" . }}
{{- end -}}

{{- define "codealign.coordinator.volumes" -}}
- {name: cache, emptyDir: {}}
{{- end -}}

{{- define "codealign.coordinator.mounts" -}}
- {name: cache, mountPath: /var/cache/codealign}
{{- end -}}

{{/* The sandbox gateway */}}

{{- define "codealign.sandbox.env" -}}
{{- $runners := include "codealign.component" (dict "root" . "component" "runners") -}}
- {name: CODEALIGN_SANDBOX_BACKEND, value: grpc}
- {name: CODEALIGN_SANDBOX_RUNNER_TARGET, value: "dns:///{{ $runners }}:7410"}
- {name: CODEALIGN_SANDBOX_SLOTS, value: {{ .Values.runners.slots | quote }}}
- {name: CODEALIGN_SANDBOX_CACHE_DIR, value: /tmp/codealign}
{{- if ne .Values.tls.mode "disabled" }}
- {name: CODEALIGN_SANDBOX_RUNNER_TLS_NAME, value: {{ $runners }}}
{{- end }}
{{ include "codealign.clientEnv" (dict "root" . "names" (list "CODEALIGN_SANDBOX_RUNNER_TLS_CA_FILE" "CODEALIGN_SANDBOX_RUNNER_TLS_CERT_FILE" "CODEALIGN_SANDBOX_RUNNER_TLS_KEY_FILE")) }}
{{- end -}}

{{- define "codealign.sandbox.volumes" -}}{{- end -}}
{{- define "codealign.sandbox.mounts" -}}{{- end -}}

{{/* Inference: see _inference.tpl. */}}

{{/* Training: the service, the operator and the training pods mount the same files at the same paths; with
trainer.artifactsUrl, each of them has its own disk there. */}}

{{/* Location of cached models: `shared` on the model cache volume, `own` in an emptyDir, or with the artifacts. With
artifacts on S3, a ReadWriteOnce cache is not used, since it would tie the pods to one node. */}}
{{- define "codealign.trainingCacheKind" -}}
{{- $cache := .Values.modelCache -}}
{{- if not .Values.trainer.artifactsUrl -}}
{{ ternary "shared" "artifacts" $cache.persistent }}
{{- else -}}
{{ ternary "shared" "own" (and $cache.persistent (has "ReadWriteMany" $cache.accessModes)) }}
{{- end -}}
{{- end -}}

{{- define "codealign.trainingCache" -}}
{{ ternary "/var/lib/codealign/artifacts/cache" "/var/cache/codealign" (eq (include "codealign.trainingCacheKind" .) "artifacts") }}
{{- end -}}

{{- define "codealign.trainingDevice" -}}
{{ ternary "cuda" "cpu" (gt (int .Values.trainer.workers.gpu.count) 0) }}
{{- end -}}

{{/* Settings of both service and operator: (dict "root" $ "prefix" "CODEALIGN_TRAINER_"). */}}
{{- define "codealign.trainingEnv" -}}
- {name: {{ .prefix }}NAMESPACE, value: {{ .root.Release.Namespace }}}
- {name: {{ .prefix }}DEVICE, value: {{ include "codealign.trainingDevice" .root }}}
- {name: {{ .prefix }}DATA_DIR, value: /var/lib/codealign/artifacts/training}
{{- with .root.Values.trainer.artifactsUrl }}
- {name: {{ $.prefix }}ARTIFACTS_URL, value: {{ . | quote }}}
{{- end }}
- {name: {{ .prefix }}CACHE_DIR, value: {{ include "codealign.trainingCache" .root }}}
- {name: {{ .prefix }}DATASET_ADDRESS, value: {{ include "codealign.address" (dict "root" .root "component" "dataset") | quote }}}
{{ include "codealign.clientEnv" (dict "root" .root "names" (list (print .prefix "CLIENT_CA_FILE") (print .prefix "CLIENT_CERT_FILE") (print .prefix "CLIENT_KEY_FILE"))) }}
{{ include "codealign.hubEnvAt" (dict "root" .root "cache" (include "codealign.trainingCache" .root)) }}
{{ include "codealign.s3Env" .root }}
{{- end -}}

{{- define "codealign.trainer.env" -}}
- {name: CODEALIGN_TRAINER_BACKEND, value: kubernetes}
{{ include "codealign.trainingEnv" (dict "root" . "prefix" "CODEALIGN_TRAINER_") }}
{{- end -}}

{{- define "codealign.trainer.volumes" -}}
{{- $kind := include "codealign.trainingCacheKind" . }}
{{- if eq $kind "shared" }}
{{ include "codealign.cacheVolume" . }}
{{- else if eq $kind "own" }}
- {name: cache, emptyDir: {}}
{{- end }}
{{- if .Values.trainer.artifactsUrl }}
- {name: scratch, emptyDir: {}}
{{- else }}
- {name: artifacts, persistentVolumeClaim: {claimName: {{ include "codealign.artifactsClaim" . }}}}
{{- end }}
{{- end -}}

{{- define "codealign.trainer.mounts" -}}
{{- if ne (include "codealign.trainingCacheKind" .) "artifacts" }}
- {name: cache, mountPath: /var/cache/codealign}
{{- end }}
- {name: {{ ternary "scratch" "artifacts" (not (empty .Values.trainer.artifactsUrl)) }}, mountPath: /var/lib/codealign/artifacts}
{{- end -}}
