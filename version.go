package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker: -ldflags "-X main.version=v1.2.3".
var version string

// build says which program this is.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // the commit it was built from
	Modified bool   `json:"modified,omitempty"` // with changes that are not in that commit
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func thisBuild() build {
	b := build{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		if b.Version == "" {
			b.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Revision = s.Value
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
	}
	if b.Version == "" {
		b.Version = "(devel)"
	}
	return b
}

func newVersion(p process) *cobra.Command {
	output := oneOf("text", "json")
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  hookauthz version\n  hookauthz version -o json",
		Args:    takes(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			b := thisBuild()
			if output.value == "json" {
				return printJSON(p.stdout, b)
			}
			_, err := fmt.Fprintf(p.stdout, "hookauthz %s %s %s\n", b.Version, b.Go, b.Platform)
			return err
		},
	}
	choose(c, output, "output", "o", "output for people or for machines")
	return c
}
