package test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// stage is one stage of the Dockerfile.
type stage struct {
	name, from string
	commands   []instructions.Command
}

func dockerfile(t *testing.T) []stage {
	t.Helper()
	f, err := os.Open(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tree, err := parser.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	parsed, _, err := instructions.Parse(tree.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	var stages []stage
	for _, s := range parsed {
		stages = append(stages, stage{s.Name, s.BaseName, s.Commands})
	}
	return stages
}

// commands are those of one kind in a stage.
func commands[T instructions.Command](s stage) []T {
	var found []T
	for _, c := range s.commands {
		if c, ok := c.(T); ok {
			found = append(found, c)
		}
	}
	return found
}

var numericUser = regexp.MustCompile(`^[1-9][0-9]*(:[1-9][0-9]*)?$`)

// Every image that runs holds nothing but what is copied in, and does not run as root.
func TestDockerfileImages(t *testing.T) {
	stages := dockerfile(t)
	if got, want := stages[0].from, "golang:1.26"; got != want {
		t.Errorf("it is built from %q, want %q", got, want)
	}
	for _, s := range stages[1:] {
		t.Run("stage "+s.name, func(t *testing.T) {
			if s.from != "scratch" {
				t.Errorf("from %q, want scratch", s.from)
			}
			users := commands[*instructions.UserCommand](s)
			if len(users) == 0 || !numericUser.MatchString(users[len(users)-1].User) {
				t.Errorf("users %v, want a numeric one that is not root", users)
			}
			entries := commands[*instructions.EntrypointCommand](s)
			if len(entries) != 1 || entries[0].PrependShell {
				t.Error("the entry point is not one program without a shell")
			}
			for _, c := range commands[*instructions.CopyCommand](s) {
				if c.From != stages[0].name {
					t.Errorf("%v copies from %q, want the stage %q", c.SourcePaths, c.From, stages[0].name)
				}
			}
		})
	}
}

func TestDockerfileLastStage(t *testing.T) {
	stages := dockerfile(t)
	last := stages[len(stages)-1]
	var copied []string
	for _, c := range commands[*instructions.CopyCommand](last) {
		copied = append(copied, c.DestPath)
	}
	slices.Sort(copied)
	if want := []string{"/etc/ssl/certs/ca-certificates.crt", "/hookauthz"}; !slices.Equal(copied, want) {
		t.Errorf("it holds %q, want %q", copied, want)
	}
	entries := commands[*instructions.EntrypointCommand](last)
	if len(entries) != 1 || !slices.Equal(entries[0].CmdLine, []string{"/hookauthz"}) {
		t.Errorf("entry point %v, want /hookauthz", entries)
	}
	var ports []string
	for _, e := range commands[*instructions.ExposeCommand](last) {
		ports = append(ports, e.Ports...)
	}
	if want := []string{"9001", "9002", "9003"}; !slices.Equal(ports, want) {
		t.Errorf("it exposes %q, want %q", ports, want)
	}
}

// The programs are static: an image from scratch has no libraries.
func TestDockerfileBuild(t *testing.T) {
	build := dockerfile(t)[0]
	static := false
	for _, e := range commands[*instructions.EnvCommand](build) {
		for _, kv := range e.Env {
			static = static || kv.Key == "CGO_ENABLED" && kv.Value == "0"
		}
	}
	if !static {
		t.Error("CGO_ENABLED is not 0")
	}
	var run strings.Builder
	for _, r := range commands[*instructions.RunCommand](build) {
		run.WriteString(strings.Join(r.CmdLine, " ") + "\n")
	}
	for _, word := range []string{"-trimpath", "-X main.version=$VERSION", "-o /out/hookauthz .", "./examples/app", "./examples/certs"} {
		if !strings.Contains(run.String(), word) {
			t.Errorf("no %q in what it runs:\n%s", word, run.String())
		}
	}
}
