package test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// confine says what in manifests gives a pod, or others over a pod, more than it needs.
func confine(all []object) (faults []string) {
	for _, o := range all {
		fault := func(format string, args ...any) {
			faults = append(faults, fmt.Sprintf("%s: ", o)+fmt.Sprintf(format, args...))
		}
		switch o["kind"] {
		case "Deployment":
			confinePod(o, all, fault)
		case "ServiceAccount":
			if at(o, "automountServiceAccountToken") != false {
				fault("its token is mounted")
			}
		case "NetworkPolicy":
			confineTraffic(o, all, fault)
		case "Service":
			confineService(o, fault)
		case "ConfigMap":
			for name, content := range o["data"].(map[string]any) {
				if secretText.MatchString(content.(string)) || secretName.MatchString(name) {
					fault("%s holds a secret", name)
				}
			}
		case "Secret":
			fault("a secret is among the manifests")
		}
	}
	return faults
}

var (
	secretName  = regexp.MustCompile(`(?i)secret|token|passw|credential|apikey|headers`)
	secretText  = regexp.MustCompile(`PRIVATE KEY|whsec_|xox[bp]-|(?i)passw(or)?d\s*[:=]\s*\S`)
	exactImage  = regexp.MustCompile(`^[^:@]+(:[^:@]+)?(@sha256:[0-9a-f]{64}|:[^:@/]+)$`)
	safeVolumes = []string{"configMap", "secret", "csi", "projected", "emptyDir", "persistentVolumeClaim"}
)

type report = func(format string, args ...any)

func confinePod(o object, all []object, fault report) {
	pod := at(o, "spec", "template", "spec")
	for _, share := range []string{"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} {
		if v := at(pod, share); v != nil && v != false {
			fault("%s is %v", share, v)
		}
	}
	if at(pod, "automountServiceAccountToken") != false {
		fault("a token of the API server is mounted")
	}
	if at(pod, "enableServiceLinks") != false {
		fault("names of services become variables, some of which may be those of flags")
	}
	if at(pod, "securityContext", "runAsNonRoot") != true {
		fault("it may run as root")
	}
	if got := text(pod, "securityContext", "seccompProfile", "type"); got != "RuntimeDefault" {
		fault("its seccomp profile is %q", got)
	}
	for _, v := range list(pod, "volumes") {
		for kind := range v.(map[string]any) {
			if kind != "name" && !slices.Contains(safeVolumes, kind) {
				fault("volume %s is a %s", text(v, "name"), kind)
			}
		}
	}
	containers := slices.Concat(list(pod, "initContainers"), list(pod, "containers"))
	for _, c := range containers {
		confineContainer(c, func(format string, args ...any) { fault(text(c, "name")+": "+format, args...) })
	}
	confineServe(o, all, fault)
	if len(governing(o, all)) == 0 {
		fault("no NetworkPolicy is for it")
	}
}

func confineContainer(c any, fault report) {
	s := at(c, "securityContext")
	if v := at(s, "privileged"); v != nil && v != false {
		fault("it is privileged")
	}
	if at(s, "allowPrivilegeEscalation") != false {
		fault("it may gain privileges")
	}
	if at(s, "readOnlyRootFilesystem") != true {
		fault("its root file system can be written to")
	}
	if drop := list(s, "capabilities", "drop"); len(drop) != 1 || drop[0] != "ALL" || at(s, "capabilities", "add") != nil {
		fault("it has capabilities")
	}
	if v := at(s, "runAsUser"); v == float64(0) || v == int64(0) || at(s, "runAsNonRoot") == false || at(s, "seccompProfile") != nil {
		fault("it loosens what holds for the pod")
	}
	for _, r := range [][]any{{"requests", "cpu"}, {"requests", "memory"}, {"limits", "memory"}} {
		if at(c, append([]any{"resources"}, r...)...) == nil {
			fault("resources.%s.%s is missing", r...)
		}
	}
	if image := text(c, "image"); !exactImage.MatchString(image) || strings.HasSuffix(image, ":latest") {
		fault("image %q names no version", image)
	}
	for _, e := range list(c, "env") {
		if at(e, "value") != nil && (secretName.MatchString(text(e, "name")) || secretText.MatchString(text(e, "value"))) {
			fault("the variable %s holds a secret", text(e, "name"))
		}
	}
	for _, p := range list(c, "ports") {
		if at(p, "hostPort") != nil {
			fault("it has a port of the node")
		}
	}
	if at(c, "readinessProbe") == nil {
		fault("it has no readiness probe")
	}
}

