package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookauthz/hookauthz/envoy/lint"
	"github.com/hookauthz/hookauthz/policy"
)

func newEnvoyLint(p process) *cobra.Command {
	var flags policyFlags
	output := oneOf("text", "json", "sarif")
	c := &cobra.Command{
		Use:   "lint FILE|URL",
		Short: "Find the ways around the authorizer in an Envoy configuration",
		Long: `lint reads a bootstrap file (YAML or JSON; - is standard input) or what a running Envoy's admin interface
dumps (a saved /config_dump, or its URL) and follows what a request can do: every listener, filter chain,
virtual host and route. An error is a way to the application that no Check guards, or something that an
attacker can forge; a warning is about availability and hygiene. Each comes with its place and the fix.

--policies adds the rules that need them: context extensions that name no policy, limits that are smaller
than the policies', headers that a scheme reads and Envoy drops, outcomes that never come back.

docs/lint.md describes every rule.

Exit codes: 0 no error; 1 an error was found; 2 wrong usage, no Envoy configuration, or no answer.`,
		Example: `  hookauthz envoy lint envoy.yaml
  hookauthz envoy lint --policies policies/ http://127.0.0.1:9901/config_dump
  hookauthz envoy lint -o sarif envoy.yaml > hookauthz.sarif`,
		Args: takes(1, 1, "one file or URL"),
		RunE: func(c *cobra.Command, args []string) error {
			config := lint.Config{Name: args[0]}
			if flags.dir != "" {
				set, err := flags.load(c, p, policy.SkipSecrets)
				if err != nil {
					return err
				}
				config.Policies, config.MaxBody = set, int64(flags.maxBody)
			}
			var err error
			if config.Text, err = readEnvoy(c.Context(), p.stdin, args[0]); err != nil {
				return misused("", "reading Envoy's configuration: %w", err)
			}
			r, err := lint.Lint(config)
			if err != nil {
				return misused("", "linting %q: %w", args[0], err)
			}
			return printLint(p, output.value, r)
		},
	}
	flags.add(c, false)
	choose(c, output, "output", "o", "output for people, for machines or for code scanning")
	return c
}

func printLint(p process, output string, r *lint.Report) error {
	var err error
	switch output {
	case "json":
		err = printJSON(p.stdout, r)
	case "sarif":
		err = printJSON(p.stdout, r.SARIF(thisBuild().Version))
	default:
		_, err = io.WriteString(p.stdout, lintText(r))
	}
	if err == nil && r.Count(lint.Error) > 0 {
		return errSaid
	}
	return err
}

// lintText is a report for people: one line where it is clean.
func lintText(r *lint.Report) string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s\n", terminal(f.String()))
		if f.Place.Path != "" {
			fmt.Fprintf(&b, "    at:  %s\n", terminal(f.Place.Path))
		}
		fmt.Fprintf(&b, "    why: %s\n    fix: %s\n", f.Why, f.Fix)
	}
	verdict := "clean"
	if len(r.Findings) > 0 {
		verdict = count(r.Count(lint.Error), "error") + ", " + count(r.Count(lint.Warning), "warning")
	}
	fmt.Fprintf(&b, "%s: %s (%s, %s with a Check)\n", terminal(r.Source), verdict, count(r.Listeners, "listener"), count(r.Guarded, "route"))
	return b.String()
}

// terminal leaves out of a line what would disturb a terminal.
func terminal(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

const (
	// maxDump is the largest configuration that is read.
	maxDump = 256 << 20
	// dumpPatience is how long an admin interface may take.
	dumpPatience = 10 * time.Second
)

// readEnvoy reads a file, standard input or what an admin interface answers.
func readEnvoy(ctx context.Context, stdin io.Reader, name string) ([]byte, error) {
	if name == "-" {
		return readDump(stdin, "standard input")
	}
	if strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://") {
		return fetchDump(ctx, name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readDump(f, name)
}

func readDump(r io.Reader, name string) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxDump+1))
	if errors.Is(err, context.DeadlineExceeded) {
		err = errSlow(name)
	}
	if err == nil && len(text) > maxDump {
		err = fmt.Errorf("%s has more than 256MiB", name)
	}
	return text, err
}

func errSlow(name string) error {
	return fmt.Errorf("%s does not answer within %v", name, dumpPatience)
}

func fetchDump(ctx context.Context, address string) ([]byte, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/config_dump"
	}
	if u.RawQuery == "" && strings.HasSuffix(u.Path, "/config_dump") {
		u.RawQuery = "include_eds"
	}
	ctx, cancel := context.WithTimeout(ctx, dumpPatience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, errSlow(address)
		}
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", address, terminal(response.Status))
	}
	text, err := readDump(response.Body, address)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("the answer of %s breaks off after %d bytes", address, len(text))
	}
	return text, err
}
