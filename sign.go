package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/secret"
)

// maxQuoted is the longest body that is written out as an argument in a curl command.
const maxQuoted = 64 << 10

// signed is the result of sign for machines.
type signed struct {
	Method     string         `json:"method"`
	URL        string         `json:"url"`
	Headers    []signedHeader `json:"headers"`
	BodyBase64 string         `json:"body_base64"`
}

type signedHeader struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func newSign(p process) *cobra.Command {
	var policies policyFlags
	var at instant
	var endpoint, version, body, url string
	output := oneOf("curl", "headers", "json")
	c := &cobra.Command{
		Use:   "sign --policies DIR --endpoint NAME [flags]",
		Short: "Make a valid delivery for a webhook, as a curl command",
		Long: `sign makes a delivery that the webhook's policy takes, signed with its secret, to try a set-up without the sender.
It prints a curl command, or the headers alone for curl -H @FILE, or JSON. The signature is printed, the secret
is not. Where the scheme has its signature in the body or signs parts of it, the body that is sent holds them: take
it from the curl command or the JSON.`,
		Example: `  hookauthz sign --policies policies/ --endpoint github --body body.json
  hookauthz sign --policies policies/ --endpoint github --body body.json --url https://127.0.0.1:8443/webhooks/github | sh
  echo '{"zen":"Design for failure."}' | hookauthz sign --policies policies/ --endpoint github --body - -o headers`,
		Args: takes(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			if endpoint == "" {
				return required(c, "endpoint")
			}
			set, err := policies.load(c, p, policy.TolerateMissingSecrets)
			if err != nil {
				return err
			}
			content, err := readBody(p.stdin, body)
			if err != nil {
				return err
			}
			delivery, err := set.Sign(endpoint, policy.SignOptions{Version: version, Time: at.or(p.now), Body: content, URL: url})
			if err != nil {
				warnOfSecrets(p.stderr, set, endpoint)
				return err
			}
			if len(delivery.Body) == 0 {
				fmt.Fprintln(p.stderr, "warning: the delivery has no body, which only a webhook with allowEmpty takes; give one with --body")
			}
			folder, err := filepath.Abs(policies.dir) // secret files are relative to it
			if err != nil {
				return err
			}
			headers, err := headerWords(secret.Source{LookupEnv: p.lookup, Dir: folder}, set, endpoint, delivery.Headers, output.value)
			if err != nil {
				return err
			}
			switch output.value {
			case "json":
				return printJSON(p.stdout, signedJSON(delivery))
			case "headers":
				if !bytes.Equal(delivery.Body, content) || url == "" && strings.Contains(delivery.URL, "?") || url != "" && delivery.URL != url {
					fmt.Fprintln(p.stderr, "warning: the scheme puts a part of the signature into the body or the URL, which the headers leave out; use -o curl or -o json")
				}
				for _, h := range delivery.Headers {
					fmt.Fprintf(p.stdout, "%s: %s\n", h.Name, h.Value)
				}
				return nil
			}
			file := body
			if file == "-" || !bytes.Equal(delivery.Body, content) { // the scheme puts something into the body
				file = ""
			}
			_, err = fmt.Fprintln(p.stdout, curl(delivery, headers, file))
			return err
		},
	}
	policies.add(c, false)
	f := c.Flags()
	f.StringVar(&endpoint, "endpoint", "", "`name` of the webhook")
	f.Var(&at, "at", "moment that is signed (default now)")
	f.StringVar(&version, "version", "", "secret `version` to sign with (default the first one in force)")
	f.StringVar(&body, "body", "", "`file` that holds the body, or - for standard input (default no body)")
	f.StringVar(&url, "url", "", "`URL` to send to (default from the policy's publicURL or match)")
	choose(c, output, "output", "o", "what to print")
	_ = c.RegisterFlagCompletionFunc("endpoint", completeEndpoints(p, &policies))
	return c
}

func signedJSON(d policy.SignedDelivery) signed {
	s := signed{Method: d.Method, URL: d.URL, Headers: []signedHeader{}, BodyBase64: base64.StdEncoding.EncodeToString(d.Body)}
	for _, h := range d.Headers {
		s.Headers = append(s.Headers, signedHeader(h))
	}
	return s
}

