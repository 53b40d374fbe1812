package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hookauthz/hookauthz/policy"
)

const (
	exitFailed = 1 // it failed or denied
	exitUsage  = 2 // wrong usage
)

// failure is an error with what to do about it.
type failure struct {
	err  error
	hint string // "" where there is nothing to say
	code int
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// failed is an error with a hint; the command line was right.
func failed(hint string, format string, args ...any) error {
	return &failure{err: fmt.Errorf(format, args...), hint: hint, code: exitFailed}
}

// misused is a mistake in the command line.
func misused(hint string, format string, args ...any) error {
	return &failure{err: fmt.Errorf(format, args...), hint: hint, code: exitUsage}
}

// errSaid ends a command that has said already why it fails.
var errSaid = errors.New("failed")

// report prints an error as people read it and gives the exit code.
func report(w io.Writer, err error) int {
	if err == nil {
		return 0
	}
	code := exitFailed
	var f *failure
	var faults policy.Faults
	switch {
	case errors.Is(err, errSaid):
		return code
	case errors.As(err, &faults):
		fmt.Fprintln(w, faults.Error())
		fmt.Fprintf(w, "hookauthz: %s in the policy files\n", count(len(faults), "fault"))
	default:
		fmt.Fprintf(w, "hookauthz: %v\n", err)
	}
	if errors.As(err, &f) {
		code = f.code
		if f.hint != "" {
			fmt.Fprintf(w, "hint: %s\n", f.hint)
		}
	}
	return code
}

func newRoot(p process) *cobra.Command {
	root := &cobra.Command{
		Use:   "hookauthz",
		Short: "Webhook security for Envoy: signatures, sources, rates and replays, decided by policy files",
		Long: `hookauthz answers Envoy's external-authorization call for each webhook delivery: is the signature right
over these exact bytes, does it come from an allowed address, is it within its rate, was it seen before.
Policy files say what each webhook needs.

Every flag has a twin in the environment, named HOOKAUTHZ_ and the flag in capitals: --max-body is
HOOKAUTHZ_MAX_BODY. The flag wins; an empty variable counts as none.

Exit codes: 0 it worked; 1 it failed or denied; 2 wrong usage.`,
		Example: `  hookauthz validate policies/
  hookauthz serve --policies policies/
  hookauthz schemes github`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			hint := "'hookauthz --help' lists the commands"
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				hint = "did you mean " + strings.Join(near, " or ") + "?"
			}
			return misused(hint, "there is no command %q", args[0])
		},
		RunE:                       func(c *cobra.Command, _ []string) error { return c.Help() },
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			return readEnvironment(c, p.lookup)
		},
	}
	root.SetArgs(p.args)
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return misused(fmt.Sprintf("'%s --help' lists the flags", c.CommandPath()), "%w", err)
	})
	root.AddCommand(
		newServe(p),
		newValidate(p),
		newDecide(p),
		newSign(p),
		newSchemes(p),
		newSecrets(p),
		newSchema(p),
		newEnvoy(p),
		newStatus(p),
		newIncidents(p),
		newAudit(p),
		newVersion(p),
	)
	root.AddCommand(newActions(p)...)
	return root
}

// takes checks the number of arguments of a command.
func takes(least, most int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if least <= len(args) && len(args) <= most {
			return nil
		}
		return misused("usage: "+c.UseLine(), "%s takes %s, not %s", c.Name(), what, count(len(args), "argument"))
	}
}
