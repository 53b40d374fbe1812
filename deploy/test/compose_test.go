package test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// root is the checkout.
const root = "../.."

func project(t *testing.T) *types.Project {
	t.Helper()
	o, err := cli.NewProjectOptions([]string{filepath.Join(root, "docker-compose.yml")}, cli.WithResolvedPaths(true), cli.WithConsistency(true))
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestComposeServices(t *testing.T) {
	p := project(t)
	got := slices.Sorted(maps.Keys(p.Services))
	if want := []string{"app", "certs", "envoy", "hookauthz", "valkey"}; !slices.Equal(got, want) {
		t.Errorf("services %q, want %q", got, want)
	}
	for name, image := range map[string]string{"envoy": "envoyproxy/envoy:v1.40.0", "valkey": "valkey/valkey:9"} {
		if got := p.Services[name].Image; got != image {
			t.Errorf("%s: image %q, want %q", name, got, image)
		}
	}
}

func TestComposeServicesAreConfined(t *testing.T) {
	for name, s := range project(t).Services {
		t.Run(name, func(t *testing.T) {
			if !s.ReadOnly {
				t.Error("the file system can be written to")
			}
			if !slices.Equal(s.CapDrop, []string{"ALL"}) {
				t.Errorf("capabilities dropped: %q, want ALL", s.CapDrop)
			}
			if !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
				t.Errorf("security options %q, want no-new-privileges:true", s.SecurityOpt)
			}
			if s.Privileged || s.NetworkMode == "host" || s.Pid != "" {
				t.Error("it shares the host's name spaces")
			}
			user, _, _ := strings.Cut(s.User, ":")
			if s.Build == nil && (user == "" || strings.Trim(user, "0") == "") {
				t.Errorf("user %q, want one that is not root", s.User)
			}
			for _, port := range s.Ports {
				if port.HostIP != "127.0.0.1" {
					t.Errorf("port %s is published on %q, want 127.0.0.1", port.Published, port.HostIP)
				}
			}
		})
	}
}

// Every file and folder that a container gets from the checkout is there, and every volume is declared.
func TestComposeMounts(t *testing.T) {
	p := project(t)
	mounts := 0
	for name, s := range p.Services {
		for _, v := range s.Volumes {
			switch v.Type {
			case types.VolumeTypeBind:
				mounts++
				if _, err := os.Stat(v.Source); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if !v.ReadOnly {
					t.Errorf("%s: %s can be written to", name, v.Source)
				}
			case types.VolumeTypeVolume:
				if _, ok := p.Volumes[v.Source]; !ok {
					t.Errorf("%s: no volume %q", name, v.Source)
				}
				if name != "certs" && !v.ReadOnly {
					t.Errorf("%s: the volume %q can be written to", name, v.Source)
				}
			default:
				t.Errorf("%s: a mount of the type %q", name, v.Type)
			}
		}
		for _, f := range s.EnvFiles {
			mounts++
			if _, err := os.Stat(f.Path); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if s.Build != nil {
			stages := dockerfile(t)
			if s.Build.Target != "" && !slices.ContainsFunc(stages, func(st stage) bool { return st.name == s.Build.Target }) {
				t.Errorf("%s: the Dockerfile has no stage %q", name, s.Build.Target)
			}
		}
	}
	if mounts < 4 {
		t.Errorf("%d files are mounted, want the Envoy configuration, policies, secrets and the environment", mounts)
	}
}

// What starts when, and how one sees that it is well.
func TestComposeHealth(t *testing.T) {
	p := project(t)
	for _, name := range []string{"envoy", "app", "valkey"} {
		if h := p.Services[name].HealthCheck; h == nil || h.Disable || len(h.Test) < 2 {
			t.Errorf("%s has no health check", name)
		}
	}
	for name, s := range p.Services {
		for on, d := range s.DependsOn {
			if d.Condition == types.ServiceConditionHealthy && p.Services[on].HealthCheck == nil {
				t.Errorf("%s waits for the health of %s, which has no health check", name, on)
			}
		}
	}
	for _, on := range []string{"hookauthz", "app", "certs"} {
		if _, ok := p.Services["envoy"].DependsOn[on]; !ok {
			t.Errorf("envoy does not wait for %s", on)
		}
	}
	// The health check of envoy asks for hookauthz's too.
	if text := strings.Join(p.Services["envoy"].HealthCheck.Test, " "); !strings.Contains(text, "webhook_authz") {
		t.Errorf("the health check of envoy is %q, want one that looks at the cluster webhook_authz", text)
	}
}

// hookauthz serves to Envoy alone, from the folders that are mounted; e2e and the demo take the arguments from here.
func TestComposeHookauthz(t *testing.T) {
	s := project(t).Services["hookauthz"]
	if len(s.Command) == 0 || s.Command[0] != "serve" {
		t.Fatalf("command %q, want serve", s.Command)
	}
	flags := make(map[string]string)
	for i := 1; i+1 < len(s.Command); i += 2 {
		if !strings.HasPrefix(s.Command[i], "--") {
			t.Fatalf("command %q: wanted a flag in the place of %q", s.Command, s.Command[i])
		}
		flags[s.Command[i]] = s.Command[i+1]
	}
	for _, name := range []string{"--tls-cert", "--tls-key", "--tls-client-ca", "--tls-client-san"} {
		if flags[name] == "" {
			t.Errorf("no %s: whoever reaches it can call it", name)
		}
	}
	if slices.Contains(s.Command, "--insecure-listen") {
		t.Error("--insecure-listen")
	}
	for flag, value := range flags {
		if !strings.HasPrefix(value, "/") {
			continue
		}
		if !slices.ContainsFunc(s.Volumes, func(v types.ServiceVolumeConfig) bool {
			return value == v.Target || strings.HasPrefix(value, v.Target+"/")
		}) {
			t.Errorf("%s %s is mounted from nowhere", flag, value)
		}
	}
	if value := s.Environment["GITHUB_WEBHOOK_SECRET"]; value == nil || *value != "It's a Secret to Everybody" {
		t.Errorf("GITHUB_WEBHOOK_SECRET is %v, want the one of GitHub's documentation", value)
	}
}
