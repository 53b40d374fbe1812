package policy

import (
	"net/netip"
	"slices"
	"time"
)

// Set is every policy of a load, compiled. It never changes and is safe for concurrent use.
type Set struct {
	revision       string
	byName         map[string]*Webhook
	webhooks       []*Webhook // by name
	versions       int        // of all webhooks
	index          *index
	warnings       Faults
	secretFaults   Faults
	secretWarnings Faults
	policyFiles    []string
	secretFiles    []string
	unread         bool
	documents      []*document
	lists          map[string]*AddressList
	options        LoadOptions
}

// Revision names the content of the policy files, without their secrets.
func (s *Set) Revision() string { return s.revision }

// Len is the number of webhooks.
func (s *Set) Len() int { return len(s.webhooks) }

// Warnings are what loads but is probably not meant, but for what is said of secrets.
func (s *Set) Warnings() Faults { return s.warnings }

// SecretWarnings are the secrets that load and should be others: weak ones, and those that stand in two places.
func (s *Set) SecretWarnings() Faults { return s.secretWarnings }

// SecretFaults are the secrets that could not be read, where that was tolerated.
func (s *Set) SecretFaults() Faults { return s.secretFaults }

// PolicyFiles are the absolute paths of the files that were read.
func (s *Set) PolicyFiles() []string { return slices.Clone(s.policyFiles) }

// Unread reports whether a secret file, or a folder of them, could not be read or holds nothing that fits.
func (s *Set) Unread() bool { return s.unread }

// SecretFiles are the absolute paths of the files that secrets come from, and of their folders where those say which there are. Those that
// could not be read are among them.
func (s *Set) SecretFiles() []string {
	files := slices.Clone(s.secretFiles)
	slices.Sort(files)
	return slices.Compact(files)
}

// EndpointInfo says what there is to know about an endpoint without a delivery.
type EndpointInfo struct {
	Name     string
	Labels   map[string]string
	Scheme   string
	Token    bool // its scheme is a static token
	Shadow   bool
	MaxBytes int64
	Versions []VersionInfo
	// EmptyFolders are the folders of secrets that none could be read from, as "dir PATH", which is no version's name.
	EmptyFolders []string

	// Hosts and Paths are the patterns of its match. Without paths it is found only where Envoy's route names it; without hosts it
	// holds for any.
	Hosts, Paths []string
	// Headers are those that the scheme reads, in lower case. They must arrive as the sender wrote them.
	Headers []string
	// ClientHeader is the header that the client's address is read from, in lower case; empty where it is the peer's.
	ClientHeader string
	// PausedUntil is when the pause of its policy ends; zero where there is none.
	PausedUntil time.Time
	// TrustedProxies are those that its clients' addresses are taken from.
	TrustedProxies []netip.Prefix
	// Reservation is how long the application's answer is awaited; 0: it is not (no confirm: outcome).
	Reservation time.Duration
}

// VersionInfo says what there is to know about a secret version without its key.
type VersionInfo struct {
	Name                string
	Env, File           string // where its key comes from; empty where it stands in the policy
	Available           bool   // its key could be read
	Revoked, Decoy      bool
	NotBefore, NotAfter time.Time
}

// Endpoints lists every endpoint by name.
func (s *Set) Endpoints() []EndpointInfo {
	out := make([]EndpointInfo, 0, len(s.webhooks))
	for _, w := range s.webhooks {
		info := EndpointInfo{Name: w.name, Labels: w.labels, Scheme: w.schemeName, Token: w.scheme.IsToken(), Shadow: w.shadow, MaxBytes: w.maxBytes,
			PausedUntil: w.pausedUntil, TrustedProxies: w.client.TrustedProxies(), Hosts: slices.Clone(w.hosts), Paths: slices.Clone(w.paths), Headers: w.scheme.Headers(), ClientHeader: w.client.Header(), Reservation: w.replay.reservation, EmptyFolders: slices.Clone(w.empty)}
		for _, v := range w.versions {
			info.Versions = append(info.Versions, VersionInfo{v.name, v.ref.Env, v.ref.File, v.key != nil, v.revoked, v.decoy, v.window.NotBefore, v.window.NotAfter})
		}
		out = append(out, info)
	}
	return out
}

// Reread is the same policies with their secrets read again. A secret that cannot be read makes its version unavailable.
func (s *Set) Reread() *Set {
	o := s.options
	if o.Secrets == RequireSecrets {
		o.Secrets = TolerateMissingSecrets
	}
	l := newLoader(o)
	l.lists = s.lists
	next := l.compile(s.documents)
	next.revision, next.policyFiles, next.warnings = s.revision, s.policyFiles, s.warnings
	return next
}
