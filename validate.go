package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/hookauthz/hookauthz/policy"
)

// validation is the result of validate for machines.
type validation struct {
	Webhooks int           `json:"webhooks"`
	Secrets  int           `json:"secrets"`
	Revision string        `json:"revision"`
	Faults   policy.Faults `json:"faults"`
	Warnings policy.Faults `json:"warnings"`
}

func newValidate(p process) *cobra.Command {
	var flags policyFlags
	var skipSecrets bool
	output := oneOf("text", "json")
	c := &cobra.Command{
		Use:   "validate DIR",
		Short: "Check a folder of policy files and report everything that is wrong",
		Long: `validate loads a folder of policy files as serve would and reports every fault at once, each as
file:line:column with what to write instead. Warnings are shown and do not fail.

A secret that cannot be read here is a fault, unless --skip-secrets is given: use that where the
secrets are not at hand, as in CI.`,
		Example: `  hookauthz validate policies/
  hookauthz validate --skip-secrets -o json policies/
  hookauthz validate --environment production --max-body 25MiB policies/`,
		Args: takes(1, 1, "one folder"),
		RunE: func(_ *cobra.Command, args []string) error {
			mode := policy.RequireSecrets
			if skipSecrets {
				mode = policy.SkipSecrets
			}
			set, err := policy.Load(args[0], flags.options(p, mode))
			if output.value == "json" {
				return validateJSON(p, args[0], set, err)
			}
			if err != nil {
				return err
			}
			for _, w := range slices.Concat(set.Warnings(), set.SecretWarnings()) {
				fmt.Fprintf(p.stderr, "warning: %s\n", w)
			}
			v := validated(set)
			_, err = fmt.Fprintf(p.stdout, "%s, %s, revision %s\n", count(v.Webhooks, "webhook"), count(v.Secrets, "secret"), v.Revision)
			return err
		},
	}
	flags.add(c, true)
	c.Flags().BoolVar(&skipSecrets, "skip-secrets", false, "do not read secrets: one that is missing here is no fault")
	choose(c, output, "output", "o", "output for people or for machines")
	return c
}

// validated sums up a set. Lists are never null in JSON.
func validated(set *policy.Set) validation {
	v := validation{Revision: set.Revision(), Faults: policy.Faults{}, Warnings: policy.Faults{}}
	v.Warnings = append(v.Warnings, slices.Concat(set.Warnings(), set.SecretWarnings())...)
	for _, e := range set.Endpoints() {
		v.Webhooks++
		v.Secrets += len(e.Versions)
	}
	return v
}

func validateJSON(p process, dir string, set *policy.Set, err error) error {
	if err == nil {
		return printJSON(p.stdout, validated(set))
	}
	v := validation{Faults: policy.Faults{}, Warnings: policy.Faults{}}
	var faults policy.Faults
	if errors.As(err, &faults) {
		v.Faults = faults
	} else {
		v.Faults = append(v.Faults, policy.Fault{File: dir, Problem: err.Error()})
	}
	if err := printJSON(p.stdout, v); err != nil {
		return err
	}
	return errSaid
}
