package test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// versions are the secret versions that the examples of deploy/secrets show.
var versions = []string{"2026-04", "2026-10"}

// mounted is one line of what a provider of the CSI driver is to fetch, with the fields that its documentation has and we use.
type mounted struct {
	ObjectName   string `json:"objectName"`
	ObjectAlias  string `json:"objectAlias"`
	ObjectType   string `json:"objectType"`
	SecretPath   string `json:"secretPath"`
	SecretKey    string `json:"secretKey"`
	ResourceName string `json:"resourceName"`
	Path         string `json:"path"`
}

// mountedFiles are the names of the files that a provider makes.
func mountedFiles(t *testing.T, class object) (names []string) {
	t.Helper()
	strict := func(text string, into any) {
		t.Helper()
		if err := yaml.UnmarshalStrict([]byte(text), into, yaml.DisallowUnknownFields); err != nil {
			t.Fatal(err)
		}
	}
	var lines []mounted
	provider, parameters := text(class, "spec", "provider"), at(class, "spec", "parameters")
	switch provider {
	case "gcp":
		strict(text(parameters, "secrets"), &lines)
	case "azure":
		var objects struct {
			Array []string `json:"array"`
		}
		strict(text(parameters, "objects"), &objects)
		for _, o := range objects.Array {
			var line mounted
			strict(o, &line)
			lines = append(lines, line)
		}
	default:
		strict(text(parameters, "objects"), &lines)
	}
	for _, l := range lines {
		switch provider {
		case "vault":
			names = append(names, l.ObjectName)
		case "aws", "azure":
			names = append(names, l.ObjectAlias)
		case "gcp":
			names = append(names, l.Path)
		}
	}
	slices.Sort(names)
	return names
}

func secretsOf(t *testing.T, folder, kind string) map[string]object {
	t.Helper()
	all := make(map[string]object)
	for name, content := range files(t, filepath.Join(root, "deploy", "secrets", folder, "*.yaml")) {
		for _, o := range ofKind(objects(t, content), kind) {
			all[name] = o
		}
	}
	return all
}

// Each provider mounts a file for each version, in the folder that the values of the chart name.
func TestSecretProviderClasses(t *testing.T) {
	classes := secretsOf(t, "secrets-store-csi", "SecretProviderClass")
	for _, provider := range []string{"vault", "aws", "gcp", "azure"} {
		class := classes[provider]
		if text(class, "spec", "provider") != provider {
			t.Errorf("%s.yaml is for %q", provider, text(class, "spec", "provider"))
		}
		if got := mountedFiles(t, class); !slices.Equal(got, versions) {
			t.Errorf("%s: files %q, want %q", provider, got, versions)
		}
		if got := text(class, "metadata", "name"); got != "webhooks-github" || text(class, "metadata", "namespace") != "security" {
			t.Errorf("%s: the name is %q", provider, got)
		}
	}
	pod := only(t, objects(t, chartOf(t, goodValues(t)["secrets-store-csi"])), "Deployment")
	if !slices.ContainsFunc(list(pod, "spec", "template", "spec", "volumes"), func(v any) bool {
		return text(v, "csi", "volumeAttributes", "secretProviderClass") == "webhooks-github" && at(v, "csi", "readOnly") == true
	}) {
		t.Error("the pod mounts no webhooks-github")
	}
}

// A store for each provider, one and the same ExternalSecret, and the Secret of that in the pod.
func TestExternalSecrets(t *testing.T) {
	stores := secretsOf(t, "external-secrets", "SecretStore")
	accounts := secretsOf(t, "external-secrets", "ServiceAccount")
	for name, provider := range map[string]string{"vault": "vault", "aws": "aws", "gcp": "gcpsm", "azure": "azurekv"} {
		if at(stores[name], "spec", "provider", provider) == nil {
			t.Errorf("%s.yaml has no store of %s", name, provider)
		}
		if text(accounts[name], "metadata", "name") != "webhooks-secrets" {
			t.Errorf("%s.yaml has no service account that fetches", name)
		}
	}
	secret := secretsOf(t, "external-secrets", "ExternalSecret")["externalsecret"]
	for name, store := range stores {
		if text(secret, "spec", "secretStoreRef", "name") != text(store, "metadata", "name") {
			t.Errorf("the store of %s.yaml is another one", name)
		}
	}
	pod := only(t, objects(t, chartOf(t, goodValues(t)["external-secrets"])), "Deployment")
	if !slices.ContainsFunc(list(pod, "spec", "template", "spec", "volumes"), func(v any) bool {
		return text(v, "secret", "secretName") == text(secret, "spec", "target", "name")
	}) {
		t.Error("the pod does not mount the Secret that is kept")
	}
}

// Each file that Vault's agent writes is whole or not at all, and Vault's token stays with the agent.
func TestVaultAgent(t *testing.T) {
	pod := only(t, objects(t, chartOf(t, goodValues(t)["vault-agent"])), "Deployment")
	notes, _ := at(pod, "spec", "template", "metadata", "annotations").(map[string]any)
	var names []string
	for k, v := range notes {
		name, ok := strings.CutPrefix(k, "vault.hashicorp.com/agent-inject-secret-")
		if !ok {
			continue
		}
		names = append(names, name)
		for prefix, want := range map[string]string{
			"error-on-missing-key-": "true", "agent-inject-perms-": "0440", "secret-volume-path-": "/vault/secrets/github", "agent-inject-file-": strings.TrimPrefix(name, "github-"),
		} {
			if got := text(notes, "vault.hashicorp.com/"+prefix+name); got != want {
				t.Errorf("%s%s is %q, want %q", prefix, name, got, want)
			}
		}
		if template := text(notes, "vault.hashicorp.com/agent-inject-template-"+name); !strings.Contains(template, v.(string)) || strings.Contains(template, "index ") {
			t.Errorf("the template of %s is %q, want one that fails where a field is missing", name, template)
		}
	}
	if len(names) != 2 {
		t.Errorf("files %q, want two", names)
	}
	for _, m := range list(hookauthz(pod), "volumeMounts") {
		if text(m, "name") == text(notes, "vault.hashicorp.com/agent-service-account-token-volume-name") {
			t.Error("hookauthz has the token that Vault knows it by")
		}
	}
}