// confineServe looks at the command line of hookauthz.
func confineServe(o object, all []object, fault report) {
	c := hookauthz(o)
	if c == nil {
		fault("no container is named hookauthz")
		return
	}
	flags := make(map[string]string)
	for _, a := range list(c, "args") {
		name, value, _ := strings.Cut(a.(string), "=")
		flags[name] = value
	}
	_, insecure := flags["--insecure-listen"]
	local := strings.HasPrefix(flags["--listen"], "unix:")
	switch {
	case local && insecure, !local && insecure && flags["--tls-client-ca"] != "":
		fault("--insecure-listen where it is not needed")
	case !local && !insecure && (flags["--tls-cert"] == "" || flags["--tls-key"] == "" || flags["--tls-client-ca"] == "" || flags["--tls-client-san"] == ""):
		fault("--listen %s admits those who show no certificate, or that of anybody", flags["--listen"])
	}
	if flags["--admin"] != "127.0.0.1:9002" {
		fault("--admin %q leaves the pod", flags["--admin"])
	}
	shared := flags["--store"] != "" && flags["--store"] != "memory"
	if replicas, _ := at(o, "spec", "replicas").(float64); !shared && (replicas > 1 || len(ofKind(all, "HorizontalPodAutoscaler")) > 0) {
		fault("its replicas have no store that they share")
	}
	if strings.Contains(flags["--store"], "@") && regexp.MustCompile(`//[^@/]*:[^@/]*@`).MatchString(flags["--store"]) {
		fault("--store holds a password")
	}
	for _, probe := range []string{"startupProbe", "livenessProbe", "readinessProbe"} {
		if got := text(c, probe, "httpGet", "port"); got != "metrics" {
			fault("%s asks at the port %q", probe, got)
		}
	}
	ports := portsOf(o)
	if want := ":" + fmt.Sprint(ports["metrics"]); flags["--metrics"] != want {
		fault("--metrics %q, and the port is %q", flags["--metrics"], want)
	}
	if want := ":" + fmt.Sprint(ports["grpc"]); !local && flags["--listen"] != want {
		fault("--listen %q, and the port is %q", flags["--listen"], want)
	}
}

func hookauthz(deployment object) any {
	for _, c := range list(deployment, "spec", "template", "spec", "containers") {
		if text(c, "name") == "hookauthz" {
			return c
		}
	}
	return nil
}

// portsOf are the ports of a Deployment by their names.
func portsOf(o object) map[string]any {
	ports := make(map[string]any)
	for _, c := range list(o, "spec", "template", "spec", "containers") {
		for _, p := range list(c, "ports") {
			ports[text(p, "name")] = at(p, "containerPort")
		}
	}
	return ports
}

// selects says whether labels that a selector wants are there. One that wants none is refused elsewhere.
func selects(selector any, o object) bool {
	wanted, _ := selector.(map[string]any)
	labels, _ := at(o, "spec", "template", "metadata", "labels").(map[string]any)
	for k, v := range wanted {
		if labels[k] != v {
			return false
		}
	}
	return len(wanted) > 0
}

func governing(deployment object, all []object) []object {
	return slices.DeleteFunc(ofKind(all, "NetworkPolicy"), func(n object) bool {
		return !selects(at(n, "spec", "podSelector", "matchLabels"), deployment)
	})
}

func confineTraffic(n object, all []object, fault report) {
	if got := fmt.Sprint(at(n, "spec", "policyTypes")); got != "[Ingress Egress]" {
		fault("it is for %s", got)
	}
	if at(n, "spec", "podSelector", "matchLabels") == nil {
		fault("it is for every pod of the namespace")
	}
	named := make(map[string]string) // names by number
	for _, d := range ofKind(all, "Deployment") {
		for name, port := range portsOf(d) {
			named[fmt.Sprint(port)] = name
		}
	}
	for _, r := range list(n, "spec", "ingress") {
		if len(list(r, "ports")) == 0 {
			fault("a rule lets in to every port")
		}
		for _, p := range list(r, "ports") {
			name := named[fmt.Sprint(at(p, "port"))]
			if name == "" || at(p, "endPort") != nil {
				fault("it opens the port %v, which is nobody's", at(p, "port"))
			}
			if name != "senders" {
				confinePeers(list(r, "from"), name, fault)
			}
		}
	}
	for _, r := range list(n, "spec", "egress") {
		if len(list(r, "ports")) == 0 {
			fault("a rule lets out to every port")
		}
		for _, p := range list(r, "ports") {
			if at(p, "port") != float64(443) { // addresses that senders publish are fetched from the Internet
				confinePeers(list(r, "to"), fmt.Sprint(at(p, "port")), fault)
			}
		}
	}
}

