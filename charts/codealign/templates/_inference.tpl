{{/* Settings of inference pods. The service is one pod with the engine, or a gateway without one over workers. */}}

{{- define "codealign.inference.env" -}}
{{- if .Values.inference.workers.enabled -}}
{{ include "codealign.inference.modelEnv" . }}
{{ include "codealign.inference.gatewayEnv" . }}
{{- else -}}
{{ include "codealign.inference.modelEnv" . }}
{{ include "codealign.inference.engineEnv" (dict "root" . "tensorParallel" .Values.inference.gpu.count) }}
{{- end -}}
{{- end -}}

{{/* Which model is served by which engine. */}}
{{- define "codealign.inference.modelEnv" -}}
- {name: CODEALIGN_INFERENCE_ENGINE, value: {{ .Values.inference.engine }}}
- {name: CODEALIGN_INFERENCE_MODEL, value: {{ ternary "/opt/codealign/nano/model" .Values.inference.model (eq .Values.inference.model "nano") | quote }}}
{{- $name := ternary (default "nano" .Values.inference.modelName) .Values.inference.modelName (eq .Values.inference.model "nano") }}
{{- if $name }}
- {name: CODEALIGN_INFERENCE_MODEL_NAME, value: {{ $name | quote }}}
{{- end }}
{{- end -}}

{{/* What runs the model: (dict "root" $ "tensorParallel" <GPUs>). */}}
{{- define "codealign.inference.engineEnv" -}}
{{- $values := .root.Values.inference -}}
- {name: CODEALIGN_INFERENCE_CACHE_DIR, value: /var/cache/codealign}
{{- if and $values.gpu.count (eq $values.engine "vllm") }}
- {name: CODEALIGN_INFERENCE_VLLM_TENSOR_PARALLEL, value: {{ .tensorParallel | quote }}}
{{- end }}
{{- if eq $values.engine "vllm-grpc" }}
- {name: CODEALIGN_INFERENCE_VLLM_GRPC_ADDRESS, value: {{ $values.vllmGrpc.address | quote }}}
{{- with $values.vllmGrpc.tokenizer }}
- {name: CODEALIGN_INFERENCE_VLLM_GRPC_TOKENIZER, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- if eq $values.engine "openai" }}
- {name: CODEALIGN_INFERENCE_OPENAI_BASE_URL, value: {{ $values.openai.baseUrl | quote }}}
{{- with $values.openai.existingSecret }}
- name: CODEALIGN_INFERENCE_OPENAI_API_KEY
  valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $values.openai.key }}}}
{{- end }}
{{- end }}
{{ include "codealign.hubEnv" .root }}
{{ include "codealign.s3Env" .root }}
{{- end -}}

{{/* The gateway knows the model's name and source; workers load it. */}}
{{- define "codealign.inference.gatewayEnv" -}}
{{- $workers := include "codealign.component" (dict "root" . "component" "inference-workers") -}}
- {name: CODEALIGN_INFERENCE_WORKER_TARGET, value: "dns:///{{ $workers }}:7400"}
- {name: CODEALIGN_INFERENCE_CACHE_DIR, value: /tmp/codealign}
{{- if ne .Values.tls.mode "disabled" }}
- {name: CODEALIGN_INFERENCE_WORKER_TLS_NAME, value: {{ $workers }}}
{{- end }}
{{ include "codealign.clientEnv" (dict "root" . "names" (list "CODEALIGN_INFERENCE_WORKER_TLS_CA_FILE" "CODEALIGN_INFERENCE_WORKER_TLS_CERT_FILE" "CODEALIGN_INFERENCE_WORKER_TLS_KEY_FILE")) }}
{{- end -}}

