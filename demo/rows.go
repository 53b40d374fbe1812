package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hookauthz/hookauthz/e2e/stack"
)

// githubSignature is the signature of "Hello, World!" in GitHub's documentation.
const githubSignature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"

// row is one line of the table: a delivery and what must become of it.
type row struct {
	what string
	make func(context.Context, *stack.Stack) (stack.Delivery, error)
	// status is what the sender must see, forwarded says whether the application must get it.
	status    int
	forwarded bool
	// why is the reason of hookauthz, or "envoy" where Envoy refuses without asking.
	why string
	// patient rows are sent again while the answer is 503: the outcome of the row before is still on its way.
	patient bool
}

const (
	order   = `{"type":"order.made","id":"o_1"}`
	invoice = `{"type":"invoice.paid","amount":4200}`
)

// rows are sent in this order: some build on those before.
func rows() []row {
	hello := fixed(stack.Delivery{Path: "/webhooks/github", Body: []byte("Hello, World!"), Headers: []stack.Header{{"X-Hub-Signature-256", githubSignature}, {"X-GitHub-Event", "ping"}}})
	paid := kept(signed("stripe", invoice, 0))
	ordered := kept(signed("orders", order, 0))
	partner := signed("partner", `{"hello":"partner"}`, 0)
	return []row{
		{what: "GitHub's documented self-test pair", make: hello, status: 200, forwarded: true, why: "ok"},
		{what: "  its body changed", make: change(hello, func(d *stack.Delivery) { d.Body = []byte("Hello, Mallory!") }), status: 401, why: "signature_mismatch"},
		{what: "  signed with a guessed secret", make: change(hello, setHeader("X-Hub-Signature-256", "sha256="+strings.Repeat("0f", 32))), status: 401, why: "signature_mismatch"},
		{what: "  without a signature", make: change(hello, func(d *stack.Delivery) { d.Headers = nil }), status: 401, why: "signature_missing"},
		{what: "  with two signatures", make: change(hello, func(d *stack.Delivery) { d.Headers = append(d.Headers, d.Headers[0]) }), status: 401, why: "signature_malformed"},
		{what: "  sent again: forwarded with a mark", make: hello, status: 200, forwarded: true, why: "duplicate"},
		{what: "  with GET", make: change(hello, func(d *stack.Delivery) { d.Method, d.Body = http.MethodGet, nil }), status: 405, why: "method_not_allowed"},

		{what: "Stripe, signed with `hookauthz sign`", make: paid, status: 200, forwarded: true, why: "ok"},
		{what: "  replayed", make: paid, status: 409, why: "replayed"},
		{what: "  its amount changed", make: change(paid, replaceBody("4200", "9900")), status: 401, why: "signature_mismatch"},
		{what: "  signed an hour ago", make: signed("stripe", invoice, -time.Hour), status: 401, why: "timestamp_out_of_tolerance"},
		{what: "  as text/plain", make: change(signed("stripe", invoice, time.Second), setHeader("content-type", "text/plain")), status: 415, why: "unsupported_media_type"},

		{what: "Slack, signed with `hookauthz sign`", make: signed("slack", "command=/deploy&text=now", 0), status: 200, forwarded: true, why: "ok"},
		{what: "  its command changed", make: change(signed("slack", "command=/deploy&text=now", 0), replaceBody("now", "all")), status: 401, why: "signature_mismatch"},

		{what: "Standard Webhooks; the application fails", make: change(ordered, setHeader("x-app-status", "503")), status: 503, forwarded: true, why: "ok"},
		{what: "  so it may be sent again", make: ordered, status: 200, forwarded: true, why: "ok", patient: true},
		{what: "  but not once more", make: ordered, status: 409, why: "replayed", patient: true},

		{what: "GitLab with its token", make: gitlab, status: 200, forwarded: true, why: "ok"},
		{what: "  with a wrong one", make: change(gitlab, setHeader("x-gitlab-token", "guessed")), status: 401, why: "signature_mismatch"},

		{what: "A partner, from an allowed address", make: partner, status: 200, forwarded: true, why: "ok"},
		{what: "  from another address", make: change(partner, func(d *stack.Delivery) { d.From = "127.1.1.2" }), status: 403, why: "source_denied"},
		{what: "  from there, naming an allowed one", make: change(partner, func(d *stack.Delivery) {
			d.From = "127.1.1.2"
			d.Headers = append(d.Headers, stack.Header{"X-Forwarded-For", "203.0.113.1"})
		}), status: 403, why: "source_denied"},
		{what: "  larger than its policy allows", make: change(partner, func(d *stack.Delivery) { d.Body = bytes.Repeat([]byte(" "), 65<<10) }), status: 413, why: "body_too_large"},
		{what: "  4 more within its rate", make: flood, status: 200, forwarded: true, why: "ok"},
		{what: "  one over its rate", make: signed("partner", `{"number":6}`, 0), status: 429, why: "rate_limited"},

		{what: "A paused webhook", make: signed("retired", "{}", 0), status: 503, why: "paused"},
		{what: "Shadow mode: a wrong signature", make: change(signed("billing", "{}", 0), replaceBody("{}", "[]")), status: 200, forwarded: true, why: "shadow"},
		{what: "A sender that writes our headers", make: change(signed("slack", "spoofed", 0), setHeader("x-hookauthz-endpoint", "admin")), status: 200, forwarded: true, why: "ok"},
		{what: "Larger than Envoy takes", make: change(hello, func(d *stack.Delivery) { d.Body = bytes.Repeat([]byte(" "), 1<<20+1) }), status: 413, why: "envoy"},
		{what: "A path that no route has", make: change(hello, func(d *stack.Delivery) { d.Path = "/webhooks/unknown" }), status: 404, why: "envoy"},
		{what: "A path with an escaped slash", make: change(hello, func(d *stack.Delivery) { d.Path = "/webhooks%2fgithub" }), status: 400, why: "envoy"},
		{what: "A websocket upgrade", make: change(hello, func(d *stack.Delivery) {
			d.Headers = append(d.Headers, stack.Header{"Connection", "Upgrade"}, stack.Header{"Upgrade", "websocket"})
		}), status: 403, why: "envoy"},
	}
}

