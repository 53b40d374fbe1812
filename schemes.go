package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/hookauthz/hookauthz/policy/signature"
)

// preset is one scheme of the catalogue for machines.
type preset struct {
	Name          string         `json:"name"`
	Alias         string         `json:"alias,omitempty"`
	Provider      string         `json:"provider"`
	Also          []string       `json:"also,omitempty"`
	Documentation string         `json:"documentation,omitempty"`
	Algorithm     string         `json:"algorithm"`
	Facts         facts          `json:"facts"`
	Secret        string         `json:"secret,omitempty"`
	SecretExample string         `json:"secretExample,omitempty"`
	DeliveryID    string         `json:"deliveryID,omitempty"`
	EventType     string         `json:"eventType,omitempty"`
	Retries       string         `json:"retries,omitempty"`
	Handshake     string         `json:"handshake,omitempty"`
	Notes         string         `json:"notes,omitempty"`
	Confidence    string         `json:"confidence,omitempty"`
	Sources       []string       `json:"sources,omitempty"`
	Scheme        map[string]any `json:"scheme"`
	Policy        string         `json:"policy"`

	written string // the scheme as YAML
}

// facts are what follows from a scheme for those who use it.
type facts struct {
	BodySigned      bool     `json:"bodySigned"`
	Timestamp       bool     `json:"timestamp"`
	TimestampSigned bool     `json:"timestampSigned"`
	Tolerance       string   `json:"tolerance"` // "" where the sender documents none
	Nonce           bool     `json:"nonce"`
	FreshPerAttempt bool     `json:"freshPerAttempt"`
	Token           bool     `json:"token"`
	PublicKey       bool     `json:"publicKey"`
	Certificate     bool     `json:"certificate"` // the public key is that of a certificate which each delivery names
	Topics          bool     `json:"topics"`      // the policy must say topics
	WebhookID       bool     `json:"webhookID"`   // the policy must say webhookID
	SignsURL        bool     `json:"signsURL"`
	IDSigned        bool     `json:"idSigned"`
	EventSigned     bool     `json:"eventSigned"`
	Headers         []string `json:"headers"`
}

func newSchemes(p process) *cobra.Command {
	var search string
	output := oneOf("text", "json")
	c := &cobra.Command{
		Use:   "schemes [NAME]",
		Short: "List the signature schemes that are built in, or show one in full",
		Long: `schemes lists the presets: the ways in which known senders sign, by the name that a policy uses. With a name it
shows that scheme in full, with a policy to start from.`,
		Example: `  hookauthz schemes
  hookauthz schemes --search git
  hookauthz schemes stripe
  hookauthz schemes stripe -o json`,
		Args: takes(0, 1, "at most one name"),
		RunE: func(c *cobra.Command, args []string) error {
			all := signature.Presets()
			if len(args) == 1 {
				info, err := findScheme(args[0])
				if err != nil {
					return err
				}
				full, err := describe(info)
				if err != nil {
					return err
				}
				if output.value == "json" {
					return printJSON(p.stdout, full)
				}
				return show(p.stdout, full)
			}
			found := []preset{}
			for _, info := range all {
				if !matches(info, search) {
					continue
				}
				d, err := describe(info)
				if err != nil {
					return err
				}
				found = append(found, d)
			}
			if output.value == "json" {
				return printJSON(p.stdout, found)
			}
			if len(found) == 0 {
				return failed("'hookauthz schemes' lists all; docs/schemes.md says how to write one inline", "no scheme matches %q", search)
			}
			return list(p.stdout, found)
		},
		ValidArgsFunction: completeSchemes,
	}
	c.Flags().StringVar(&search, "search", "", "list only those with this `text` in their name or provider")
	choose(c, output, "output", "o", "output for people or for machines")
	return c
}

// matches looks for a text in all the names of a scheme and of those who use it.
func matches(s signature.Info, search string) bool {
	names := append([]string{s.Name, s.Alias, s.Provider}, s.Also...)
	return slices.ContainsFunc(names, func(name string) bool {
		return strings.Contains(strings.ToLower(name), strings.ToLower(search))
	})
}