func confinePeers(peers []any, port string, fault report) {
	if len(peers) == 0 {
		fault("everybody may use %s", port)
	}
	for _, p := range peers {
		if cidr := text(p, "ipBlock", "cidr"); strings.HasSuffix(cidr, "/0") {
			fault("every address may use %s", port)
		}
		m, _ := p.(map[string]any)
		if len(m) == 0 {
			fault("everybody may use %s", port)
		}
		for kind, selector := range m {
			if s, ok := selector.(map[string]any); ok && len(s) == 0 {
				fault("an empty %s may use %s", kind, port)
			}
		}
	}
}

func confineService(s object, fault report) {
	public := text(s, "spec", "type") == "LoadBalancer" || text(s, "spec", "type") == "NodePort"
	for _, p := range list(s, "spec", "ports") {
		target := text(p, "targetPort")
		if !slices.Contains([]string{"grpc", "metrics", "senders"}, target) {
			fault("it leads to %q", target)
		}
		if public && target != "senders" {
			fault("%s can be reached from outside", target)
		}
	}
}

func TestManifestsAreConfined(t *testing.T) {
	pods := 0
	for from, manifests := range everything(t) {
		pods += len(ofKind(manifests, "Deployment"))
		for _, fault := range confine(manifests) {
			t.Errorf("%s: %s", from, fault)
		}
	}
	if pods < 10 {
		t.Errorf("%d Deployments were looked at, want those of every chart and overlay", pods)
	}
}

// The overlays and the chart say the same of what a container may do.
func TestKustomizeIsAsStrictAsTheChart(t *testing.T) {
	chart := only(t, objects(t, chartOf(t, goodValues(t)["mtls"])), "Deployment")
	for name, build := range kustomizations(t) {
		d := only(t, objects(t, build), "Deployment")
		for what, get := range map[string]func(o object) any{
			"pod":         func(o object) any { return at(o, "spec", "template", "spec", "securityContext") },
			"container":   func(o object) any { return at(hookauthz(o), "securityContext") },
			"resources":   func(o object) any { return at(hookauthz(o), "resources") },
			"readiness":   func(o object) any { return at(hookauthz(o), "readinessProbe") },
			"liveness":    func(o object) any { return at(hookauthz(o), "livenessProbe") },
			"replacement": func(o object) any { return at(o, "spec", "strategy") },
		} {
			if got, want := fmt.Sprint(get(d)), fmt.Sprint(get(chart)); got != want {
				t.Errorf("%s: %s is %s, and the chart's is %s", name, what, got, want)
			}
		}
	}
}