// headerWords are headers as words of a shell. A static token is the secret itself: it does not appear, the shell takes it from where
// it is kept. An output that no shell reads cannot have it.
func headerWords(from secret.Source, set *policy.Set, endpoint string, headers []policy.Header, output string) ([]string, error) {
	var kept []keptSecret
	for _, e := range set.Endpoints() {
		if e.Name == endpoint && e.Token {
			if output != "curl" {
				return nil, failed("-o curl leaves it where it is kept", "the scheme %s sends the secret itself, and no secret is printed", e.Scheme)
			}
			kept = keptSecrets(from, e)
		}
	}
	words := make([]string, 0, len(headers))
	hidden := kept == nil
	for _, h := range headers {
		word, found := headerWord(h, kept)
		words = append(words, word)
		hidden = hidden || found
	}
	if !hidden {
		return nil, failed("send it as the sender would", "the webhook %q takes the secret itself in another spelling, and no secret is printed", endpoint)
	}
	return words, nil
}

// keptSecret is a secret and how a shell gets at it.
type keptSecret struct {
	text      string
	expansion string
}

// keptSecrets are the secrets of an endpoint that can be read here. It is never nil.
func keptSecrets(from secret.Source, e policy.EndpointInfo) []keptSecret {
	kept := []keptSecret{}
	for _, v := range e.Versions {
		ref := secret.Ref{Env: v.Env, File: v.File}
		value, err := from.Read(ref)
		if err != nil {
			continue // such a version signs nothing
		}
		expansion := `"$` + v.Env + `"`
		if v.Env == "" {
			expansion = `"$(cat ` + quoted(from.Path(ref)) + `)"`
		}
		kept = append(kept, keptSecret{string(value.Reveal()), expansion})
	}
	return kept
}

// headerWord is a header as one word of a shell, and whether a kept secret was in it.
func headerWord(h policy.Header, kept []keptSecret) (word string, found bool) {
	for _, k := range kept {
		if before, after, ok := strings.Cut(h.Value, k.text); ok {
			word = quoted(h.Name+": "+before) + k.expansion
			if after != "" {
				word += quoted(after)
			}
			return word, true
		}
	}
	if h.Value == "" {
		return quoted(h.Name + ";"), false // curl's way to send a header without a value
	}
	return quoted(h.Name + ": " + h.Value), false
}

// curl writes a delivery as a command for a POSIX shell, with headers as words. The body is read from the file, where one is named.
func curl(d policy.SignedDelivery, headers []string, file string) string {
	var b strings.Builder
	data := ""
	switch {
	case file != "":
		data = "--data-binary " + quoted("@"+file)
	case len(d.Body) == 0:
	case isText(d.Body) && len(d.Body) <= maxQuoted:
		data = "--data-raw " + quoted(string(d.Body)) // which takes a leading @ as it is
	default:
		fmt.Fprintf(&b, "printf %s | ", printfFormat(d.Body))
		data = "--data-binary @-"
	}
	fmt.Fprintf(&b, "curl -X %s", quoted(d.Method))
	for _, h := range headers {
		fmt.Fprintf(&b, " \\\n  -H %s", h)
	}
	if data != "" {
		fmt.Fprintf(&b, " \\\n  %s", data)
	}
	fmt.Fprintf(&b, " \\\n  %s", quoted(d.URL))
	return b.String()
}

// isText says whether a shell and a terminal leave these bytes as they are.
func isText(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for _, c := range b {
		if (c < ' ' && c != '\n' && c != '\t') || c == 0x7f {
			return false
		}
	}
	return true
}

// quoted is text as one word of a POSIX shell.
func quoted(s string) string {
	plain := s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@=,+", r)
	}) < 0
	if plain {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// printfFormat is a format of the shell's printf that writes these bytes.
func printfFormat(body []byte) string {
	var b strings.Builder
	b.WriteByte('\'')
	for i, c := range body {
		switch {
		case i == 0 && c == '-': // no option
			b.WriteString(`\055`)
		case c == '%':
			b.WriteString("%%")
		case c >= ' ' && c < 0x7f && c != '\\' && c != '\'':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\%03o`, c)
		}
	}
	b.WriteByte('\'')
	return b.String()
}
