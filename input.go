package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/hookauthz/hookauthz/policy"
)

// maxInput is the largest file that a command takes.
const maxInput = 1 << 30

// readBody reads the body that a --body flag names: a file, - for standard input, or nothing.
func readBody(stdin io.Reader, name string) ([]byte, error) {
	switch name {
	case "":
		return nil, nil
	case "-":
		body, err := readAll(stdin)
		if err != nil {
			return nil, fmt.Errorf("reading the body from standard input: %w", err)
		}
		return body, nil
	}
	body, err := readFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading the body: %w", err)
	}
	return body, nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f)
}

func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err == nil && len(data) > maxInput {
		err = errors.New("it has more than 1GiB")
	}
	return data, err
}

// completeEndpoints completes the names of the webhooks in the policies.
func completeEndpoints(p process, f *policyFlags) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		set, err := f.load(c, p, policy.SkipSecrets)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []cobra.Completion
		for _, e := range set.Endpoints() {
			names = append(names, cobra.CompletionWithDesc(e.Name, e.Scheme))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
