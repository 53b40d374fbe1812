package policy

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/hookauthz/hookauthz/policy/rate"
	"github.com/hookauthz/hookauthz/policy/secret"
	"github.com/hookauthz/hookauthz/policy/signature"
)

// handshakes is how a webhook answers the questions that a provider asks before it sends deliveries.
type handshakes struct {
	signed   []*signature.Handshake // answered after the signature
	unsigned []*signature.Handshake // answered without one, because the policy says so
	// oracles make a MAC of the caller's text: no delivery may look like one of those texts, here or wherever the preset is used as well.
	oracles []*signature.Handshake
	oracle  bool // one of them is answered here
	token   secret.Value
}

// handshakeRate bounds unsigned handshakes of one address: they are made a few times in the life of an endpoint.
var handshakeRate = rate.Limit{Count: 30, Period: time.Minute, Burst: 30}

func (c *compiler) handshake() {
	w, spec := c.webhook, &c.doc.spec.Handshake
	known := signature.Handshakes(w.scheme.Name())
	if spec.Provider != "" {
		named := signature.HandshakesNamed(spec.Provider)
		if len(named) == 0 {
			c.fault("handshake.provider", fmt.Sprintf("no handshake is named %q", clip(spec.Provider)), nearHandshake(spec.Provider))
			return
		}
		known = append(known, named...)
	}
	for _, h := range known {
		if h.MakesMAC() {
			w.handshakes.oracles = append(w.handshakes.oracles, h)
		}
	}
	if spec.Enabled != nil && !*spec.Enabled {
		return
	}
	needsToken := ""
	for _, h := range known {
		switch {
		case h.Signed():
			w.handshakes.signed = append(w.handshakes.signed, h)
		case spec.Enabled != nil:
			w.handshakes.unsigned = append(w.handshakes.unsigned, h)
			w.handshakes.oracle = w.handshakes.oracle || h.MakesMAC()
			if h.NeedsToken() {
				needsToken = h.Spec().Provider
			}
		}
	}
	switch {
	case spec.Enabled != nil && len(w.handshakes.unsigned) == 0:
		c.warn("handshake.enabled", fmt.Sprintf("the scheme %s has no unsigned handshake", w.schemeName), "delete handshake, or name the provider of it")
	case needsToken != "" && spec.VerifyToken == nil:
		c.fault("handshake", fmt.Sprintf("the handshake of %s needs a verify token", needsToken), "write verifyToken: {env: NAME}")
	case needsToken != "":
		c.verifyToken(spec.VerifyToken)
	case spec.VerifyToken != nil && spec.Enabled != nil:
		c.warn("handshake.verifyToken", "no handshake of this webhook has a verify token", "delete verifyToken")
	}
}

// forgetIdleOracles lifts the ban on texts of handshakes from presets whose handshakes no webhook answers: nobody can have their MACs.
func forgetIdleOracles(webhooks []*Webhook) {
	asked := make(map[string]bool)
	for _, w := range webhooks {
		if w.handshakes.oracle {
			asked[w.schemeName] = true
		}
	}
	for _, w := range webhooks {
		if !asked[w.schemeName] {
			w.handshakes.oracles = nil
		}
	}
}

// verifyToken reads the token that a provider repeats. Without it the handshakes that need it are not answered.
func (c *compiler) verifyToken(v *verifyTokenSpec) {
	const path = "handshake.verifyToken"
	n := c.doc.root.at(path)
	switch {
	case (v.Env == "") == (v.File == ""):
		c.fault(path, "the verify token has no single source", "write env: NAME or file: PATH")
		return
	case v.Env != "" && !envForm.MatchString(v.Env):
		n.file.hide(n.get("env"), n.line)
		c.fault(path+".env", "it is not the name of an environment variable", "write env: NAME, with the token in that variable")
		return
	case c.load.options.Secrets == SkipSecrets:
		return
	}
	ref := secret.Ref{Env: v.Env, File: v.File}
	from := secret.Source{LookupEnv: c.load.options.LookupEnv, Dir: filepath.Dir(n.file.name)}
	if ref.File != "" {
		c.load.secretFile(from.Path(ref))
	}
	token, err := from.Read(ref)
	if err != nil {
		c.secretFault(keySource{path: path}, err.Error(), "set it, or delete handshake")
		return
	}
	c.webhook.handshakes.token = token
}

func nearHandshake(name string) string {
	var names []string
	for _, h := range signature.AllHandshakes() {
		names = append(names, h.Spec().Name)
	}
	if near := nearest(name, names); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return "write " + oneOf(names)
}

// unsignedHandshake answers a question that comes without a signature, where the policy says so. Everything else goes on as a delivery.
func (c *check) unsignedHandshake() Reason {
	w := c.webhook
	if len(w.handshakes.unsigned) == 0 || c.upgrade() != OK || (len(c.request.Body) > 0 && c.body() != OK) {
		return c.skip()
	}
	c.readDelivery()
	for _, h := range w.handshakes.unsigned {
		challenge, ok := h.Read(&c.delivery)
		if !ok {
			continue
		}
		bucket := [1]Bucket{{Key: addressKey("handshake", "", c.d.ClientAddress), Limit: handshakeRate}}
		taken, err := c.engine.config.Local.Take(c.ctx, &Take{Time: c.request.Time, Endpoint: w.name, Buckets: bucket[:]})
		switch {
		case err != nil:
			return StoreUnavailable
		case taken.Limited > 0:
			c.d.RetryAfter = taken.RetryAfter
			c.asked = w.shadow
			return RateLimited
		}
		return c.replyTo(challenge, c.firstKey())
	}
	return c.skip()
}

// signedHandshake answers a question whose signature holds.
func (c *check) signedHandshake() Reason {
	w := c.webhook
	if len(w.handshakes.signed) == 0 || c.shadowed() {
		return c.skip()
	}
	for _, h := range w.handshakes.signed {
		if challenge, ok := h.Read(&c.delivery); ok {
			return c.replyTo(challenge, c.matchedKey)
		}
	}
	return c.skip()
}

// replyTo makes the decision an answer; a challenge that is not to be answered goes on as a delivery.
func (c *check) replyTo(challenge signature.Challenge, k *signature.Key) Reason {
	reply, ok := challenge.Answer(k, c.webhook.handshakes.token.Reveal())
	if !ok {
		return c.skip()
	}
	if c.webhook.shadow {
		c.asked = true
		if !c.shadowed() {
			c.d.Reason, c.d.Shadow = Shadow, Handshake
		}
		return OK
	}
	c.d.Outcome, c.d.Reason, c.d.Status = Answer, Handshake, reply.Status
	c.d.Reply = Reply{ContentType: reply.Type, Body: reply.Body}
	return Handshake
}

// firstKey is the key of the first version in force.
func (c *check) firstKey() *signature.Key {
	for i := range c.webhook.versions {
		if v := &c.webhook.versions[i]; c.inForce(v) {
			return v.key
		}
	}
	return nil
}
