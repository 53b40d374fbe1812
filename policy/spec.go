package policy

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/hookauthz/hookauthz/policy/rate"
	"github.com/hookauthz/hookauthz/policy/signature"
	"github.com/hookauthz/hookauthz/policy/source"
)

// APIVersion is the apiVersion of every policy document.
const APIVersion = "hookauthz.io/v1alpha1"

// The types below are the policy language as written. Their tags give the keys; doc goes into the JSON Schema.

type metadataSpec struct {
	Name   string            `yaml:"name" doc:"Name of the endpoint: lower-case letters, digits, '-', '_' and '.'."`
	Labels map[string]string `yaml:"labels" doc:"Labels for people and tools; they decide nothing."`
}

type webhookSpec struct {
	Match          *matchSpec        `yaml:"match" doc:"Which deliveries this policy decides. May be absent where Envoy's route names the policy."`
	Mode           modeSpec          `yaml:"mode" doc:"enforce (the default), or shadow: decide and report, but let the delivery through."`
	PausedUntil    time.Time         `yaml:"pausedUntil" doc:"Until this moment every delivery gets 503."`
	Body           bodySpec          `yaml:"body" doc:"What the body must be."`
	Source         sourceSpec        `yaml:"source" doc:"Addresses that may send."`
	ClientAddress  clientAddressSpec `yaml:"clientAddress" doc:"Where the sender's address stands."`
	Signature      signatureSpec     `yaml:"signature" doc:"How deliveries are signed, and with what."`
	Failures       failuresSpec      `yaml:"failures" doc:"How many failed verifications an address has before it gets 429 for them."`
	RateLimits     []rateLimitSpec   `yaml:"rateLimits" doc:"Limits of verified deliveries. All of them must hold."`
	Replay         replaySpec        `yaml:"replay" doc:"What happens to a delivery that was seen before."`
	Handshake      handshakeSpec     `yaml:"handshake" doc:"Whether unsigned handshakes of the provider are answered."`
	OnStoreFailure storeFailureSpec  `yaml:"onStoreFailure" doc:"What decides while the store is away: local (the default: this replica's own share), deny or allow."`
	Log            logSpec           `yaml:"log" doc:"What is logged."`
}

// defaultsSpec is what WebhookDefaults may hold: all of a webhook but what only one can have.
type defaultsSpec struct {
	PausedUntil    time.Time         `yaml:"pausedUntil"`
	Body           bodySpec          `yaml:"body"`
	Source         sourceSpec        `yaml:"source"`
	ClientAddress  clientAddressSpec `yaml:"clientAddress"`
	Signature      defaultsSignature `yaml:"signature"`
	Failures       failuresSpec      `yaml:"failures"`
	RateLimits     []rateLimitSpec   `yaml:"rateLimits"`
	Replay         replaySpec        `yaml:"replay"`
	Handshake      handshakeSpec     `yaml:"handshake"`
	OnStoreFailure storeFailureSpec  `yaml:"onStoreFailure"`
	Log            logSpec           `yaml:"log"`
}

type defaultsSignature struct {
	Tolerance          *durationSpec `yaml:"tolerance"`
	PublicURL          string        `yaml:"publicURL"`
	AcceptUnsignedBody bool          `yaml:"acceptUnsignedBody"`
}

type matchSpec struct {
	Hosts   []string `yaml:"hosts" doc:"Host names without a port. *.example.com is every name that ends in .example.com. Absent: any host."`
	Paths   []string `yaml:"paths" doc:"Paths without a query. /a/* is every path that begins with /a/."`
	Methods []string `yaml:"methods" doc:"Methods that the endpoint takes. Default: POST."`
}

type bodySpec struct {
	MaxBytes     sizeSpec `yaml:"maxBytes" doc:"Largest body. Default: 1MiB."`
	ContentTypes []string `yaml:"contentTypes" doc:"Media types that the endpoint takes, without parameters. Absent: any."`
	AllowEmpty   bool     `yaml:"allowEmpty" doc:"Take deliveries without a body."`
}