func describe(info signature.Info) (preset, error) {
	d := preset{
		Name:          info.Name,
		Alias:         info.Alias,
		Provider:      info.Provider,
		Also:          info.Also,
		Documentation: info.Documentation,
		Algorithm:     info.Spec.Alg,
		Secret:        info.Secret,
		SecretExample: info.SecretExample,
		DeliveryID:    info.DeliveryID,
		EventType:     info.EventType,
		Retries:       info.Retries,
		Handshake:     info.Handshake,
		Notes:         info.Notes,
		Confidence:    info.Confidence,
		Sources:       info.Sources,
	}
	scheme, ok := signature.Preset(info.Name)
	if !ok {
		return preset{}, fmt.Errorf("the scheme %q is listed and is not there", info.Name)
	}
	d.Facts = factsOf(scheme)
	var err error
	if d.written, err = written(info.Spec); err != nil {
		return preset{}, fmt.Errorf("writing the scheme %q: %w", info.Name, err)
	}
	if err := yaml.Unmarshal([]byte(d.written), &d.Scheme); err != nil {
		return preset{}, fmt.Errorf("writing the scheme %q: %w", info.Name, err)
	}
	d.Policy = startingPolicy(d)
	return d, nil
}

func factsOf(s *signature.Scheme) facts {
	f := facts{
		BodySigned:      s.BodySigned(),
		Timestamp:       s.HasTimestamp(),
		TimestampSigned: s.TimestampSigned(),
		Nonce:           s.Nonce(),
		FreshPerAttempt: s.FreshPerAttempt(),
		Token:           s.IsToken(),
		PublicKey:       s.NeedsPublicKey(),
		Certificate:     s.NeedsCertificate(),
		Topics:          s.NeedsTopics(),
		WebhookID:       s.NeedsWebhookID(),
		SignsURL:        s.NeedsURL(),
		IDSigned:        s.IDSigned(),
		EventSigned:     s.EventSigned(),
		Headers:         append([]string{}, s.Headers()...),
	}
	if t := s.Tolerance(); t > 0 {
		f.Tolerance = t.String()
	}
	return f
}

// written is a scheme as people write it inline: in the order of the language, without what is left out.
func written(s signature.Spec) (string, error) {
	var n yaml.Node
	if err := n.Encode(s); err != nil {
		return "", err
	}
	prune(&n)
	for i := 1; i < len(n.Content); i += 2 {
		if n.Content[i].Kind == yaml.MappingNode {
			n.Content[i].Style = yaml.FlowStyle
		}
	}
	var b strings.Builder
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&n); err != nil {
		return "", err
	}
	return b.String(), e.Close()
}

// prune drops what is empty and writes a list of one as that one.
func prune(n *yaml.Node) {
	var kept []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch value.Kind {
		case yaml.MappingNode:
			prune(value)
		case yaml.SequenceNode:
			for _, element := range value.Content {
				if element.Kind == yaml.MappingNode {
					prune(element)
				}
			}
			if len(value.Content) == 1 && value.Content[0].Kind == yaml.ScalarNode {
				value = value.Content[0]
			}
		}
		if !isEmpty(value) {
			kept = append(kept, key, value)
		}
	}
	n.Content = kept
}

func isEmpty(n *yaml.Node) bool {
	if n.Kind != yaml.ScalarNode {
		return len(n.Content) == 0
	}
	switch n.Tag {
	case "!!null":
		return true
	case "!!bool":
		return n.Value == "false"
	case "!!int":
		return n.Value == "0"
	}
	return n.Value == ""
}

