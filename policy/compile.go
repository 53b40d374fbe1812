package policy

import (
	"crypto/sha256"
	"fmt"
	"mime"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hookauthz/hookauthz/policy/rate"
	"github.com/hookauthz/hookauthz/policy/secret"
	"github.com/hookauthz/hookauthz/policy/signature"
	"github.com/hookauthz/hookauthz/policy/source"
)

// What holds where a policy says nothing.
const (
	defaultMaxBytes    = 1 << 20
	defaultWindow      = 24 * time.Hour
	defaultReservation = 60 * time.Second
	// freshMargin is what a window must have beyond twice the tolerance, so that a delivery is remembered for as long as its timestamp is good.
	freshMargin = 60 * time.Second
	maxWindow   = 90 * 24 * time.Hour
)

// defaultFailures is the budget of failed verifications where a policy names none.
var defaultFailures = rate.Limit{Count: 60, Period: time.Minute, Burst: 60}

// Webhook is one compiled policy. It never changes.
type Webhook struct {
	name        string
	labels      map[string]string
	environment string

	matched bool // it has a match
	hosts   []string
	paths   []string
	methods []string

	shadow      bool
	pausedUntil time.Time

	maxBytes     int64
	contentTypes []string
	allowEmpty   bool

	client *source.Resolver
	allow  *source.Set // nil: any address
	deny   *source.Set
	lists  []string // whose addresses count as allowed

	scheme     *signature.Scheme
	schemeName string
	tolerance  time.Duration
	publicURL  string
	versions   []version
	empty      []string // folders of secrets that none could be read from, as "dir PATH", which is no version's name

	failures          rate.Limit
	failuresUnlimited bool
	limits            []limit
	replay            replay
	handshakes        handshakes
	onStoreFailure    storeFailureSpec
	logShare          int
	audit             Audit
}

// version is one key of a webhook. A nil key could not be read.
type version struct {
	name    string
	ref     secret.Ref
	key     *signature.Key
	window  secret.Window
	revoked bool
	decoy   bool
	place   int // among all versions of the Set
}

// inForce says that a signature made with this version is good at t.
func (v *version) inForce(t time.Time) bool {
	return v.key != nil && !v.revoked && !v.decoy && v.window.Contains(t)
}

// limit is one compiled rate limit.
type limit struct {
	name   string
	rate   rate.Limit
	by     bySpec
	header string
	key    Key // of the bucket, or of the family of buckets
}

// replay is the compiled rule for deliveries that come again.
type replay struct {
	onDuplicate onDuplicateSpec // allow: no memory
	window      time.Duration
	reservation time.Duration // 0: the outcome is not awaited
}

// document is one WebhookPolicy as written, kept so that its secrets can be read again.
type document struct {
	root *node // the spec, with the defaults beneath it
	name string
	at   *node // the name, for faults that concern the whole
	spec webhookSpec
	meta metadataSpec
}

// compiler turns one document into a Webhook.
type compiler struct {
	doc     *document
	load    *loader
	webhook *Webhook
}

// fault reports what is wrong at a path of the spec, such as "signature.secrets[0].file".
// What is missing only because of a fault that is told already is no second one.
func (c *compiler) fault(path, problem, fix string) {
	if n := c.doc.root.at(path); !n.faulty() {
		n.fault(c.doc.name, problem, fix)
	}
}

// warn reports what is allowed but probably not meant.
func (c *compiler) warn(path, problem, fix string) {
	n := c.doc.root.at(path)
	c.load.warnings = append(c.load.warnings, Fault{File: n.file.name, Line: n.line, Column: n.col, Webhook: c.doc.name, Problem: problem, Fix: fix})
}

func (c *compiler) compile() *Webhook {
	spec := &c.doc.spec
	c.webhook = &Webhook{
		name:           c.doc.name,
		labels:         c.doc.meta.Labels,
		environment:    c.load.options.Environment,
		shadow:         spec.Mode == "shadow",
		pausedUntil:    spec.PausedUntil,
		onStoreFailure: spec.OnStoreFailure,
		logShare:       int(spec.Log.Allowed),
		audit:          spec.Log.Audit.audit(),
	}
	if c.webhook.onStoreFailure == "" {
		c.webhook.onStoreFailure = "local"
	}
	c.match()
	c.body()
	c.source()
	if c.scheme() {
		c.versions()
		c.replay()
		c.handshake()
	}
	c.limits()
	return c.webhook
}