{{/* Values of the gateway's pods, as YAML. Workers that start on demand take as long as their model takes to load; until
then samples wait. */}}
{{- define "codealign.inference.gateway" -}}
{{- $values := .Values.inference -}}
{{- $gateway := deepCopy $values.workers.gateway -}}
{{- if and (eq $values.workers.scaling.mode "keda") (not (hasKey $gateway.settings "worker_wait_seconds")) -}}
{{- $_ := set $gateway.settings "worker_wait_seconds" $values.startSeconds -}}
{{- end -}}
{{- $_ := set $gateway "drainSeconds" $values.drainSeconds -}}
{{- toYaml $gateway -}}
{{- end -}}

{{- define "codealign.inference.volumes" -}}
{{- if not .Values.inference.workers.enabled -}}
{{ include "codealign.cacheVolume" . }}
{{ include "codealign.inference.engineVolumes" . }}
{{- end -}}
{{- end -}}

{{- define "codealign.inference.mounts" -}}
{{- if not .Values.inference.workers.enabled -}}
{{ include "codealign.inference.engineMounts" . }}
{{- end -}}
{{- end -}}

{{- define "codealign.inference.engineVolumes" -}}
{{- if not .Values.trainer.artifactsUrl }}
- {name: artifacts, persistentVolumeClaim: {claimName: {{ include "codealign.artifactsClaim" . }}}}
{{- end }}
- {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ .Values.inference.sharedMemory }}}}
{{- end -}}

{{/* Trained models are loaded from this volume, or from S3 through inference's cache. */}}
{{- define "codealign.inference.engineMounts" -}}
- {name: cache, mountPath: /var/cache/codealign}
{{- if not .Values.trainer.artifactsUrl }}
- {name: artifacts, mountPath: /var/lib/codealign/artifacts, readOnly: true}
{{- end }}
- {name: shm, mountPath: /dev/shm}
{{- end -}}

{{/* Workers */}}

{{/* GPUs that share a layer: those of a worker on all its nodes, divided by pipeline stages and copies. */}}
{{- define "codealign.inference.tensorParallel" -}}
{{- $values := .Values.inference -}}
{{ max 1 (div (mul (int $values.gpu.count) (int $values.workers.nodes)) (mul (int $values.workers.pipelineParallel) (int $values.workers.dataParallel))) }}
{{- end -}}

{{/* Settings of a worker, as YAML: those of the values, and vLLM's arguments for pipeline stages and copies. */}}
{{- define "codealign.inference.workerSettings" -}}
{{- $values := .Values.inference -}}
{{- $settings := deepCopy $values.settings -}}
{{- $parallel := dict -}}
{{- range $name, $count := dict "pipeline_parallel_size" $values.workers.pipelineParallel "data_parallel_size" $values.workers.dataParallel -}}
{{- if gt (int $count) 1 }}{{ $_ := set $parallel $name (int $count) }}{{ end -}}
{{- end -}}
{{- if gt (int $values.workers.nodes) 1 -}}
{{- /* vLLM's own server has them as flags. */ -}}
{{- $settings = omit $settings "vllm_args" -}}
{{- else if $parallel -}}
{{- $_ := set $settings "vllm_args" (merge (default (dict) $settings.vllm_args) $parallel) -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}

{{- define "codealign.inference.workerCache" -}}
{{- $cache := .Values.inference.workers.cache -}}
{{- if eq $cache.kind "modelCache" -}}
{{ include "codealign.cacheVolume" . }}
{{- else if eq $cache.kind "hostPath" -}}
- {name: cache, hostPath: {path: {{ $cache.path | quote }}, type: Directory}}
{{- else if eq $cache.kind "ephemeral" -}}
- name: cache
  ephemeral:
    volumeClaimTemplate:
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $cache.class }}
        storageClassName: {{ . | quote }}
        {{- end }}
        resources: {requests: {storage: {{ $cache.size }}}}
{{- else -}}
- {name: cache, emptyDir: {}}
{{- end -}}
{{- end -}}

{{/* Whether an inference pod mounts the claim of modelCache. */}}
{{- define "codealign.inference.sharesCache" -}}
{{- $workers := .Values.inference.workers -}}
{{- or (not $workers.enabled) (eq $workers.cache.kind "modelCache") -}}
{{- end -}}
