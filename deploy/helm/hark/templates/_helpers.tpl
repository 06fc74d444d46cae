{{- define "hark.labels" -}}
app.kubernetes.io/name: hark
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Which pods: a list of the root and "web" or "worker". */}}
{{- define "hark.selector" -}}
app.kubernetes.io/name: hark
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "hark.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* What doesn't go together is told before anything is installed. */}}
{{- define "hark.check" -}}
{{- if .Values.database.existingSecret }}
{{- if not .Values.redis.existingSecret }}{{ fail "with database.existingSecret set redis.existingSecret too" }}{{ end }}
{{- if not .Values.recordings.url }}{{ fail "with database.existingSecret set recordings.url too: pods share no folder" }}{{ end }}
{{- else if gt (int .Values.web.replicas) 1 }}{{ fail "more than one pod that serves needs database.existingSecret" }}
{{- end }}
{{- end }}

{{- define "hark.env" -}}
# A folder of its own within the volume, which nobody else may enter.
- name: HARK_DATA_DIR
  value: /var/lib/hark/data
{{- with .Values.database.existingSecret }}
- name: DATABASE_URL
  valueFrom: { secretKeyRef: { name: {{ . }}, key: DATABASE_URL } }
{{- end }}
{{- with .Values.redis.existingSecret }}
- name: REDIS_URL
  valueFrom: { secretKeyRef: { name: {{ . }}, key: REDIS_URL } }
{{- end }}
{{- with .Values.secret.existingSecret }}
- name: HARK_SECRET
  valueFrom: { secretKeyRef: { name: {{ . }}, key: HARK_SECRET } }
{{- end }}
{{- with .Values.recordings.url }}
- name: HARK_RECORDINGS_URL
  value: {{ . | quote }}
- name: AWS_REGION
  value: {{ $.Values.recordings.region | quote }}
{{- end }}
{{- with .Values.recordings.endpoint }}
- name: AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.recordings.existingSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: { secretKeyRef: { name: {{ . }}, key: AWS_ACCESS_KEY_ID } }
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: { secretKeyRef: { name: {{ . }}, key: AWS_SECRET_ACCESS_KEY } }
{{- end }}
{{- range $name, $value := .Values.env }}
{{- if ne (toString $value) "" }}
- name: {{ $name }}
  {{- /* Helm reads every number of a file as one with a fraction, and would write a million as 1e+06. */}}
  value: {{ if and (kindIs "float64" $value) (eq $value (floor $value)) }}{{ int64 $value | quote }}{{ else }}{{ $value | quote }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "hark.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "hark.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}