type sourceSpec struct {
	Allow []netip.Prefix `yaml:"allow" doc:"Only these addresses may send. Absent: any."`
	Deny  []netip.Prefix `yaml:"deny" doc:"These addresses may not send, even where allow has them."`
	Lists []string       `yaml:"lists" doc:"Names of published address lists that count as allow."`
}

type clientAddressSpec struct {
	From           source.From    `yaml:"from" doc:"peer (the default), xForwardedFor or header."`
	TrustedProxies []netip.Prefix `yaml:"trustedProxies" doc:"Proxies whose word is taken. Name proxies, not networks."`
	TrustedHops    *int           `yaml:"trustedHops" doc:"Number of proxies in front of Envoy, as Envoy's xff_num_trusted_hops."`
	Header         string         `yaml:"header" doc:"Header that Envoy itself overwrites with the client's address."`
}

type signatureSpec struct {
	Scheme             schemeSpec    `yaml:"scheme" doc:"Name of a preset, or a scheme in the language of docs/schemes.md."`
	Tolerance          *durationSpec `yaml:"tolerance" doc:"How far a signed timestamp may be from now, either way."`
	PublicURL          string        `yaml:"publicURL" doc:"The URL that the sender was given, for schemes that sign it. The request's query is appended."`
	AcceptUnsignedBody bool          `yaml:"acceptUnsignedBody" doc:"Needed for a scheme that does not sign the body; for aws-sns, takes messages with attributes."`
	Secrets            []secretSpec  `yaml:"secrets" doc:"Shared secrets; any that is in force may match."`
	PublicKeys         []keySpec     `yaml:"publicKeys" doc:"Public keys, for asymmetric schemes; any that is in force may match."`
	Topics             []string      `yaml:"topics" doc:"ARNs of the Amazon SNS topics whose messages are taken, for aws-sns."`
	WebhookID          string        `yaml:"webhookID" doc:"The id that the sender gave to the webhook, for paypal, which signs it."`
}

// schemeSpec is a preset's name or an inline scheme.
type schemeSpec struct {
	Name   string
	Inline *signature.Spec
}

type secretSpec struct {
	Version      string    `yaml:"version" doc:"Name of this version, for logs and metrics."`
	Env          string    `yaml:"env" doc:"Environment variable that holds the secret."`
	File         string    `yaml:"file" doc:"File that holds the secret; a relative one is relative to the policy file. One trailing newline is dropped."`
	Dir          string    `yaml:"dir" doc:"Folder each of whose files is a version, by the file's name. Only environments goes beside it."`
	NotBefore    time.Time `yaml:"notBefore" doc:"First moment at which the version is good."`
	NotAfter     time.Time `yaml:"notAfter" doc:"Moment from which the version is no longer good."`
	Environments []string  `yaml:"environments" doc:"Only servers started with one of these as --environment use the version."`
	Revoked      bool      `yaml:"revoked" doc:"A signature made with it is denied as secret_expired."`
	Decoy        bool      `yaml:"decoy" doc:"Never handed out: its use is denied, and an alarm."`
}

type keySpec struct {
	Version      string    `yaml:"version" doc:"Name of this version, for logs and metrics."`
	Value        string    `yaml:"value" doc:"The key itself: PEM, base64 DER, or raw in the encoding that the preset names."`
	Env          string    `yaml:"env" doc:"Environment variable that holds the key."`
	File         string    `yaml:"file" doc:"File that holds the key."`
	Dir          string    `yaml:"dir" doc:"Folder each of whose files is a version, by the file's name. Only environments goes beside it."`
	NotBefore    time.Time `yaml:"notBefore" doc:"First moment at which the version is good."`
	NotAfter     time.Time `yaml:"notAfter" doc:"Moment from which the version is no longer good."`
	Environments []string  `yaml:"environments" doc:"Only servers started with one of these as --environment use the version."`
	Revoked      bool      `yaml:"revoked" doc:"A signature that it verifies is denied as secret_expired."`
}

