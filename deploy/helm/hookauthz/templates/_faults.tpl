{{- /* What cannot be meant, all of it at once. The schema says what a value may look like; here is what must hold between them. */ -}}
{{- define "hookauthz.faults" -}}
{{- $v := .Values -}}
{{- $shared := include "hookauthz.shared" . -}}
{{- $faults := list -}}
{{- if not $v.image.repository -}}
{{- $faults = append $faults "image.repository is missing: name the repository to which you pushed the image" -}}
{{- end -}}
{{- if and (not $v.policies.files) (not $v.policies.existingConfigMap) -}}
{{- $faults = append $faults "there are no policies: write them in policies.files, or name a ConfigMap in policies.existingConfigMap" -}}
{{- else if and $v.policies.files $v.policies.existingConfigMap -}}
{{- $faults = append $faults "policies.files and policies.existingConfigMap are both there: leave one of them out" -}}
{{- end -}}
{{- $names := list -}}
{{- range $v.secrets -}}
{{- if has .name $names -}}
{{- $faults = append $faults (printf "secrets: %q is there twice: each name is a folder of its own" .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- if and (include "hookauthz.many" .) (not $shared) -}}
{{- $what := ternary "autoscaling" (printf "replicaCount %d" (int $v.replicaCount)) $v.autoscaling.enabled -}}
{{- $faults = append $faults (printf "%s needs a store that the replicas share: with store.url memory a replay passes at the next replica, and each has limits of its own. Write store.url rediss://HOST:6379/0, or run one replica" $what) -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) -}}
{{- $faults = append $faults "autoscaling.minReplicas is more than autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (not (dig "requests" "cpu" "" $v.resources)) -}}
{{- $faults = append $faults "autoscaling goes by a share of resources.requests.cpu, which is missing" -}}
{{- end -}}
{{- if not $shared -}}
{{- if $v.store.passwordSecret.name -}}{{- $faults = append $faults "store.passwordSecret is for a shared store, and store.url is memory" -}}{{- end -}}
{{- if $v.store.ca.secretName -}}{{- $faults = append $faults "store.ca is for a shared store, and store.url is memory" -}}{{- end -}}
{{- else -}}
{{- if regexMatch "^rediss?://[^/@]*:[^/@]*@" $v.store.url -}}
{{- $faults = append $faults "store.url holds a password, which everybody who may look at the Deployment would read: put it in a Secret and name that in store.passwordSecret" -}}
{{- end -}}
{{- if and $v.store.ca.secretName (hasPrefix "redis:" $v.store.url) -}}
{{- $faults = append $faults "store.ca needs TLS: write store.url rediss://..." -}}
{{- end -}}
{{- if and $v.networkPolicy.enabled (not $v.networkPolicy.store) -}}
{{- $faults = append $faults "networkPolicy.store names nobody, so the store cannot be reached: say where it is, by a podSelector, a namespaceSelector or an ipBlock" -}}
{{- end -}}
{{- end -}}
{{- if and $v.data.existingClaim (include "hookauthz.many" .) -}}
{{- $faults = append $faults "data.existingClaim is for one replica: each writes files of its own. Leave it out, and let the store keep incident actions" -}}
{{- end -}}
{{- if eq $v.listener.mode "mtls" -}}
{{- if not $v.listener.tls.secretName -}}
{{- $faults = append $faults "listener.tls.secretName is missing: mode mtls needs a Secret with tls.crt, tls.key and ca.crt (or use mode uds, or insecure where a mesh secures the way)" -}}
{{- end -}}
{{- if not $v.listener.clientSANs -}}
{{- $faults = append $faults "listener.clientSANs is empty: every certificate of the authority could ask. Name those of Envoy's" -}}
{{- end -}}
{{- end -}}
{{- if eq $v.listener.mode "uds" -}}
{{- if and (not $v.envoy.config) (not $v.envoy.existingConfigMap) -}}
{{- $faults = append $faults "envoy.config is missing: mode uds runs an Envoy in the pod, whose configuration `hookauthz envoy render --authz unix:/run/hookauthz/authz.sock` writes (or name a ConfigMap in envoy.existingConfigMap)" -}}
{{- else if and $v.envoy.config $v.envoy.existingConfigMap -}}
{{- $faults = append $faults "envoy.config and envoy.existingConfigMap are both there: leave one of them out" -}}
{{- end -}}
{{- if not $v.envoy.tls.secretName -}}
{{- $faults = append $faults "envoy.tls.secretName is missing: senders need a certificate to see" -}}
{{- end -}}
{{- if and $v.networkPolicy.enabled (not $v.networkPolicy.upstream) -}}
{{- $faults = append $faults "networkPolicy.upstream names nobody, so Envoy cannot reach the application: say where it is" -}}
{{- end -}}
{{- else -}}
{{- if and $v.networkPolicy.enabled (not $v.networkPolicy.envoy) -}}
{{- $faults = append $faults "networkPolicy.envoy names nobody, so no Envoy could ask: say where they are, by a namespaceSelector or a podSelector" -}}
{{- end -}}
{{- if ne $v.service.type "ClusterIP" -}}
{{- $faults = append $faults (printf "service.type %s: nobody outside the cluster has business with hookauthz itself; senders reach Envoy" $v.service.type) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.listener.mode "insecure") (not $v.networkPolicy.enabled) -}}
{{- $faults = append $faults "listener.mode insecure with networkPolicy.enabled false: whoever reaches the pod could spend limits and probe secrets. Leave the network policy on" -}}
{{- end -}}
{{- if and $v.networkPolicy.enabled $v.serviceMonitor.enabled (not $v.networkPolicy.prometheus) -}}
{{- $faults = append $faults "networkPolicy.prometheus names nobody, so the ServiceMonitor would find nothing: say where Prometheus is" -}}
{{- end -}}
{{- if and $v.prometheusRule.enabled (not $v.prometheusRule.rules) -}}
{{- $faults = append $faults "prometheusRule.rules is empty: give the file, --set-file prometheusRule.rules=deploy/prometheus/rules.yaml" -}}
{{- end -}}
{{- range $v.extraVolumeMounts -}}
{{- if and (ne .mountPath "/vault/secrets") (regexMatch "^/(etc/hookauthz|run/hookauthz|var/cache/hookauthz|var/lib/hookauthz)" .mountPath) -}}
{{- $faults = append $faults (printf "extraVolumeMounts: %s is the chart's own" .mountPath) -}}
{{- end -}}
{{- end -}}
{{- if $faults -}}
{{- fail (printf "\n  %s\n" (join "\n  " $faults)) -}}
{{- end -}}
{{- end -}}