// show sends all rows and prints the table as they come back. It returns how many are not as they must be.
func show(ctx context.Context, s *stack.Stack, out io.Writer) (wrong int, err error) {
	const format = "%-42s %-29s %-12s %s\n"
	fmt.Fprintf(out, "\n"+format, "WHAT WAS SENT", "THE SENDER SAW", "APPLICATION", "WHY")
	for n, r := range rows() {
		got, err := send(ctx, s, fmt.Sprintf("demo/%d", n+1), r)
		if err != nil {
			return wrong, fmt.Errorf("%s: %w", strings.TrimSpace(r.what), err)
		}
		application := map[bool]string{true: "got it", false: "-"}[got.forwarded]
		fmt.Fprintf(out, format, r.what, fmt.Sprintf("%d %s", got.status, http.StatusText(got.status)), application, got.why)
		if got.status != r.status || got.forwarded != r.forwarded || got.reason != r.why {
			wrong++
			fmt.Fprintf(out, format, "  ^ WRONG, wanted:", fmt.Sprint(r.status), map[bool]string{true: "got it", false: "-"}[r.forwarded], r.why)
		}
	}
	return wrong, nil
}

// seen is what became of a row.
type seen struct {
	status    int
	forwarded bool
	reason    string
	why       string // the reason, with more words
}

func send(ctx context.Context, s *stack.Stack, agent string, r row) (seen, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var d stack.Delivery
	var reply stack.Reply
	try := 0
	err := stack.Poll(ctx, func() (err error) {
		if d, err = r.make(ctx, s); err != nil {
			return stack.Final(err)
		}
		try++
		d.Agent = fmt.Sprintf("%s.%d", agent, try)
		if reply, err = s.Send(ctx, d); err != nil {
			return stack.Final(err)
		}
		if r.patient && reply.Status == http.StatusServiceUnavailable {
			return fmt.Errorf("still %d", reply.Status)
		}
		return nil
	})
	if err != nil {
		return seen{}, err
	}
	arrived, err := s.Received(d.Agent)
	if err != nil {
		return seen{}, err
	}
	got := seen{status: reply.Status, forwarded: len(arrived) > 0}
	for _, a := range arrived {
		// Whatever passes must arrive as it was sent, and vouched for by nobody but hookauthz.
		if !bytes.Equal(a.Body, d.Body) {
			return seen{}, fmt.Errorf("the application got another body than was sent")
		}
		if e := a.Headers.Values("X-Hookauthz-Endpoint"); len(e) > 1 || len(e) == 1 && !strings.HasSuffix(d.Path, "/"+e[0]) {
			return seen{}, fmt.Errorf("the application was told the endpoint %q", e)
		}
	}
	err = stack.Poll(ctx, func() error {
		lines := s.AccessLog(d.Agent)
		if len(lines) == 0 {
			return fmt.Errorf("no line of it in Envoy's access log")
		}
		got.reason, got.why = explain(lines[0], reply)
		return nil
	})
	return got, err
}

