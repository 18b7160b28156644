{{/* PodTemplateSpec of the training pods. The operator adds command, variables, labels and the restart policy. The pods
have no certificate and no cluster token: they can only access the volume or S3, and the hub if they download models. */}}
{{- define "codealign.trainingPod" -}}
{{- $values := .Values.trainer.workers -}}
{{- $at := dict "root" $ "component" "training-worker" "values" $values -}}
metadata:
  labels:
    {{- include "codealign.selector" $at | nindent 4 }}
    app.kubernetes.io/part-of: codealign
  annotations:
    kubectl.kubernetes.io/default-container: trainer
spec:
  serviceAccountName: {{ include "codealign.component" $at }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: 15
  {{- include "codealign.pullSecrets" $ | nindent 2 }}
  {{- include "codealign.placement" $at | nindent 2 }}
  securityContext:
    {{- include "codealign.podSecurity" (dict "uid" 65532) | nindent 4 }}
  containers:
    - name: trainer
      image: {{ include "codealign.image" (dict "root" $ "image" .Values.trainer.image) }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      env:
        {{- include "codealign.s3Env" $ | nindent 8 }}
        {{- if .Values.trainer.artifactsUrl }}
        {{- include "codealign.hubEnvAt" (dict "root" $ "cache" (include "codealign.trainingCache" $)) | nindent 8 }}
        {{- end }}
        {{- with $values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .Values.s3.existingSecret }}
      envFrom:
        - secretRef: {name: {{ . }}}
      {{- end }}
      terminationMessagePolicy: FallbackToLogsOnError
      resources:
        {{- include "codealign.resources" $at | nindent 8 }}
      securityContext:
        {{- include "codealign.containerSecurity" $ | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        - {name: shm, mountPath: /dev/shm}
        {{- include "codealign.trainer.mounts" $ | nindent 8 }}
        {{- with $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - {name: tmp, emptyDir: {}}
    - {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ $values.sharedMemory }}}}
    {{- include "codealign.trainer.volumes" $ | nindent 4 }}
    {{- with $values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
