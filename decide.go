package main

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/fetch"
	"github.com/hookauthz/hookauthz/policy/source"
	"github.com/hookauthz/hookauthz/policy/store"
)

// certificateWait is how long decide waits for a certificate: nobody waits for its answer.
const certificateWait = 10 * time.Second

// verdict is the result of decide for machines.
type verdict struct {
	Decision      string        `json:"decision"`
	Reason        string        `json:"reason"`
	Endpoint      string        `json:"endpoint"`
	Status        int           `json:"status"` // of a denial or an answer; 0 for an allow
	SecretVersion string        `json:"secret_version"`
	DeliveryID    string        `json:"delivery_id"`
	Steps         []policy.Step `json:"steps"`
}

// deliveryFlags describe a delivery on the command line.
type deliveryFlags struct {
	at       instant
	from     address
	method   string
	headers  []string
	body     string
	endpoint string
}

func newDecide(p process) *cobra.Command {
	var policies policyFlags
	delivery := deliveryFlags{from: address{netip.AddrFrom4([4]byte{127, 0, 0, 1})}}
	output := oneOf("text", "json")
	c := &cobra.Command{
		Use:   "decide --policies DIR [flags] URL",
		Short: "Decide one delivery as serve would, and say why step by step",
		Long: `decide takes the place of Envoy for one delivery: it decides by the same policies and with the same code as
serve, and says what came of each step. Nothing is sent to the application. It starts with an empty memory:
nothing was seen before and no limit is spent. Where the scheme takes its key from a certificate that the
delivery names (aws-sns, paypal), that is fetched from the sender's host, as serve does.

The URL's host and path, as written, select the policy. Headers are those that reach Envoy; what Envoy itself
adds, and content-length, are filled in.`,
		Example: `  hookauthz decide --policies policies/ --body body.json \
    -H 'X-Hub-Signature-256: sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17' \
    https://hooks.example.com/webhooks/github

  # was this delivery good when it came, from that address?
  hookauthz decide --policies policies/ --at 2026-11-24T08:00:00Z --from 54.187.174.169 --body - \
    -H "Stripe-Signature: $SIGNATURE" https://hooks.example.com/webhooks/stripe < body.json`,
		Args: takes(1, 1, "one URL"),
		RunE: func(c *cobra.Command, args []string) error {
			request, err := delivery.request(p, args[0])
			if err != nil {
				return err
			}
			set, err := policies.load(c, p, policy.TolerateMissingSecrets)
			if err != nil {
				return err
			}
			certificates := fetch.NewCertificates(fetch.CertificatesConfig{Wait: certificateWait, IssuerHosts: issuerHosts, Now: p.now})
			defer certificates.Close()
			engine := policy.NewEngine(set, policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{}), Certificates: certificates})
			decision, steps := engine.Explain(c.Context(), request)
			warnOfSecrets(p.stderr, set, decision.Endpoint)
			if output.value == "json" {
				err = printJSON(p.stdout, verdict{
					Decision:      decision.Outcome.String(),
					Reason:        decision.Reason.String(),
					Endpoint:      decision.Endpoint,
					Status:        decision.Status,
					SecretVersion: decision.SecretVersion,
					DeliveryID:    decision.DeliveryID,
					Steps:         steps,
				})
			} else {
				err = explain(p.stdout, decision, steps)
			}
			if err == nil && decision.Outcome == policy.Deny {
				err = errSaid
			}
			return err
		},
	}
	policies.add(c, false)
	f := c.Flags()
	f.Var(&delivery.at, "at", "moment of the delivery (default now)")
	f.Var(&delivery.from, "from", "address of the peer that Envoy sees")
	f.StringVarP(&delivery.method, "request", "X", "POST", "`method`")
	f.StringArrayVarP(&delivery.headers, "header", "H", nil, "`'Name: value'`, or @FILE with one on each line; as often as needed")
	f.StringVar(&delivery.body, "body", "", "`file` that holds the body, or - for standard input (default no body)")
	f.StringVar(&delivery.endpoint, "endpoint", "", "`name` of the webhook, where Envoy's route gives it as hookauthz.endpoint")
	choose(c, output, "output", "o", "output for people or for machines")
	_ = c.RegisterFlagCompletionFunc("endpoint", completeEndpoints(p, &policies))
	return c
}