// Each of these takes one measure away from what the chart renders, and is found.
func TestConfineFindsWhatIsLoose(t *testing.T) {
	set := func(v any, path ...any) func(o object) {
		return func(o object) {
			m := any(o)
			for _, p := range path[:len(path)-1] {
				m = at(m, p)
			}
			switch key := path[len(path)-1].(type) {
			case int:
				m.([]any)[key] = v
			case string:
				into, ok := m.(map[string]any)
				if !ok {
					into = map[string]any(m.(object))
				}
				if v == nil {
					delete(into, key)
				} else {
					into[key] = v
				}
			}
		}
	}
	pod := func(path ...any) []any { return append([]any{"spec", "template", "spec"}, path...) }
	container := func(path ...any) []any { return append(pod("containers", 0), path...) }
	args := func(edit func([]any) []any) func(o object) {
		return func(o object) {
			c := hookauthz(o).(map[string]any)
			c["args"] = edit(slices.Clone(c["args"].([]any)))
		}
	}
	without := func(flag string) func(o object) {
		return args(func(a []any) []any {
			return slices.DeleteFunc(a, func(v any) bool { return strings.HasPrefix(v.(string), flag+"=") })
		})
	}
	with := func(flag string) func(o object) { return args(func(a []any) []any { return append(a, flag) }) }
	for name, c := range map[string]struct {
		kind string
		edit func(o object)
		want string
	}{
		"host network":       {"Deployment", set(true, pod("hostNetwork")...), "hostNetwork is true"},
		"token":              {"Deployment", set(nil, pod("automountServiceAccountToken")...), "a token of the API server"},
		"service links":      {"Deployment", set(nil, pod("enableServiceLinks")...), "names of services become variables"},
		"root":               {"Deployment", set(nil, pod("securityContext", "runAsNonRoot")...), "it may run as root"},
		"seccomp":            {"Deployment", set("Unconfined", pod("securityContext", "seccompProfile", "type")...), "its seccomp profile"},
		"host path":          {"Deployment", set(map[string]any{"name": "x", "hostPath": map[string]any{"path": "/"}}, pod("volumes", 0)...), "volume x is a hostPath"},
		"privileged":         {"Deployment", set(true, container("securityContext", "privileged")...), "it is privileged"},
		"escalation":         {"Deployment", set(nil, container("securityContext", "allowPrivilegeEscalation")...), "it may gain privileges"},
		"writable root":      {"Deployment", set(nil, container("securityContext", "readOnlyRootFilesystem")...), "can be written to"},
		"capabilities":       {"Deployment", set([]any{"NET_ADMIN"}, container("securityContext", "capabilities", "add")...), "it has capabilities"},
		"user":               {"Deployment", set(float64(0), container("securityContext", "runAsUser")...), "it loosens"},
		"memory":             {"Deployment", set(nil, container("resources", "limits", "memory")...), "resources.limits.memory is missing"},
		"latest":             {"Deployment", set("registry.example.com:5000/hookauthz:latest", container("image")...), "names no version"},
		"no tag":             {"Deployment", set("registry.example.com/hookauthz", container("image")...), "names no version"},
		"variable":           {"Deployment", set([]any{map[string]any{"name": "GITHUB_WEBHOOK_SECRET", "value": "x"}}, container("env")...), "the variable GITHUB_WEBHOOK_SECRET holds a secret"},
		"host port":          {"Deployment", set(float64(9001), container("ports", 0, "hostPort")...), "a port of the node"},
		"no probe":           {"Deployment", set(nil, container("readinessProbe")...), "no readiness probe"},
		"probe of admin":     {"Deployment", set(float64(9002), container("livenessProbe", "httpGet", "port")...), "livenessProbe asks at the port"},
		"no client CA":       {"Deployment", without("--tls-client-ca"), "admits those who show no certificate"},
		"no client SAN":      {"Deployment", without("--tls-client-san"), "admits those who show no certificate"},
		"insecure besides":   {"Deployment", with("--insecure-listen"), "--insecure-listen where it is not needed"},
		"admin":              {"Deployment", without("--admin"), "leaves the pod"},
		"no metrics":         {"Deployment", without("--metrics"), `--metrics ""`},
		"replicas":           {"Deployment", set(float64(2), "spec", "replicas"), "no store that they share"},
		"password":           {"Deployment", with("--store=rediss://u:p@valkey:6379/0"), "--store holds a password"},
		"policy of others":   {"NetworkPolicy", set(map[string]any{"app": "x"}, "spec", "podSelector", "matchLabels"), "no NetworkPolicy is for it"},
		"policy of all":      {"NetworkPolicy", set(map[string]any{}, "spec", "podSelector"), "every pod of the namespace"},
		"ingress only":       {"NetworkPolicy", set([]any{"Ingress"}, "spec", "policyTypes"), "it is for [Ingress]"},
		"everybody":          {"NetworkPolicy", set(nil, "spec", "ingress", 0, "from"), "everybody may use grpc"},
		"every address":      {"NetworkPolicy", set([]any{map[string]any{"ipBlock": map[string]any{"cidr": "0.0.0.0/0"}}}, "spec", "ingress", 0, "from"), "every address may use grpc"},
		"every namespace":    {"NetworkPolicy", set(map[string]any{}, "spec", "ingress", 0, "from", 0, "namespaceSelector"), "an empty namespaceSelector"},
		"every port":         {"NetworkPolicy", set(nil, "spec", "ingress", 0, "ports"), "every port"},
		"port of admin":      {"NetworkPolicy", set(float64(9002), "spec", "ingress", 0, "ports", 0, "port"), "9002, which is nobody's"},
		"way out":            {"NetworkPolicy", set([]any{map[string]any{}}, "spec", "egress"), "lets out to every port"},
		"public":             {"Service", set("LoadBalancer", "spec", "type"), "can be reached from outside"},
		"service of admin":   {"Service", set(float64(9002), "spec", "ports", 0, "targetPort"), `it leads to ""`},
		"account":            {"ServiceAccount", set(true, "automountServiceAccountToken"), "its token is mounted"},
		"key in a ConfigMap": {"ConfigMap", set("-----BEGIN PRIVATE KEY-----", "data", "x.pem"), "x.pem holds a secret"},
		"Secret":             {"ConfigMap", set("Secret", "kind"), "a secret is among the manifests"},
	} {
		t.Run(name, func(t *testing.T) {
			all := objects(t, chartOf(t, goodValues(t)["mtls"]))
			if faults := confine(all); len(faults) > 0 {
				t.Fatal(faults)
			}
			for _, o := range ofKind(all, c.kind)[:1] {
				c.edit(o)
			}
			if faults := confine(all); !slices.ContainsFunc(faults, func(f string) bool { return strings.Contains(f, c.want) }) {
				t.Errorf("faults %q, want %q among them", faults, c.want)
			}
		})
	}
}
