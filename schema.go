package main

import (
	"bytes"

	"github.com/spf13/cobra"

	"github.com/hookauthz/hookauthz/policy"
)

func newSchema(p process) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of policy files, for editors",
		Long: `schema prints the JSON Schema of policy files. Editors that know it complete and check policy files as they
are written. hookauthz validate knows more: what a schema cannot say, such as two policies for one path.`,
		Example: `  hookauthz schema > hookauthz.schema.json

  # first line of a policy file, for editors with the YAML language server:
  # yaml-language-server: $schema=hookauthz.schema.json`,
		Args: takes(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			text, err := policy.Schema()
			if err != nil {
				return err
			}
			_, err = p.stdout.Write(append(bytes.TrimSpace(text), '\n'))
			return err
		},
	}
}
