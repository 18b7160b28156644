{{/* Pods of inference workers. */}}

{{/* Pod template of a worker: the server with the engine or, if the model spans nodes, the server beside vLLM's own. */}}
{{- define "codealign.inference.workerPod" -}}
{{- $at := dict "root" $ "component" "inference-workers" -}}
{{- $name := include "codealign.component" $at -}}
{{- $values := .Values.inference -}}
{{- $workers := $values.workers -}}
{{- $spans := gt (int $workers.nodes) 1 -}}
{{- $spread := dict "root" $ "component" "inference-workers" "values" $workers -}}
{{- $engine := dict "root" $ "component" "inference-workers" "values" $values -}}
metadata:
  labels:
    {{- include "codealign.labels" $at | nindent 4 }}
  annotations:
    kubectl.kubernetes.io/default-container: inference
    {{- include "codealign.podAnnotations" $ | nindent 4 }}
spec:
  serviceAccountName: {{ $name }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with $workers.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- /* The drain, at whose end unfinished samples are handed back, and the time to close. */}}
  terminationGracePeriodSeconds: {{ add $values.drainSeconds 25 }}
  {{- include "codealign.pullSecrets" $ | nindent 2 }}
  {{- include "codealign.placement" $engine | nindent 2 }}
  {{- include "codealign.spread" $spread | nindent 2 }}
  securityContext:
    {{- include "codealign.podSecurity" (dict "uid" 65532) | nindent 4 }}
  containers:
    - name: inference
      image: {{ include "codealign.image" (dict "root" $ "image" $values.image) }}
      imagePullPolicy: {{ $.Values.image.pullPolicy }}
      env:
        {{- include "codealign.serverEnv" (dict "root" $ "prefix" "CODEALIGN_INFERENCE_" "port" 7400 "drain" $values.drainSeconds) | nindent 8 }}
        {{- include "codealign.tracingEnv" $ | nindent 8 }}
        {{- include "codealign.kedaEnv" (dict "root" $ "scaling" $workers.scaling) | nindent 8 }}
        - {name: CODEALIGN_INFERENCE_WORKER_OF_GATEWAY, value: "true"}
        {{- if $spans }}
        - {name: CODEALIGN_INFERENCE_ENGINE, value: vllm-grpc}
        - {name: CODEALIGN_INFERENCE_VLLM_GRPC_ADDRESS, value: "127.0.0.1:50051"}
        - {name: CODEALIGN_INFERENCE_VLLM_GRPC_TOKENIZER, value: {{ $values.model | quote }}}
        - {name: CODEALIGN_INFERENCE_CACHE_DIR, value: /var/cache/codealign}
        {{- include "codealign.hubEnv" $ | nindent 8 }}
        {{- include "codealign.s3Env" $ | nindent 8 }}
        {{- else }}
        - {name: CODEALIGN_INFERENCE_ENGINE, value: {{ $values.engine }}}
        {{- include "codealign.inference.engineEnv" (dict "root" $ "tensorParallel" (include "codealign.inference.tensorParallel" $)) | nindent 8 }}
        {{- end }}
        {{- include "codealign.settingsEnv" (dict "prefix" "CODEALIGN_INFERENCE_" "settings" (include "codealign.inference.workerSettings" $ | fromYaml)) | nindent 8 }}
        {{- with $values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- if $.Values.s3.existingSecret }}
      envFrom:
        - secretRef: {name: {{ $.Values.s3.existingSecret }}}
      {{- end }}
      ports:
        - {name: grpc, containerPort: 7400}
        - {name: health, containerPort: 7401}
        - {name: metrics, containerPort: 7402}
      {{- include "codealign.probes" (dict "health" 7401 "start" $values.startSeconds "startService" "readiness") | nindent 6 }}
      terminationMessagePolicy: FallbackToLogsOnError
      resources:
        {{- if $spans }}
        {{- toYaml $workers.gateway.resources | nindent 8 }}
        {{- else }}
        {{- include "codealign.resources" $engine | nindent 8 }}
        {{- end }}
      securityContext:
        {{- include "codealign.containerSecurity" $ | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- if ne $.Values.tls.mode "disabled" }}
        - {name: tls, mountPath: /etc/codealign/tls, readOnly: true}
        {{- end }}
        {{- include "codealign.inference.engineMounts" $ | nindent 8 }}
        {{- with $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- if $spans }}
    {{- include "codealign.inference.vllm" (dict "root" $ "leads" true) | nindent 4 }}
    {{- end }}
  volumes:
    - {name: tmp, emptyDir: {}}
    {{- if ne $.Values.tls.mode "disabled" }}
    - {name: tls, secret: {secretName: {{ $name }}-tls, defaultMode: 0440}}
    {{- end }}
    {{- include "codealign.inference.workerCache" $ | nindent 4 }}
    {{- include "codealign.inference.engineVolumes" $ | nindent 4 }}
    {{- with $values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* A model that spans nodes: each worker is a group of pods, of which the first has the server. */}}
{{- define "codealign.inference.workerGroups" -}}
{{- $at := dict "root" $ "component" "inference-workers" -}}
{{- $node := dict "root" $ "component" "inference-nodes" -}}
{{- $values := .Values.inference -}}
{{- $workers := $values.workers -}}
{{- $scaling := $workers.scaling -}}
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata:
  {{- /* LeaderWorkerSet makes a headless Service of this name, which must not be that of the workers. */}}
  name: {{ include "codealign.component" $node }}
  labels:
    {{- include "codealign.labels" $node | nindent 4 }}
