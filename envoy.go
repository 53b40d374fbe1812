package main

import (
	"github.com/spf13/cobra"
)

// newEnvoy is the parent of the commands about Envoy's configuration.
func newEnvoy(p process) *cobra.Command {
	c := &cobra.Command{
		Use:   "envoy",
		Short: "Write Envoy's configuration from policies, and look for ways around the authorizer in one",
		Args:  takes(0, 0, "the name of a command: 'hookauthz envoy --help' lists them"),
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newEnvoyRender(p), newEnvoyLint(p))
	return c
}
