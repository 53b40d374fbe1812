package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hookauthz/hookauthz/policy"
)

// variable is the environment twin of a flag.
func variable(flag string) string {
	return "HOOKAUTHZ_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// readEnvironment sets every flag of a command that was not given from its environment twin.
func readEnvironment(c *cobra.Command, lookup func(string) (string, bool)) error {
	var err error
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if err != nil || f.Changed || f.Name == "help" {
			return
		}
		name := variable(f.Name)
		value, ok := lookup(name)
		if !ok || value == "" {
			return
		}
		if e := c.Flags().Set(f.Name, value); e != nil {
			// pflag's own text names the flag, which was not given.
			if cause := errors.Unwrap(e); cause != nil {
				e = cause
			}
			err = misused(fmt.Sprintf("'%s --help' describes --%s", c.CommandPath(), f.Name),
				"invalid value %q in the environment variable %s: %w", value, name, e)
		}
	})
	return err
}

// required is the complaint about a flag that was given neither way.
func required(c *cobra.Command, flag string) error {
	return misused(fmt.Sprintf("give --%s or set %s; '%s --help' describes it", flag, variable(flag), c.CommandPath()),
		"--%s is missing", flag)
}

// size is a number of bytes as a flag.
type size int64

// Binary units by their text form.
var units = []struct {
	suffix string
	bytes  int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}}

func (s *size) Set(text string) error {
	number, unit := text, int64(1)
	for _, u := range units {
		if n, ok := strings.CutSuffix(text, u.suffix); ok {
			number, unit = n, u.bytes
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64/unit || strings.HasPrefix(number, "+") {
		return errors.New("want a size such as 512KiB, 4MiB or 1GiB, or a number of bytes")
	}
	*s = size(n * unit)
	return nil
}

func (s *size) String() string {
	n := int64(*s)
	for _, u := range slices.Backward(units) {
		if n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10)
}

func (*size) Type() string { return "size" }

// choice is a flag with a closed list of values, of which the first may be empty: none.
type choice struct {
	value string
	among []string
}

func oneOf(first string, others ...string) *choice {
	return &choice{first, append([]string{first}, others...)}
}

func (c *choice) Set(text string) error {
	if !slices.Contains(c.among, text) {
		return fmt.Errorf("want one of %s", strings.TrimPrefix(strings.Join(c.among, ", "), ", "))
	}
	c.value = text
	return nil
}

func (c *choice) String() string { return c.value }
func (c *choice) Type() string   { return strings.TrimPrefix(strings.Join(c.among, "|"), "|") }

// choose adds a flag with a closed list of values, which the shell completes.
func choose(c *cobra.Command, v *choice, name, short, usage string) {
	c.Flags().VarP(v, name, short, usage)
	// The error is for a flag that does not exist.
	_ = c.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(v.among, cobra.ShellCompDirectiveNoFileComp))
}

// instant is a moment as a flag; the zero value means now.
type instant struct{ time.Time }

func (t *instant) Set(text string) error {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return errors.New("want a time such as 2026-11-24T08:00:00Z")
	}
	t.Time = at
	return nil
}

func (t *instant) String() string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339)
}

func (*instant) Type() string { return "RFC3339" }

// or is the flag's moment, or now where it was not given.
func (t *instant) or(now func() time.Time) time.Time {
	if t.IsZero() {
		return now()
	}
	return t.Time
}

// span is a duration as a flag: a Go duration that may begin with days.
type span struct{ time.Duration }

func (d *span) Set(text string) (err error) {
	if d.Duration, err = policy.ParseDuration(text); err == nil && d.Duration <= 0 {
		err = fmt.Errorf("%q is no time", text)
	}
	return err
}

func (d *span) String() string {
	if d.Duration == 0 {
		return "" // help shows no default
	}
	if days := d.Duration / (24 * time.Hour); days > 0 && d.Duration%(24*time.Hour) == 0 {
		return strconv.Itoa(int(days)) + "d"
	}
	return d.Duration.String()
}

func (*span) Type() string { return "duration" }

// policyFlags are the flags that say which policies there are.
type policyFlags struct {
	dir         string
	environment string
	maxBody     size
}

// add adds the flags to a command. One that takes the folder as an argument has no --policies.
func (f *policyFlags) add(c *cobra.Command, dirIsArgument bool) {
	f.maxBody = policy.DefaultMaxBody
	if !dirIsArgument {
		c.Flags().StringVar(&f.dir, "policies", "", "`folder` of policy files (*.yaml, *.yml)")
		_ = c.MarkFlagDirname("policies")
	}
	c.Flags().StringVar(&f.environment, "environment", "", "`name` of this environment: secret versions that are for others do not count")
	c.Flags().Var(&f.maxBody, "max-body", "largest body that the server takes; a policy that allows more is a fault")
}

// load loads the policies for one command.
func (f *policyFlags) load(c *cobra.Command, p process, secrets policy.SecretMode) (*policy.Set, error) {
	if f.dir == "" {
		return nil, required(c, "policies")
	}
	return policy.Load(f.dir, f.options(p, secrets))
}

func (f *policyFlags) options(p process, secrets policy.SecretMode) policy.LoadOptions {
	return policy.LoadOptions{
		Environment: f.environment,
		LookupEnv:   p.lookup,
		MaxBody:     int64(f.maxBody),
		Secrets:     secrets,
	}
}