spec:
  {{- if eq $scaling.mode "fixed" }}
  replicas: {{ $scaling.max }}
  {{- end }}
  startupPolicy: LeaderCreated
  rolloutStrategy:
    type: RollingUpdate
    rollingUpdateConfiguration: {maxSurge: 0, maxUnavailable: {{ $workers.maxUnavailable }}}
  leaderWorkerTemplate:
    size: {{ $workers.nodes }}
    {{- /* A part of the model without the others is of no use. */}}
    restartPolicy: RecreateGroupOnPodRestart
    leaderTemplate:
      {{- include "codealign.inference.workerPod" $ | nindent 6 }}
    workerTemplate:
      metadata:
        labels:
          {{- include "codealign.labels" $node | nindent 10 }}
        annotations:
          kubectl.kubernetes.io/default-container: vllm
      spec:
        serviceAccountName: {{ include "codealign.component" $at }}
        automountServiceAccountToken: false
        enableServiceLinks: false
        {{- with $workers.priorityClassName }}
        priorityClassName: {{ . }}
        {{- end }}
        {{- /* The leader drains; the others must not stop before it. */}}
        terminationGracePeriodSeconds: {{ add $values.drainSeconds 25 }}
        {{- include "codealign.pullSecrets" $ | nindent 8 }}
        {{- include "codealign.placement" (dict "root" $ "component" "inference-nodes" "values" $values) | nindent 8 }}
        securityContext:
          {{- include "codealign.podSecurity" (dict "uid" 65532) | nindent 10 }}
        containers:
          {{- include "codealign.inference.vllm" (dict "root" $ "leads" false) | nindent 10 }}
        volumes:
          - {name: tmp, emptyDir: {}}
          {{- include "codealign.inference.workerCache" $ | nindent 10 }}
          {{- include "codealign.inference.engineVolumes" $ | nindent 10 }}
          {{- with $values.extraVolumes }}
          {{- toYaml . | nindent 10 }}
          {{- end }}
{{- end -}}

{{/* vLLM on one node of a group: (dict "root" $ "leads" true). LeaderWorkerSet sets the LWS_ variables. */}}
{{- define "codealign.inference.vllm" -}}
{{- $values := .root.Values.inference -}}
{{- $workers := $values.workers -}}
- name: vllm
  image: {{ include "codealign.image" (dict "root" .root "image" $values.image) }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command: [vllm, serve, {{ $values.model | quote }}]
  args:
    - --served-model-name={{ $values.model }}
    - --tensor-parallel-size={{ include "codealign.inference.tensorParallel" .root }}
    - --pipeline-parallel-size={{ $workers.pipelineParallel }}
    - --nnodes=$(LWS_GROUP_SIZE)
    - --node-rank=$(LWS_WORKER_INDEX)
    - --master-addr=$(LWS_LEADER_ADDRESS)
    - --enable-prefix-caching
    - --generation-config=vllm
    {{- with $values.settings.max_context }}
    - --max-model-len={{ int . }}
    {{- end }}
    {{- with $values.settings.slots }}
    - --max-num-seqs={{ int . }}
    {{- end }}
    {{- range $name, $value := $values.settings.vllm_args }}
    {{- $flag := printf "--%s" (replace "_" "-" $name) }}
    {{- if kindIs "bool" $value }}
    - {{ ternary $flag (printf "--no-%s" (trimPrefix "--" $flag)) $value }}
    {{- else if kindIs "string" $value }}
    - {{ printf "%s=%s" $flag $value | quote }}
    {{- else }}
    - {{ printf "%s=%s" $flag (toJson $value) | quote }}
    {{- end }}
    {{- end }}
    {{- if .leads }}
    {{- /* vLLM has no authentication: only the server beside it may call it. */}}
    - --host=127.0.0.1
    - --grpc-port=50051
    {{- else }}
    - --headless
    {{- end }}
  env:
    - {name: HOME, value: /tmp}
    - {name: VLLM_NO_USAGE_STATS, value: "1"}
    {{- if .leads }}
    - {name: VLLM_USE_RUST_FRONTEND, value: "1"}
    {{- end }}
    {{- include "codealign.hubEnv" .root | nindent 4 }}
    {{- include "codealign.s3Env" .root | nindent 4 }}
    {{- with $values.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .root.Values.s3.existingSecret }}
  envFrom:
    - secretRef: {name: {{ . }}}
  {{- end }}
  terminationMessagePolicy: FallbackToLogsOnError
  {{- if .leads }}
  {{- /* All containers of a pod are stopped together. Requests in progress need vLLM until the server beside it has
  drained, whose health port closes last. */}}
  lifecycle:
    preStop:
      exec:
        command:
          - python3
          - -c
          - |
            import socket, time
            end = time.monotonic() + {{ add $values.drainSeconds 20 }}
            try:
                while time.monotonic() < end:
                    socket.create_connection(("127.0.0.1", 7401), 5).close()
                    time.sleep(1)
            except OSError:
                pass
  {{- end }}
  resources:
    {{- include "codealign.resources" (dict "root" .root "component" "inference" "values" $values) | nindent 4 }}
  securityContext:
    {{- include "codealign.containerSecurity" .root | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    {{- include "codealign.inference.engineMounts" .root | nindent 4 }}
    {{- with $values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
