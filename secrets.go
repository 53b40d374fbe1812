package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/hookauthz/hookauthz/policy/signature"
)

func newSecrets(p process) *cobra.Command {
	c := &cobra.Command{
		Use:   "secrets",
		Short: "Make secrets, and follow their rotation",
		Long: `secrets makes strong secrets in a sender's format, and says of a running server which version of each secret its
senders use, what ends soon and what may go. docs/secrets.md shows a rotation step by step.`,
		Args: takes(0, 0, "a command: new or status"),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newSecretsNew(p), newSecretsStatus(p))
	return c
}

// newSecret is the result of secrets new for machines.
type newSecret struct {
	Scheme        string `json:"scheme"`
	Secret        string `json:"secret"`
	Form          string `json:"form,omitempty"` // in the words of the catalogue
	Documentation string `json:"documentation,omitempty"`
}

func newSecretsNew(p process) *cobra.Command {
	var scheme string
	output := oneOf("text", "json")
	c := &cobra.Command{
		Use:   "new --scheme NAME",
		Short: "Make a strong secret in the format of a sender",
		Long: `new prints a random secret of at least 32 bytes, written as the sender of that scheme writes its own: with its prefix,
in base64 or in hex. Only the secret goes to standard output; what to do with it, to standard error.

Some senders make the secret themselves and take no other: then copy theirs.`,
		Example: `  umask 077; hookauthz secrets new --scheme github > /run/secrets/github/2026-11
  hookauthz secrets new --scheme svix | kubectl create secret generic svix --from-file 2026-11=/dev/stdin`,
		Args: takes(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			if scheme == "" {
				return required(c, "scheme")
			}
			info, err := findScheme(scheme)
			if err != nil {
				return err
			}
			preset, _ := signature.Preset(info.Name)
			text, err := preset.NewSecret()
			if err != nil {
				hint := "take its public key and write publicKeys: in the policy; "
				if preset.NeedsCertificate() {
					hint = "the policy needs no key; "
				}
				if info.Secret != "" {
					hint += info.Secret + "; "
				}
				return failed(hint+"'hookauthz schemes "+info.Name+"' shows it", "the scheme %s has no shared secret: %w", info.Name, err)
			}
			made := newSecret{Scheme: info.Name, Secret: text, Form: info.Secret, Documentation: info.Documentation}
			if output.value == "json" {
				err = printJSON(p.stdout, made)
			} else {
				_, err = fmt.Fprintln(p.stdout, text)
			}
			if err != nil {
				return err
			}
			fmt.Fprint(p.stderr, placing(info))
			return nil
		},
	}
	c.Flags().StringVar(&scheme, "scheme", "", "`name` of the scheme, as a policy has it")
	choose(c, output, "output", "o", "output for people or for machines")
	_ = c.RegisterFlagCompletionFunc("scheme", completeSchemes)
	return c
}

// placing says what to do with a new secret.
func placing(info signature.Info) string {
	where := "the sender"
	if len(info.Also) == 0 {
		where = info.Provider
	}
	if info.Documentation != "" {
		where += " (" + info.Documentation + ")"
	}
	text := "hint: keep it in a file of its own, beside the old one, as a new version of the policy's secrets;\n" +
		"hint: once 'hookauthz secrets status' lists the version, give the same secret to " + where + "\n"
	if info.Secret != "" {
		text += "hint: the catalogue says of its secret: " + info.Secret + "; where the sender makes it itself, take that one\n"
	}
	return text
}

// findScheme finds a preset by its name or alias.
func findScheme(name string) (signature.Info, error) {
	all := signature.Presets()
	i := slices.IndexFunc(all, func(s signature.Info) bool { return name == s.Name || name == s.Alias && s.Alias != "" })
	if i < 0 {
		return signature.Info{}, failed(fmt.Sprintf("'hookauthz schemes --search %s' looks for it", quoted(name)), "no scheme is named %q", name)
	}
	return all[i], nil
}

func completeSchemes(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var names []cobra.Completion
	for _, s := range signature.Presets() {
		names = append(names, cobra.CompletionWithDesc(s.Name, s.Provider))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