var (
	hostForm   = regexp.MustCompile(`^(\*\.)?([a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?$`)
	methodForm = regexp.MustCompile(`^[A-Z]+$`)
	headerForm = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
	nameForm   = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,126}[a-z0-9])?$`)
)

func (c *compiler) match() {
	w, m := c.webhook, c.doc.spec.Match
	w.methods = []string{"POST"}
	if m == nil {
		return
	}
	if c.doc.root.get("match").kind == mapNode && len(m.Hosts) == 0 && len(m.Paths) == 0 && len(m.Methods) == 0 {
		c.fault("match", "the match is empty", "write paths: [/webhooks/name], or delete match where Envoy's route names the policy")
		return
	}
	if m.Methods != nil {
		w.methods = m.Methods
	}
	for i, method := range w.methods {
		switch {
		case !methodForm.MatchString(method):
			c.fault(fmt.Sprintf("match.methods[%d]", i), fmt.Sprintf("%q is not a method", clip(method)), "write it in capitals, such as POST")
		case method == "CONNECT" || method == "TRACE":
			c.fault(fmt.Sprintf("match.methods[%d]", i), fmt.Sprintf("the method %s is never a webhook", method), "write POST")
		}
	}
	for i, host := range m.Hosts {
		lower := strings.ToLower(host)
		_, addressError := netip.ParseAddr(strings.Trim(lower, "[]"))
		if (!hostForm.MatchString(lower) && addressError != nil) || lower == "*" {
			fix := "write a name such as hooks.example.com or *.example.com, without a port"
			if lower == "*" {
				fix = "leave hosts out to match any host"
			}
			c.fault(fmt.Sprintf("match.hosts[%d]", i), fmt.Sprintf("%q is not a host name", clip(host)), fix)
			continue
		}
		if addressError == nil {
			lower = strings.Trim(lower, "[]") // a Host header has brackets around an IPv6 address, which are no part of it
		}
		w.hosts = append(w.hosts, lower)
	}
	if len(m.Paths) == 0 && (len(m.Hosts) > 0 || len(m.Methods) > 0) {
		if len(m.Hosts) == 0 {
			return // methods only: the policy is found by name
		}
		c.fault("match", "the match has hosts and no paths", "write paths: [/webhooks/name], or paths: [/*] for every path")
		return
	}
	for i, path := range m.Paths {
		exact := strings.TrimSuffix(path, "*")
		problem := ""
		switch {
		case !strings.HasPrefix(path, "/"):
			problem = "it does not begin with /"
		case strings.Contains(exact, "*"), exact != path && !strings.HasSuffix(exact, "/"):
			problem = "a * may only stand alone after the last /"
		case strings.ContainsAny(exact, "?"):
			problem = "the query never takes part"
		case ambiguous(exact):
			problem = "no delivery can match it, because such paths are ambiguous"
		}
		if problem != "" {
			c.fault(fmt.Sprintf("match.paths[%d]", i), fmt.Sprintf("%q is not a path pattern: %s", clip(path), problem), "write /webhooks/name or /webhooks/*")
			continue
		}
		w.paths = append(w.paths, path)
	}
	w.matched = true
}

func (c *compiler) body() {
	w, b := c.webhook, &c.doc.spec.Body
	w.maxBytes, w.allowEmpty = int64(b.MaxBytes), b.AllowEmpty
	if w.maxBytes == 0 {
		w.maxBytes = min(defaultMaxBytes, c.load.options.MaxBody)
	}
	if w.maxBytes > c.load.options.MaxBody {
		c.fault("body.maxBytes", fmt.Sprintf("%d bytes are more than the server takes, which is %d (--max-body)", w.maxBytes, c.load.options.MaxBody),
			"write a smaller size, or start the server with a larger --max-body")
	}
	for i, t := range b.ContentTypes {
		media, parameters, err := mime.ParseMediaType(t)
		if err != nil || len(parameters) > 0 || !strings.Contains(media, "/") || strings.Contains(media, "*") {
			c.fault(fmt.Sprintf("body.contentTypes[%d]", i), fmt.Sprintf("%q is not a media type without parameters", clip(t)), "write one such as application/json")
			continue
		}
		w.contentTypes = append(w.contentTypes, media)
	}
}

func (c *compiler) source() {
	w, s, a := c.webhook, &c.doc.spec.Source, &c.doc.spec.ClientAddress
	everyone := func(path string, prefixes []netip.Prefix, fix string) {
		for i, p := range prefixes {
			if p.Bits() == 0 {
				c.fault(fmt.Sprintf("%s[%d]", path, i), fmt.Sprintf("%s is every address", p), fix)
			}
		}
	}
	everyone("source.allow", s.Allow, "leave source.allow out to take deliveries from anywhere")
	everyone("source.deny", s.Deny, "use pausedUntil to refuse every delivery")
	everyone("clientAddress.trustedProxies", a.TrustedProxies, "name the addresses of the proxies: with this range anybody could claim any address")
	c.namedLists(s.Lists)
	if len(s.Allow) > 0 || len(s.Lists) > 0 {
		w.allow = source.NewSet(s.Allow)
	}
	if len(s.Deny) > 0 {
		w.deny = source.NewSet(s.Deny)
	}
	c.clientAddress(a)
}

func (c *compiler) clientAddress(a *clientAddressSpec) {
	config := source.Config{From: a.From, TrustedProxies: a.TrustedProxies, Header: strings.ToLower(a.Header)}
	switch a.From {
	case source.XForwardedFor:
		switch {
		case a.TrustedHops != nil && a.TrustedProxies != nil:
			c.fault("clientAddress", "trustedHops and trustedProxies stand side by side", "keep one of them")
			return
		case a.TrustedHops == nil && a.TrustedProxies == nil:
			c.fault("clientAddress", "xForwardedFor names no proxies to trust", "write trustedProxies: [10.0.0.5] or trustedHops: 1")
			return
		case a.TrustedHops != nil && (*a.TrustedHops < 0 || *a.TrustedHops > 32):
			c.fault("clientAddress.trustedHops", fmt.Sprintf("%d is not a number of proxies", *a.TrustedHops), "write a number from 0 to 32")
			return
		case a.Header != "":
			c.fault("clientAddress.header", "header does not go with from: xForwardedFor", "delete it, or write from: header")
			return
		case a.TrustedHops != nil:
			config.TrustedHops, config.ByHops = *a.TrustedHops, true
		}
	case source.HeaderValue:
		switch {
		case !headerForm.MatchString(a.Header):
			c.fault("clientAddress", "from: header names no header", "write header: "+source.EnvoyHeader)
			return
		case a.TrustedHops != nil:
			c.fault("clientAddress.trustedHops", "trustedHops does not go with from: header", "delete it")
			return
		case config.Header != source.EnvoyHeader && len(a.TrustedProxies) == 0:
			c.fault("clientAddress.header", fmt.Sprintf("the header %q is believed from anybody", clip(a.Header)),
				"write trustedProxies with the addresses that set it, or use "+source.EnvoyHeader)
			return
		}
	default:
		if a.TrustedProxies != nil || a.TrustedHops != nil || a.Header != "" {
			c.fault("clientAddress", "from: peer takes no proxies, hops or header", "write from: xForwardedFor or from: header, or delete the rest")
			return
		}
	}
	c.webhook.client = source.NewResolver(config)
}

// scheme compiles the signature scheme and reports whether there is one to go on with.
func (c *compiler) scheme() bool {
	w, s := c.webhook, &c.doc.spec.Signature
	switch {
	case s.Scheme.Inline != nil:
		scheme, faults := signature.Compile(*s.Scheme.Inline)
		for _, f := range faults {
			c.fault(strings.TrimSuffix("signature.scheme."+f.Field, "."), f.Problem, f.Fix)
		}
		if len(faults) > 0 {
			return false
		}
		w.scheme, w.schemeName = scheme, "inline"
	case s.Scheme.Name != "":
		scheme, ok := signature.Preset(s.Scheme.Name)
		if !ok {
			c.fault("signature.scheme", fmt.Sprintf("no scheme is named %q", clip(s.Scheme.Name)), c.nearScheme(s.Scheme.Name))
			return false
		}
		w.scheme, w.schemeName = scheme, s.Scheme.Name
	default:
		c.fault("signature", "the policy names no signature scheme", "write signature: {scheme: NAME, secrets: [...]}; hookauthz schemes lists the names")
		return false
	}
	bound := c.bind()
	c.tolerance()
	c.publicURL()
	switch token := w.scheme.IsToken(); {
	case token && s.AcceptUnsignedBody:
		c.warn("signature.acceptUnsignedBody", "acceptUnsignedBody means nothing for a static token", "delete it")
	case token:
		c.warn("signature.scheme", fmt.Sprintf("the scheme %s is a static token: it signs nothing, and whoever sees one delivery can send any other", w.schemeName),
			"prefer a scheme that signs the body where the sender has one, and add source.allow")
	case !w.scheme.BodySigned() && !s.AcceptUnsignedBody:
		c.fault("signature.scheme", fmt.Sprintf("the scheme %s does not sign the body", w.schemeName), "write acceptUnsignedBody: true if that is known and accepted")
	case w.scheme.NeedsTopics(): // acceptUnsignedBody is about the attributes of a message
	case w.scheme.BodySigned() && s.AcceptUnsignedBody:
		c.warn("signature.acceptUnsignedBody", fmt.Sprintf("the scheme %s signs the body", w.schemeName), "delete acceptUnsignedBody")
	}
	return bound
}

func (c *compiler) nearScheme(name string) string {
	var names []string
	for _, p := range signature.Presets() {
		names = append(names, p.Name)
	}
	if near := nearest(name, names); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return "hookauthz schemes lists the names"
}

func (c *compiler) tolerance() {
	w, given := c.webhook, c.doc.spec.Signature.Tolerance
	w.tolerance = w.scheme.Tolerance()
	checked := w.scheme.HasTimestamp() && w.scheme.TimestampSigned()
	switch {
	case given != nil && !w.scheme.HasTimestamp():
		c.fault("signature.tolerance", fmt.Sprintf("the scheme %s has no timestamp", w.schemeName), "delete tolerance")
	case given != nil && !checked:
		c.fault("signature.tolerance", fmt.Sprintf("the timestamp of the scheme %s is not signed and proves nothing", w.schemeName), "delete tolerance")
	case given != nil && (*given <= 0 || time.Duration(*given) > 7*24*time.Hour):
		c.fault("signature.tolerance", fmt.Sprintf("a tolerance of %s is none", time.Duration(*given)), "write a duration above 0 and up to 7d, such as 5m")
	case given != nil:
		w.tolerance = time.Duration(*given)
	case checked && w.tolerance == 0 && w.scheme.NeedsTopics():
		c.fault("signature", fmt.Sprintf("the scheme %s has a timestamp and its sender documents no tolerance", w.schemeName), "write tolerance: 65m: SNS sends the same bytes again for up to an hour")
	case checked && w.tolerance == 0:
		c.fault("signature", fmt.Sprintf("the scheme %s has a timestamp and its sender documents no tolerance", w.schemeName), "write tolerance: 5m")
	}
}

func (c *compiler) publicURL() {
	w, given := c.webhook, c.doc.spec.Signature.PublicURL
	switch {
	case given != "" && !w.scheme.NeedsURL():
		c.fault("signature.publicURL", fmt.Sprintf("the scheme %s does not sign the URL", w.schemeName), "delete publicURL")
		return
	case given == "" && w.scheme.NeedsURL():
		c.fault("signature", fmt.Sprintf("the scheme %s signs the URL", w.schemeName), "write publicURL: https://hooks.example.com/path, the URL that the sender was given")
		return
	case given == "":
		return
	}
	u, err := url.Parse(given)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || strings.ContainsAny(given, "?# ") {
		c.fault("signature.publicURL", "it is not a URL without user, query and fragment", "write https://hooks.example.com/path; the request's query is appended")
		return
	}
	w.publicURL = given
}

// keySource is one entry of secrets or publicKeys.
type keySource struct {
	webhook      string
	path         string
	version      string
	value        string
	ref          secret.Ref
	dir          string // the versions are the files in it
	window       secret.Window
	environments []string
	revoked      bool
	decoy        bool
}

func (c *compiler) versions() {
	s := &c.doc.spec.Signature
	if c.webhook.scheme.NeedsCertificate() {
		c.certificateVersions()
		return
	}
	var sources []keySource
	for i, v := range s.Secrets {
		sources = append(sources, keySource{c.doc.name, fmt.Sprintf("signature.secrets[%d]", i), v.Version, "", secret.Ref{Env: v.Env, File: v.File}, v.Dir,
			secret.Window{NotBefore: v.NotBefore, NotAfter: v.NotAfter}, v.Environments, v.Revoked, v.Decoy})
	}
	for i, v := range s.PublicKeys {
		sources = append(sources, keySource{c.doc.name, fmt.Sprintf("signature.publicKeys[%d]", i), v.Version, v.Value, secret.Ref{Env: v.Env, File: v.File}, v.Dir,
			secret.Window{NotBefore: v.NotBefore, NotAfter: v.NotAfter}, v.Environments, v.Revoked, false})
	}
	public := c.webhook.scheme.NeedsPublicKey()
	switch {
	case public && len(s.Secrets) > 0:
		c.fault("signature.secrets", fmt.Sprintf("the scheme %s is verified with a public key", c.webhook.schemeName), "write publicKeys instead of secrets")
		return
	case !public && len(s.PublicKeys) > 0:
		c.fault("signature.publicKeys", fmt.Sprintf("the scheme %s is verified with a shared secret", c.webhook.schemeName), "write secrets instead of publicKeys")
		return
	case len(sources) == 0:
		fix := `write secrets: [{version: "1", env: NAME}]`
		if public {
			fix = `write publicKeys: [{version: "1", value: "..."}]`
		}
		c.fault("signature", "the policy has no key to verify with", fix)
		return
	case len(sources) > maxVersions:
		c.fault("signature", fmt.Sprintf("%d versions are more than %d", len(sources), maxVersions), "delete those that are no longer used")
		return
	}
	seen := map[string]bool{}
	for _, k := range sources {
		switch {
		case k.dir != "":
			continue
		case seen[k.version] && k.version != "":
			c.fault(k.path+".version", fmt.Sprintf("the version %q occurs twice", clip(k.version)), "give each version its own name")
		}
		seen[k.version] = true
		c.version(k)
	}
	for _, k := range sources {
		if k.dir != "" {
			c.folder(k, seen)
		}
	}
}

// maxVersions is how many secret versions an endpoint may have.
const maxVersions = 32

// folder adds the versions that are files in a folder. What is wrong there is not wrong in the policies: a server goes on with what it can use.
func (c *compiler) folder(k keySource, seen map[string]bool) {
	switch {
	case k.version != "":
		c.fault(k.path+".version", "the files of a dir are the versions, each by its name", "delete version")
	case k.value != "" || k.ref != (secret.Ref{}):
		c.fault(k.path, "the entry has a dir and a key of its own", "keep one of them")
	case k.window != (secret.Window{}) || k.revoked || k.decoy:
		c.fault(k.path, "only environments goes beside dir", "give the version that is meant an entry of its own, with file")
	}
	if c.doc.root.at(k.path).faulty() || !c.meant(k) || c.load.options.Secrets == SkipSecrets {
		return
	}
	from := c.secretSource(k)
	c.load.secretFile(from.Path(secret.Ref{File: k.dir}))
	refs, unfit, err := from.List(k.dir)
	for _, name := range unfit {
		c.secretFault(k, fmt.Sprintf("the file %q in the folder %q is not named as a version", clip(name), k.dir), "name it with letters, digits, '-', '_' and '.', or delete it")
	}
	if err != nil {
		c.load.unread = true
		c.secretFault(k, err.Error(), "put a file for each version there")
		if name := "dir " + k.dir; !slices.Contains(c.webhook.empty, name) {
			c.webhook.empty = append(c.webhook.empty, name)
		}
		return
	}
	for _, ref := range refs {
		k := k
		k.ref, k.version = ref, filepath.Base(ref.File)
		switch {
		case seen[k.version]:
			c.secretFault(k, fmt.Sprintf("the version %q occurs twice, once as a file in the folder %q, which does not count", k.version, k.dir), "give each version its own name")
		case len(c.webhook.versions) >= maxVersions:
			c.secretFault(k, fmt.Sprintf("the version %q in the folder %q is one more than %d and does not count", k.version, k.dir, maxVersions), "delete those that are no longer used")
		default:
			seen[k.version] = true
			c.add(k)
		}
	}
}

// headerText is what may stand in a header that the application reads.
var headerText = regexp.MustCompile(`^[!-~]{1,128}$`)

func (c *compiler) version(k keySource) {
	given := 0
	for _, s := range []string{k.value, k.ref.Env, k.ref.File} {
		if s != "" {
			given++
		}
	}
	switch {
	case k.version == "":
		c.fault(k.path, "the version has no name", `write version: "1"`)
	case !headerText.MatchString(k.version):
		c.fault(k.path+".version", fmt.Sprintf("%q is not a version name", clip(k.version)), "write printable ASCII without spaces")
	}
	switch {
	case given == 0:
		c.fault(k.path, "the version has no key", "write env: NAME, file: PATH or dir: PATH")
	case given > 1:
		c.fault(k.path, "the version has more than one key", "keep one of value, env and file")
	case k.ref.Env != "" && !envForm.MatchString(k.ref.Env):
		// What stands here may be the secret itself.
		n := c.doc.root.at(k.path + ".env")
		n.file.hide(n, n.line)
		c.fault(k.path+".env", "it is not the name of an environment variable", "write env: NAME, with the secret in that variable")
	}
	if !k.window.NotBefore.IsZero() && !k.window.NotAfter.IsZero() && !k.window.NotBefore.Before(k.window.NotAfter) {
		c.fault(k.path+".notAfter", "the version ends before it begins", "write a notAfter after notBefore")
	}
	if c.doc.root.at(k.path).faulty() {
		return
	}
	if c.meant(k) {
		c.add(k)
	}
}

// meant says whether an entry is for this server's environment. One that is not counts as absent, and its secret is not read.
func (c *compiler) meant(k keySource) bool {
	return len(k.environments) == 0 || slices.Contains(k.environments, c.load.options.Environment)
}

// add reads the key of a version and adds it.
func (c *compiler) add(k keySource) {
	v := version{name: k.version, ref: k.ref, window: k.window, revoked: k.revoked, decoy: k.decoy}
	v.key = c.key(k)
	c.webhook.versions = append(c.webhook.versions, v)
}

var envForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// secretSource reads what an entry names.
func (c *compiler) secretSource(k keySource) secret.Source {
	return secret.Source{LookupEnv: c.load.options.LookupEnv, Dir: filepath.Dir(c.doc.root.at(k.path).file.name)}
}

// key reads and prepares a key; nil where it cannot be had now.
func (c *compiler) key(k keySource) *signature.Key {
	if c.load.options.Secrets == SkipSecrets && k.value == "" {
		return nil
	}
	raw := secret.New([]byte(k.value))
	if k.value == "" {
		from := c.secretSource(k)
		if k.ref.File != "" {
			c.load.secretFile(from.Path(k.ref))
		}
		var err error
		if raw, err = from.Read(k.ref); err != nil {
			c.load.unread = c.load.unread || k.ref.File != ""
			c.secretFault(k, err.Error(), "set it, or delete the version")
			return nil
		}
	}
	var key *signature.Key
	var err error
	if c.webhook.scheme.NeedsPublicKey() {
		key, err = c.webhook.scheme.NewPublicKey(raw.Reveal())
	} else {
		key, err = c.webhook.scheme.NewKey(raw.Reveal())
	}
	if err != nil {
		c.load.unread = c.load.unread || k.ref.File != ""
		c.secretFault(k, fmt.Sprintf("the key of version %q does not fit the scheme %s: %v", k.version, c.webhook.schemeName, err), "copy it again from the sender")
		return nil
	}
	if !c.webhook.scheme.NeedsPublicKey() {
		c.judge(k, raw)
	}
	return key
}

// judge warns of a shared secret that should be another. No warning tells anything of it.
func (c *compiler) judge(k keySource, raw secret.Value) {
	n := c.doc.root.at(k.path)
	warn := func(problem, fix string) {
		c.load.weak = append(c.load.weak, Fault{File: n.file.name, Line: n.line, Column: n.col, Webhook: c.doc.name, Problem: problem, Fix: fix})
	}
	material, err := c.webhook.scheme.Material(raw.Reveal())
	if err != nil {
		return // it would not be a key
	}
	another := "take another: hookauthz secrets new --scheme " + c.webhook.schemeName
	if c.webhook.scheme.Name() == "" {
		another = "take another, of 32 random bytes"
	}
	switch weakness := secret.Weakness(material); {
	case k.revoked:
	case raw.Published():
		warn(fmt.Sprintf("the secret of version %q is an example that is published: everybody knows it", k.version), another)
	case weakness != "":
		warn(fmt.Sprintf("the secret of version %q is weak: %s", k.version, weakness), another)
	}
	sum := sha256.Sum256(material)
	r := c.load.known[sum]
	switch {
	case r == nil:
		c.load.known[sum] = &reuse{first: k}
	case r.first.webhook != k.webhook:
		if r.others++; r.others == 1 {
			r.warning = Fault{File: n.file.name, Line: n.line, Column: n.col, Webhook: c.doc.name, Fix: "take one for each where the sender lets you",
				Problem: fmt.Sprintf("the secret of version %q is that of version %q of the webhook %q too", k.version, r.first.version, r.first.webhook)}
		}
	case r.first.dead() != k.dead():
		warn(fmt.Sprintf("the secret of version %q is that of version %q too, and one of them is revoked or a decoy: what it is to stop goes on", k.version, r.first.version), "take another secret for the version that is in use")
	default:
		warn(fmt.Sprintf("the secret of version %q is that of version %q too", k.version, r.first.version), "take a new secret for a new version")
	}
}

// reuse is a secret that stands in more than one place.
type reuse struct {
	first   keySource
	others  int   // in other webhooks
	warning Fault // about the first of those
}

// told is the warning about all of them.
func (r *reuse) told() Fault {
	f := r.warning
	if r.others > 1 {
		f.Problem += fmt.Sprintf(", and of %d more", r.others-1)
	}
	f.Problem += ": whoever has one can send to all of them"
	return f
}

// dead says that a signature made with it is never good.
func (k *keySource) dead() bool { return k.revoked || k.decoy }

// secretFault reports a key that cannot be had: a fault where secrets are required, else only this version is unavailable.
func (c *compiler) secretFault(k keySource, problem, fix string) {
	n := c.doc.root.at(k.path)
	f := Fault{File: n.file.name, Line: n.line, Column: n.col, Webhook: c.doc.name, Problem: problem, Fix: fix}
	if c.load.options.Secrets == RequireSecrets {
		*c.load.faults = append(*c.load.faults, f)
		return
	}
	c.load.secretFaults = append(c.load.secretFaults, f)
}

func (c *compiler) replay() {
	w, r := c.webhook, &c.doc.spec.Replay
	memory := !w.scheme.IsToken() && (w.scheme.BodySigned() || w.scheme.Nonce())
	fresh := w.scheme.HasTimestamp() && w.scheme.TimestampSigned() && w.tolerance > 0
	shortest := 2*w.tolerance + freshMargin
	w.replay = replay{onDuplicate: r.OnDuplicate, window: defaultWindow}
	if w.replay.onDuplicate == "" {
		switch {
		case !memory:
			w.replay.onDuplicate = "allow"
		case fresh && w.scheme.FreshPerAttempt() && w.scheme.BodySigned():
			w.replay.onDuplicate = "deny"
			w.replay.window = shortest
		case !w.scheme.BodySigned():
			w.replay.onDuplicate = "deny"
		default:
			w.replay.onDuplicate = "tag"
		}
	}
	if w.replay.onDuplicate == "deny" && fresh {
		w.replay.window = max(w.replay.window, shortest)
	}
	if !memory && (w.replay.onDuplicate != "allow" || r.Window != nil || r.Confirm != "" || r.Reservation != nil) && r.OnDuplicate != "allow" {
		why := "signs nothing that differs between deliveries"
		if w.scheme.IsToken() {
			why = "is a static token"
		}
		c.fault("replay", fmt.Sprintf("the scheme %s %s: replays cannot be told", w.schemeName, why), "write replay: {onDuplicate: allow}")
		return
	}
	if w.replay.onDuplicate == "allow" {
		if r.Confirm != "" {
			c.warn("replay.confirm", "confirm means nothing where duplicates are allowed", "delete it")
		}
		return
	}
	if r.Window != nil {
		w.replay.window = time.Duration(*r.Window)
		switch {
		case w.replay.window < time.Second || w.replay.window > maxWindow:
			c.fault("replay.window", fmt.Sprintf("a window of %s cannot be kept", w.replay.window), "write a duration from 1s to 90d")
		case fresh && (w.replay.onDuplicate == "deny" || w.scheme.FreshPerAttempt()) && w.replay.window < shortest:
			c.fault("replay.window", fmt.Sprintf("a window of %s is shorter than a captured delivery stays good", w.replay.window),
				fmt.Sprintf("write at least %s: twice the tolerance and 60s", shortest))
		}
	}
	c.outcome(r)
}

func (c *compiler) outcome(r *replaySpec) {
	w := c.webhook
	switch {
	case w.replay.onDuplicate == "acknowledge" && r.Confirm == "":
		c.fault("replay.onDuplicate", "acknowledge would lose a delivery that the application never took", "write confirm: outcome beside it, or onDuplicate: tag")
	case r.Reservation != nil && r.Confirm == "":
		c.fault("replay.reservation", "reservation goes with confirm: outcome", "write confirm: outcome or delete reservation")
	case r.Confirm != "":
		w.replay.reservation = defaultReservation
		if r.Reservation != nil {
			w.replay.reservation = time.Duration(*r.Reservation)
		}
		if w.replay.reservation < time.Second || w.replay.reservation > w.replay.window {
			c.fault("replay.reservation", fmt.Sprintf("a reservation of %s does not fit the window of %s", w.replay.reservation, w.replay.window),
				"write a duration from 1s up to the window, and at least the timeout of Envoy's route")
		}
	}
}

func (c *compiler) limits() {
	w, spec := c.webhook, &c.doc.spec
	w.failures, w.failuresUnlimited = spec.Failures.Limit, spec.Failures.Unlimited
	if w.failures == (rate.Limit{}) {
		w.failures = defaultFailures
	}
	if len(spec.RateLimits) > 16 {
		c.fault("rateLimits", fmt.Sprintf("%d limits are more than 16", len(spec.RateLimits)), "keep those that matter")
		return
	}
	seen := map[string]bool{}
	for i, r := range spec.RateLimits {
		path := fmt.Sprintf("rateLimits[%d]", i)
		l := limit{name: r.Name, rate: r.Limit, by: r.By, header: strings.ToLower(r.Header)}
		if l.by == "" {
			l.by = "endpoint"
		}
		if l.name == "" {
			l.name = string(l.by)
			if l.by == "header" {
				l.name += "-" + l.header
			}
		}
		switch {
		case l.rate == (rate.Limit{}):
			if c.doc.root.at(path).get("limit") == nil {
				c.fault(path, "the rate limit has no limit", "write limit: 100/minute")
			}
		case r.Burst != nil && (*r.Burst < 1 || *r.Burst > 1_000_000):
			c.fault(path+".burst", fmt.Sprintf("a burst of %d lets nothing through or everything", *r.Burst), "write a number from 1 to 1000000")
		case r.Burst != nil:
			l.rate.Burst = *r.Burst
		}
		switch {
		case l.by == "header" && !headerForm.MatchString(r.Header):
			c.fault(path, "by: header names no header", "write header: NAME")
		case l.by != "header" && r.Header != "":
			c.fault(path+".header", "header goes with by: header", "write by: header or delete it")
		}
		if seen[l.name] {
			c.fault(path+".name", fmt.Sprintf("two rate limits are named %q", clip(l.name)), "give each its own name")
		}
		seen[l.name] = true
		l.key = hashKey("limit", l.name, string(l.by), l.header)
		w.limits = append(w.limits, l)
	}
}