// failuresSpec is {limit: 20/minute}, {limit: unlimited} or the word unlimited.
type failuresSpec struct {
	Limit     rate.Limit `yaml:"limit"`
	Unlimited bool       `yaml:"-"`
}

type rateLimitSpec struct {
	Name   string     `yaml:"name" doc:"Name of the limit, for people."`
	Limit  rate.Limit `yaml:"limit" doc:"N/second, N/minute, N/hour, N/day or N/90s."`
	Burst  *int       `yaml:"burst" doc:"How many may come at once. Default: the limit's count."`
	By     bySpec     `yaml:"by" doc:"What shares a bucket: endpoint (the default), clientAddress or header."`
	Header string     `yaml:"header" doc:"Header whose value names the bucket, for by: header."`
}

type replaySpec struct {
	Window      *durationSpec   `yaml:"window" doc:"How long a delivery is remembered."`
	OnDuplicate onDuplicateSpec `yaml:"onDuplicate" doc:"deny, acknowledge (200, not forwarded), tag (forwarded, marked) or allow (no memory)."`
	Confirm     confirmSpec     `yaml:"confirm" doc:"outcome: a delivery that the application refused with 5xx or 429 may come again."`
	Reservation *durationSpec   `yaml:"reservation" doc:"How long an outcome is awaited. Default: 60s."`
}

type handshakeSpec struct {
	Enabled     *bool            `yaml:"enabled" doc:"true: answer the provider's unsigned handshakes too. false: answer none. Absent: only those that arrive signed."`
	Provider    string           `yaml:"provider" doc:"Name of the handshake, for a provider without a preset."`
	VerifyToken *verifyTokenSpec `yaml:"verifyToken" doc:"The token that the provider repeats in its handshake."`
}

type verifyTokenSpec struct {
	Env  string `yaml:"env" doc:"Environment variable that holds the token."`
	File string `yaml:"file" doc:"File that holds the token."`
}

type logSpec struct {
	Allowed shareSpec `yaml:"allowed" doc:"Share of allowed deliveries that are logged, as 1/100. Default: all."`
	Audit   auditSpec `yaml:"audit" doc:"Which decisions go into the audit file (serve --audit): none (the default), denied or all."`
}

type (
	durationSpec     time.Duration
	sizeSpec         int64
	shareSpec        int // 1/N
	modeSpec         string
	onDuplicateSpec  string
	confirmSpec      string
	storeFailureSpec string
	bySpec           string
	auditSpec        string
)

// choices are the words that a type may have.
func (modeSpec) choices() []string         { return []string{"enforce", "shadow"} }
func (onDuplicateSpec) choices() []string  { return []string{"deny", "acknowledge", "tag", "allow"} }
func (confirmSpec) choices() []string      { return []string{"outcome"} }
func (storeFailureSpec) choices() []string { return []string{"local", "deny", "allow"} }
func (auditSpec) choices() []string        { return []string{"none", "denied", "all"} }
func (bySpec) choices() []string           { return []string{"endpoint", "clientAddress", "header"} }

func (s auditSpec) audit() Audit {
	switch s {
	case "all":
		return AuditAll
	case "denied":
		return AuditDenied
	}
	return AuditNone
}

var daysForm = regexp.MustCompile(`^(\d+)d(.*)$`)

// ParseDuration reads a Go duration that may begin with days: "24h", "7d", "1d12h".
func ParseDuration(s string) (time.Duration, error) {
	days, rest := time.Duration(0), s
	if m := daysForm.FindStringSubmatch(s); m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil || n > 36500 {
			return 0, fmt.Errorf("%q is not a duration", clip(s))
		}
		days, rest = time.Duration(n)*24*time.Hour, m[2]
		if rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration", clip(s))
	}
	return days + d, nil
}

// ParseSize reads a number of bytes: "512", "64KiB", "2MiB", "1GiB".
func ParseSize(s string) (int64, error) {
	number, unit := s, int64(1)
	for suffix, bytes := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if n, ok := strings.CutSuffix(s, suffix); ok {
			number, unit = n, bytes
		}
	}
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size", clip(s))
	}
	return int64(n) * unit, nil
}