// startingPolicy is a policy for a preset that needs no more than its names changed.
func startingPolicy(d preset) string {
	variable := strings.ToUpper(strings.ReplaceAll(d.Name, "-", "_"))
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: hookauthz.io/v1alpha1
kind: WebhookPolicy
metadata: {name: %s}
spec:
  match: {hosts: [hooks.example.com], paths: [/webhooks/%[1]s]}
  signature:
    scheme: %[1]s
`, d.Name)
	if d.Facts.Timestamp && d.Facts.TimestampSigned && d.Facts.Tolerance == "" {
		tolerance := "5m"
		switch { // their retries carry the time of the first attempt, or may
		case d.Facts.Topics:
			tolerance = "65m"
		case d.Facts.WebhookID:
			tolerance = "3d"
		}
		fmt.Fprintf(&b, "    tolerance: %s\n", tolerance)
	}
	if d.Facts.SignsURL {
		fmt.Fprintf(&b, "    publicURL: https://hooks.example.com/webhooks/%s\n", d.Name)
	}
	if !d.Facts.BodySigned && !d.Facts.Token {
		b.WriteString("    acceptUnsignedBody: true\n")
	}
	switch {
	case d.Facts.Topics:
		b.WriteString("    topics: [arn:aws:sns:eu-west-1:123456789012:orders]\n")
	case d.Facts.WebhookID:
		b.WriteString("    webhookID: 4JH86294D6297924G\n")
	case d.Facts.PublicKey:
		fmt.Fprintf(&b, "    publicKeys:\n      - {version: \"1\", env: %s_PUBLIC_KEY}\n", variable)
	default:
		fmt.Fprintf(&b, "    secrets:\n      - {version: \"1\", env: %s_WEBHOOK_SECRET}\n", variable)
	}
	return b.String()
}

// list writes one line for each scheme.
func list(w io.Writer, schemes []preset) error {
	rows := [][]string{{"NAME", "PROVIDER", "ALGORITHM", "NOTES"}}
	for _, s := range schemes {
		rows = append(rows, []string{s.Name, s.Provider, s.Algorithm, strings.Join(notes(s.Facts), ", ")})
	}
	_, err := io.WriteString(w, columns(rows))
	return err
}

// notes are the facts that an operator should know before choosing.
func notes(f facts) []string {
	var n []string
	if f.Token {
		return []string{"static token: signs nothing"}
	}
	if !f.BodySigned {
		n = append(n, "body not signed")
	}
	if f.TimestampSigned {
		n = append(n, "timestamp")
	}
	if f.SignsURL {
		n = append(n, "signs the URL")
	}
	switch {
	case f.Certificate:
		n = append(n, "certificate")
	case f.PublicKey:
		n = append(n, "public key")
	}
	return n
}

// show writes one scheme in full.
func show(w io.Writer, s preset) error {
	yes := map[bool]string{true: "yes", false: "no"}
	rows := [][]string{
		{"also named", s.Alias},
		{"provider", s.Provider},
		{"used by", strings.Join(s.Also, ", ")},
		{"documentation", s.Documentation},
		{"headers", strings.Join(s.Facts.Headers, ", ")},
		{"body signed", yes[s.Facts.BodySigned]},
		{"timestamp", timestampWords(s.Facts)},
		{"each attempt signed anew", yes[s.Facts.FreshPerAttempt]},
		{"secret", s.Secret},
		{"secret looks like", s.SecretExample},
		{"delivery id", s.DeliveryID},
		{"delivery id signed", yes[s.Facts.IDSigned]},
		{"event type", s.EventType},
		{"event type signed", yes[s.Facts.EventSigned]},
		{"retries", s.Retries},
		{"handshake", s.Handshake},
		{"notes", s.Notes},
		{"confidence", s.Confidence},
	}
	for _, source := range s.Sources {
		rows = append(rows, []string{"source", source})
	}
	rows = slices.DeleteFunc(rows, func(row []string) bool { return row[1] == "" })
	_, err := fmt.Fprintf(w, "%s\n%s\nscheme, as it would be written inline:\n%s\na policy to start from:\n%s",
		s.Name, columns(rows), indented(s.written), indented(s.Policy))
	return err
}

func timestampWords(f facts) string {
	switch {
	case !f.Timestamp:
		return "none"
	case !f.TimestampSigned:
		return "not signed: it proves nothing"
	case f.Tolerance == "":
		return "signed; the sender documents no tolerance"
	}
	return "signed; tolerance " + f.Tolerance
}

func indented(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n  ") + "\n"
}