// explain is the reason of a decision, from the metadata in Envoy's access log.
func explain(line map[string]any, reply stack.Reply) (reason, why string) {
	reason, ok := line["reason"].(string)
	if !ok {
		return "envoy", fmt.Sprintf("refused by Envoy itself: %v", line["details"])
	}
	why = reason
	if shadow, ok := line["shadow"].(string); ok && shadow != "" {
		why += ": would be " + shadow
	}
	if after := reply.Header.Get("Retry-After"); reason == "rate_limited" {
		why += ", retry after " + after + " s"
	}
	return reason, why
}

// flood sends all but the last of what is left of the partner's burst of 5, and gives the last back to be sent.
func flood(ctx context.Context, s *stack.Stack) (stack.Delivery, error) {
	for n := 2; ; n++ {
		d, err := signed("partner", fmt.Sprintf(`{"number":%d}`, n), 0)(ctx, s)
		if err != nil || n == 5 {
			return d, err
		}
		r, err := s.Send(ctx, d)
		if err != nil {
			return d, err
		}
		if r.Status != http.StatusOK {
			return d, fmt.Errorf("number %d of 5: status %d, want 200", n, r.Status)
		}
	}
}

// maker makes a delivery.
type maker = func(context.Context, *stack.Stack) (stack.Delivery, error)

func fixed(d stack.Delivery) maker {
	return func(context.Context, *stack.Stack) (stack.Delivery, error) { return d, nil }
}

// signed makes a delivery with `hookauthz sign`, at a moment that is so far from now.
func signed(endpoint, body string, off time.Duration) maker {
	return func(ctx context.Context, s *stack.Stack) (stack.Delivery, error) {
		policies, err := s.Policies()
		if err != nil {
			return stack.Delivery{}, err
		}
		at := time.Now().Add(off).UTC().Format(time.RFC3339)
		out, err := s.Run(ctx, []byte(body), "sign", "--policies", policies, "--endpoint", endpoint, "--at", at, "--body", "-", "-o", "json")
		if err != nil {
			return stack.Delivery{}, err
		}
		var made struct {
			Method  string
			Headers []struct{ Name, Value string }
		}
		if err := json.Unmarshal(out, &made); err != nil {
			return stack.Delivery{}, fmt.Errorf("hookauthz sign -o json: %w", err)
		}
		d := stack.Delivery{Method: made.Method, Path: "/webhooks/" + endpoint, Body: []byte(body)}
		for _, h := range made.Headers {
			d.Headers = append(d.Headers, stack.Header{h.Name, h.Value})
		}
		return d, nil
	}
}

// gitlab makes a delivery with the token itself, which sign does not print.
func gitlab(_ context.Context, s *stack.Stack) (stack.Delivery, error) {
	policies, err := s.Policies()
	if err != nil {
		return stack.Delivery{}, err
	}
	token, err := os.ReadFile(filepath.Join(policies, "..", "secrets", "gitlab"))
	return stack.Delivery{
		Path: "/webhooks/gitlab", Body: []byte(`{"object_kind":"push"}`),
		Headers: []stack.Header{{"X-Gitlab-Token", strings.TrimSpace(string(token))}, {"X-Gitlab-Event", "Push Hook"}},
	}, err
}

// kept makes the delivery once and gives the same one every time.
func kept(m maker) maker {
	var d stack.Delivery
	return func(ctx context.Context, s *stack.Stack) (stack.Delivery, error) {
		if d.Path != "" {
			return d, nil
		}
		var err error
		d, err = m(ctx, s)
		return d, err
	}
}

// change makes a delivery and changes it. The original stays as it is.
func change(m maker, edit func(*stack.Delivery)) maker {
	return func(ctx context.Context, s *stack.Stack) (stack.Delivery, error) {
		d, err := m(ctx, s)
		d = d.With()
		edit(&d)
		return d, err
	}
}

func replaceBody(from, to string) func(*stack.Delivery) {
	return func(d *stack.Delivery) { d.Body = []byte(strings.Replace(string(d.Body), from, to, 1)) }
}

// setHeader puts a header in the place of those of its name.
func setHeader(name, value string) func(*stack.Delivery) {
	return func(d *stack.Delivery) {
		var rest []stack.Header
		for _, h := range d.Headers {
			if !strings.EqualFold(h[0], name) {
				rest = append(rest, h)
			}
		}
		d.Headers = append(rest, stack.Header{name, value})
	}
}