// request is the delivery as Envoy hands it to serve.
func (f *deliveryFlags) request(p process, rawURL string) (*policy.Request, error) {
	host, target, err := splitURL(rawURL)
	if err != nil {
		return nil, err
	}
	headers, err := f.readHeaders()
	if err != nil {
		return nil, err
	}
	chunked := hasHeader(headers, "transfer-encoding")
	headers = slices.DeleteFunc(headers, func(h policy.Header) bool {
		if h.Name == "host" {
			host = h.Value
		}
		return h.Name == "host" || h.Name == "transfer-encoding" // Envoy takes both off
	})
	body, err := readBody(p.stdin, f.body)
	if err != nil {
		return nil, err
	}
	r := &policy.Request{
		Time:     f.at.or(p.now),
		Named:    f.endpoint != "",
		Endpoint: f.endpoint,
		Method:   f.method,
		Host:     host,
		Path:     target,
		Headers: append([]policy.Header{
			{Name: ":authority", Value: host},
			{Name: ":path", Value: target},
			{Name: ":method", Value: f.method},
			{Name: ":scheme", Value: "https"},
		}, headers...),
		Peer: f.from.Addr,
	}
	if f.body != "" && !chunked && !hasHeader(headers, "content-length") {
		r.Headers = append(r.Headers, policy.Header{Name: "content-length", Value: strconv.Itoa(len(body))})
	}
	if len(body) > 0 { // Envoy buffers nothing where there is nothing
		r.Body, r.BodyState = [][]byte{body}, policy.WholeBody
		r.Headers = append(r.Headers, policy.Header{Name: "x-envoy-auth-partial-body", Value: "false"})
	}
	return r, nil
}

// splitURL cuts a URL into its host and the request target, which stays as written: how a path is spelt matters here.
func splitURL(raw string) (host, target string, err error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	host, target = rest[:end], rest[end:]
	if !ok || (scheme != "https" && scheme != "http") || host == "" || strings.Contains(host, "@") {
		return "", "", misused("write it as https://hooks.example.com/webhooks/github", "the URL %q has no host to select a policy by", raw)
	}
	if !strings.HasPrefix(target, "/") {
		target = "/" + target
	}
	return host, target, nil
}

// readHeaders reads the headers that --header flags give, as text or, as for curl, as @FILE.
func (f *deliveryFlags) readHeaders() ([]policy.Header, error) {
	var lines []string
	for _, text := range f.headers {
		name, ok := strings.CutPrefix(text, "@")
		if !ok {
			lines = append(lines, text)
			continue
		}
		data, err := readFile(name)
		if err != nil {
			return nil, fmt.Errorf("reading headers: %w", err)
		}
		for line := range strings.Lines(string(data)) {
			if line = strings.TrimRight(line, "\r\n"); line != "" {
				lines = append(lines, line)
			}
		}
	}
	var headers []policy.Header
	for _, line := range lines {
		h, err := parseHeader(line)
		if err != nil {
			return nil, err
		}
		headers = append(headers, h)
	}
	return headers, nil
}

func parseHeader(text string) (policy.Header, error) {
	name, value, ok := strings.Cut(text, ":")
	if !ok || name == "" || strings.ContainsAny(name, " \t\r\n") || strings.ContainsAny(value, "\r\n\x00") {
		// The text may hold a signature or a token, so it is not shown.
		return policy.Header{}, misused("write it as -H 'X-Hub-Signature-256: sha256=...'", "a --header has no \"Name: value\" form")
	}
	return policy.Header{Name: strings.ToLower(name), Value: strings.Trim(value, " \t")}, nil
}

func hasHeader(headers []policy.Header, name string) bool {
	for _, h := range headers {
		if h.Name == name {
			return true
		}
	}
	return false
}

// explain writes a decision for people.
func explain(w io.Writer, d policy.Decision, steps []policy.Step) error {
	facts := [][]string{
		{"instead of", shadowed(d)},
		{"sender sees", seen(d)},
		{"endpoint", d.Endpoint},
		{"scheme", d.Scheme},
		{"secret version", d.SecretVersion},
		{"delivery id", d.DeliveryID},
		{"event type", d.Event},
	}
	facts = slices.DeleteFunc(facts, func(f []string) bool { return f[1] == "" })
	rows := make([][]string, 0, len(steps))
	for _, s := range steps {
		rows = append(rows, []string{s.Name, s.Result, s.Detail})
	}
	_, err := fmt.Fprintf(w, "%s: %s\n%ssteps:\n%s", d.Outcome, d.Reason, columns(facts), columns(rows))
	return err
}

// shadowed is the reason that a shadow policy overruled.
func shadowed(d policy.Decision) string {
	if d.Reason != policy.Shadow {
		return ""
	}
	return d.Shadow.String()
}

// seen is what goes back to the sender of a delivery that is not forwarded.
func seen(d policy.Decision) string {
	switch d.Outcome {
	case policy.Allow:
		return ""
	case policy.Answer:
		return fmt.Sprintf("%d", d.Status)
	}
	s := fmt.Sprintf("%d %s", d.Status, d.Reason.Message())
	if d.RetryAfter > 0 {
		s += fmt.Sprintf(", retry after %s", d.RetryAfter)
	}
	return s
}

// warnOfSecrets says which secrets of an endpoint could not be read, as that may be why a delivery is denied.
func warnOfSecrets(w io.Writer, set *policy.Set, endpoint string) {
	for _, f := range set.SecretFaults() {
		if f.Webhook == endpoint {
			fmt.Fprintf(w, "warning: %s\n", f)
		}
	}
}

// address is an IP address as a flag.
type address struct{ netip.Addr }

func (a *address) Set(text string) error {
	parsed, err := source.ParseAddr(text)
	if err != nil {
		return err
	}
	a.Addr = parsed
	return nil
}

func (*address) Type() string { return "address" }
