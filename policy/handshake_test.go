package policy_test

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/incident"
	"github.com/hookauthz/hookauthz/policy/signature"
)

const everybody = "It's a Secret to Everybody" // what the environment variable SECRET holds

// ask is a request of a provider that has no signature.
func ask(method, target string, body string, headers ...policy.Header) *policy.Request {
	r := &policy.Request{Time: now, Method: method, Host: "localhost", Path: target, Peer: netip.MustParseAddr("192.0.2.10"), Headers: headers}
	if body != "" {
		r.Body, r.BodyState = [][]byte{[]byte(body)}, policy.WholeBody
		r.Headers = append(r.Headers, policy.Header{Name: "content-length", Value: strconv.Itoa(len(body))})
	}
	return r
}

func mac(key, text string) []byte {
	h := hmac.New(sha256.New, []byte(key))
	h.Write([]byte(text))
	return h.Sum(nil)
}

// reply is the short form of an answer: "answer handshake 200 text/plain: body".
func reply(d policy.Decision) string {
	if d.Outcome != policy.Answer {
		return verdict(d)
	}
	return fmt.Sprintf("%s %s: %s", verdict(d), d.Reply.ContentType, d.Reply.Body)
}

// Each unsigned handshake, byte for byte; without enabled none is answered.
func TestUnsignedHandshakes(t *testing.T) {
	const tokenConfig = `handshake: {enabled: true, verifyToken: {env: OTHER}}`
	const verifyToken = "another+secret%2C+32+bytes+long...."
	challenge := "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"
	braintree := hmac.New(sha1.New, func() []byte { sum := sha1.Sum([]byte(everybody)); return sum[:] }())
	braintree.Write([]byte("20f9f8ed05f77439fe955c977e4c8a53"))
	tests := []struct {
		name, scheme, handshake string
		request                 *policy.Request
		want                    string
	}{
		{"meta", "meta", tokenConfig, ask("GET", "/hook?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token="+verifyToken, ""), "answer handshake 200 text/plain: 1158201444"},
		{"meta with a wrong token", "meta", tokenConfig, ask("GET", "/hook?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=guess", ""), "deny method_not_allowed 405"},
		{"meta without a token", "meta", tokenConfig, ask("GET", "/hook?hub.mode=subscribe&hub.challenge=1158201444", ""), "deny method_not_allowed 405"},
		{"strava", "github", `handshake: {enabled: true, provider: strava, verifyToken: {env: OTHER}}`, ask("GET", "/hook?hub.verify_token="+verifyToken+"&hub.challenge=15f7d1a91c1f40f8a748fd134752feb3&hub.mode=subscribe", ""),
			`answer handshake 200 application/json: {"hub.challenge":"15f7d1a91c1f40f8a748fd134752feb3"}`},
		{"dropbox", "dropbox", "handshake: {enabled: true}", ask("GET", "/hook?challenge="+challenge, ""), "answer handshake 200 text/plain: " + challenge},
		{"nylas", "nylas", "handshake: {enabled: true}", ask("GET", "/hook?challenge=bc609b38-c81f", ""), "answer handshake 200 text/plain: bc609b38-c81f"},
		{"fitbit", "fitbit", tokenConfig, ask("GET", "/hook?verify="+verifyToken, ""), "answer handshake 204 : "},
		{"fitbit with a wrong code", "fitbit", tokenConfig, ask("GET", "/hook?verify=guess", ""), "answer handshake 404 : "},
		{"okta", "gitlab-token", `handshake: {enabled: true, provider: okta}`, ask("GET", "/hook", "", policy.Header{Name: "x-okta-verification-challenge", Value: challenge}),
			`answer handshake 200 application/json: {"verification":"` + challenge + `"}`},
		{"twitter", "twitter", "handshake: {enabled: true}", ask("GET", "/hook?crc_token=9b4507b3-9040-4669-9ca3-6b94edb50553", ""),
			`answer handshake 200 application/json: {"response_token":"sha256=` + base64.StdEncoding.EncodeToString(mac(everybody, "9b4507b3-9040-4669-9ca3-6b94edb50553")) + `"}`},
		{"linkedin", "linkedin", "handshake: {enabled: true}", ask("GET", "/hook?challengeCode=890e4665-4dfe-4ab1-b689-ed553bceeed0", ""),
			`answer handshake 200 application/json: {"challengeCode":"890e4665-4dfe-4ab1-b689-ed553bceeed0","challengeResponse":"` + hex.EncodeToString(mac(everybody, "890e4665-4dfe-4ab1-b689-ed553bceeed0")) + `"}`},
		{"braintree", "braintree", tokenConfig, ask("GET", "/hook?bt_challenge=20f9f8ed05f77439fe955c977e4c8a53", ""),
			"answer handshake 200 text/plain: another secret, 32 bytes long....|" + hex.EncodeToString(braintree.Sum(nil))},
		{"monday", "github", "handshake: {enabled: true, provider: monday}", ask("POST", "/hook", `{"challenge":"`+challenge+`"}`), `answer handshake 200 application/json: {"challenge":"` + challenge + `"}`},
		{"microsoft graph", "github", "handshake: {enabled: true, provider: microsoft-graph}", ask("POST", "/hook?validationToken=abc-1", ""), "answer handshake 200 text/plain: abc-1"},
		{"azure event grid", "github", "handshake: {enabled: true, provider: azure-eventgrid}", ask("POST", "/hook", `[{"eventType":"Microsoft.EventGrid.SubscriptionValidationEvent","data":{"validationCode":"512d38b6-c7b8"}}]`,
			policy.Header{Name: "aeg-event-type", Value: "SubscriptionValidation"}), `answer handshake 200 application/json: {"validationResponse":"512d38b6-c7b8"}`},
		{"lark", "lark-event", tokenConfig, ask("POST", "/hook", `{"challenge":"ajls384kdj","token":"another secret, 32 bytes long....","type":"url_verification"}`), `answer handshake 200 application/json: {"challenge":"ajls384kdj"}`},
		{"trello", "trello", "handshake: {enabled: true}", ask("HEAD", "/hook", ""), "answer handshake 200 : "},
		{"intercom", "intercom", "handshake: {enabled: true}", ask("HEAD", "/hook", ""), "answer handshake 200 : "},
		{"mandrill", "mandrill", "handshake: {enabled: true}", ask("HEAD", "/hook", ""), "answer handshake 200 : "},
		{"mandrill's check", "mandrill", "handshake: {enabled: true}", ask("POST", "/hook", "mandrill_events=%5B%5D", policy.Header{Name: "content-type", Value: "application/x-www-form-urlencoded"}), "answer handshake 200 : "},
		{"bitbucket", "bitbucket", "handshake: {enabled: true}", ask("POST", "/hook", `{"test":true}`, policy.Header{Name: "x-event-key", Value: "diagnostics:ping"}), "answer handshake 200 : "},
		{"bitbucket, signed wrongly", "bitbucket", "handshake: {enabled: true}", ask("POST", "/hook", `{"test":true}`, policy.Header{Name: "x-event-key", Value: "diagnostics:ping"}, policy.Header{Name: "x-hub-signature", Value: "sha256=" + strings.Repeat("0", 64)}),
			"deny signature_mismatch 401"},
		{"woocommerce", "woocommerce", "handshake: {enabled: true}", ask("POST", "/hook", "webhook_id=12", policy.Header{Name: "content-type", Value: "application/x-www-form-urlencoded"}), "answer handshake 200 : "},

		// A reflector would echo these.
		{"script", "dropbox", "handshake: {enabled: true}", ask("GET", "/hook?challenge=%3Cscript%3Ealert(1)%3C/script%3E", ""), "deny method_not_allowed 405"},
		{"line ends", "dropbox", "handshake: {enabled: true}", ask("GET", "/hook?challenge=a%0d%0aSet-Cookie:b", ""), "deny method_not_allowed 405"},
		{"257 bytes", "dropbox", "handshake: {enabled: true}", ask("GET", "/hook?challenge="+strings.Repeat("a", 257), ""), "deny method_not_allowed 405"},
		{"two challenges", "dropbox", "handshake: {enabled: true}", ask("GET", "/hook?challenge=a&challenge=b", ""), "deny method_not_allowed 405"},
		{"quotes in JSON", "github", "handshake: {enabled: true, provider: monday}", ask("POST", "/hook", `{"challenge":"a\",\"b\":\"c"}`), "deny signature_missing 401"},
		// A signing oracle would sign these.
		{"a body", "twitter", "handshake: {enabled: true}", ask("GET", "/hook?crc_token=%7B%22a%22:1%7D", ""), "deny method_not_allowed 405"},
		{"65 bytes", "twitter", "handshake: {enabled: true}", ask("GET", "/hook?crc_token="+strings.Repeat("a", 65), ""), "deny method_not_allowed 405"},
		{"letters for braintree", "braintree", tokenConfig, ask("GET", "/hook?bt_challenge=zzzzzzzzzzzzzzzzzzzz", ""), "deny method_not_allowed 405"},

		{"upgrade", "dropbox", "handshake: {enabled: true}", ask("GET", "/hook?challenge=a", "", policy.Header{Name: "upgrade", Value: "websocket"}), "deny method_not_allowed 405"},
		{"GET with a body", "dropbox", "handshake: {enabled: true}", ask("GET", "/hook?challenge=a", "x"), "deny method_not_allowed 405"},
		{"another path", "dropbox", "handshake: {enabled: true}", ask("GET", "/other?challenge=a", ""), "deny no_policy 403"},
		{"from elsewhere", "dropbox", "source: {allow: [198.51.100.1]}\n  handshake: {enabled: true}", ask("GET", "/hook?challenge=a", ""), "deny source_denied 403"},
		{"Asana's secret", "asana", "handshake: {enabled: true}", ask("POST", "/hook", "{}", policy.Header{Name: "x-hook-secret", Value: "abc"}), "deny signature_missing 401"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			yaml := webhook(schemeFor(t, tt.scheme), tt.handshake)
			if got := reply(engine(t, yaml).Decide(t.Context(), tt.request)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if !strings.HasPrefix(tt.want, "answer") {
				return
			}
			off := strings.Replace(yaml, "enabled: true", "enabled: false", 1)
			if d := engine(t, off).Decide(t.Context(), tt.request); d.Outcome != policy.Deny {
				t.Errorf("where it is not enabled: got %s", reply(d))
			}
		})
	}
}

// A shadow policy answers nothing: the application does, as it did before. What would have been answered reaches it, whatever its method.
func TestUnsignedHandshakesInShadowMode(t *testing.T) {
	const metaToken = `handshake: {enabled: true, verifyToken: {env: OTHER}}`
	const enabled = "handshake: {enabled: true}"
	meta := "/hook?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token="
	tests := []struct {
		name, scheme, handshake string
		request                 *policy.Request
		want                    string
	}{
		{"dropbox", "dropbox", enabled, ask("GET", "/hook?challenge=a", ""), "allow shadow(handshake)"},
		{"meta", "meta", metaToken, ask("GET", meta+"another+secret%2C+32+bytes+long....", ""), "allow shadow(handshake)"},
		{"trello", "trello", enabled, ask("HEAD", "/hook", ""), "allow shadow(handshake)"},
		{"content types", "dropbox", enabled + "\n  body: {contentTypes: [application/json]}", ask("GET", "/hook?challenge=a", ""), "allow shadow(handshake)"},
		{"from elsewhere", "dropbox", enabled + "\n  source: {allow: [198.51.100.1]}", ask("GET", "/hook?challenge=a", ""), "allow shadow(source_denied)"},

		// What is no handshake is not softened by being like one.
		{"a wrong token", "meta", metaToken, ask("GET", meta+"guess", ""), "deny method_not_allowed 405"},
		{"a wrong token from elsewhere", "meta", metaToken + "\n  source: {allow: [198.51.100.1]}", ask("GET", meta+"guess", ""), "deny method_not_allowed 405"},
		{"a script", "dropbox", enabled, ask("GET", "/hook?challenge=%3Cscript%3E", ""), "deny method_not_allowed 405"},
		{"an upgrade", "dropbox", enabled, ask("GET", "/hook?challenge=a", "", policy.Header{Name: "upgrade", Value: "websocket"}), "deny method_not_allowed 405"},
		{"a body that is not here", "dropbox", enabled, ask("GET", "/hook?challenge=a", "", policy.Header{Name: "content-length", Value: "5"}), "deny body_length_mismatch 400"},
		{"not enabled", "dropbox", "handshake: {enabled: false}", ask("GET", "/hook?challenge=a", ""), "deny method_not_allowed 405"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := engine(t, webhook(schemeFor(t, tt.scheme), tt.handshake, "mode: shadow"))
			if got := reply(e.Decide(t.Context(), tt.request)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	t.Run("over their limit", func(t *testing.T) {
		e := engine(t, webhook(schemeFor(t, "dropbox"), enabled, "mode: shadow"))
		var last policy.Decision
		for range 31 {
			last = e.Decide(t.Context(), ask("GET", "/hook?challenge=a", ""))
		}
		if got := reply(last); got != "allow shadow(rate_limited)" {
			t.Errorf("got %s, want allow shadow(rate_limited)", got)
		}
	})
}

// schemeFor is the signature part of a policy for a preset.
func schemeFor(t *testing.T, name string) string {
	t.Helper()
	scheme, ok := signature.Preset(name)
	if !ok {
		t.Fatalf("no preset %q", name)
	}
	s := fmt.Sprintf(`scheme: %s, secrets: [{version: "1", env: SECRET}]`, name)
	if scheme.NeedsURL() {
		s += `, publicURL: "https://localhost/hook"`
	}
	return s
}

// Handshakes that arrive signed are verified first, and answered unless the policy says otherwise.
func TestSignedHandshakes(t *testing.T) {
	tests := []struct{ name, scheme, body, want string }{
		{"slack", "slack", `{"token":"x","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P","type":"url_verification"}`,
			"answer handshake 200 text/plain: 3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"},
		{"slack with a script", "slack", `{"challenge":"<script>","type":"url_verification"}`, "allow ok"},
		{"slack event", "slack", `{"type":"event_callback"}`, "allow ok"},
		{"zoom", "zoom", `{"payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"},"event_ts":1,"event":"endpoint.url_validation"}`,
			`answer handshake 200 application/json: {"plainToken":"qgg8vlvZRS6UYooatFL8Aw","encryptedToken":"` + hex.EncodeToString(mac(everybody, "qgg8vlvZRS6UYooatFL8Aw")) + `"}`},
		{"zoom with a message to sign", "zoom", `{"payload":{"plainToken":"v0:1:{}"},"event":"endpoint.url_validation"}`, "allow ok"},
		{"smartcar", "smartcar", `{"version":"2.0","eventName":"verify","payload":{"challenge":"3a5c8f72"}}`,
			`answer handshake 200 application/json: {"challenge":"` + hex.EncodeToString(mac(everybody, "3a5c8f72")) + `"}`},
		{"terraform cloud", "terraform-cloud", `{"notifications":[{"message":"Verification","trigger":"verification"}]}`, "answer handshake 200 text/plain: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			yaml := webhook(schemeFor(t, tt.scheme))
			e := engine(t, yaml)
			r := signed(t, e, "hook", now, tt.body)
			if got := reply(e.Decide(t.Context(), r)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if !strings.HasPrefix(tt.want, "answer") {
				return
			}
			shadow := engine(t, webhook(schemeFor(t, tt.scheme), "mode: shadow"))
			if got := reply(shadow.Decide(t.Context(), r)); got != "allow shadow(handshake)" {
				t.Errorf("in shadow mode: got %s", got)
			}
			off := engine(t, webhook(schemeFor(t, tt.scheme), "handshake: {enabled: false}"))
			if got := reply(off.Decide(t.Context(), r)); got != "allow ok" {
				t.Errorf("switched off: got %s", got)
			}
			r.Body = [][]byte{[]byte(tt.body + " ")}
			without(r, "content-length")
			if got := reply(e.Decide(t.Context(), r)); got != "deny signature_mismatch 401" {
				t.Errorf("with another body: got %s", got)
			}
		})
	}
}

// Discord asks with an Ed25519 signature; Twitch in a header.
func TestSignedHandshakesOfOthers(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	discord := engine(t, webhook(fmt.Sprintf(`scheme: discord, tolerance: 5m, publicKeys: [{version: "1", value: "%x"}]`, public)))
	for body, want := range map[string]string{
		`{"type":1}`: `answer handshake 200 application/json: {"type":1}`,
		`{"type":0}`: "answer handshake 204 : ",
		`{"type":2}`: "allow ok",
	} {
		stamp := strconv.FormatInt(now.Unix(), 10)
		r := ask("POST", "/hook", body, policy.Header{Name: "x-signature-timestamp", Value: stamp},
			policy.Header{Name: "x-signature-ed25519", Value: hex.EncodeToString(ed25519.Sign(private, []byte(stamp+body)))})
		if got := reply(discord.Decide(t.Context(), r)); got != want {
			t.Errorf("%s: got %s, want %s", body, got, want)
		}
	}
	twitch := engine(t, webhook(schemeFor(t, "twitch")))
	r := signed(t, twitch, "hook", now, `{"challenge":"pogchamp-kappa-360noscope-vohiyo"}`)
	header(r, "twitch-eventsub-message-type", "webhook_callback_verification")
	if got := reply(twitch.Decide(t.Context(), r)); got != "answer handshake 200 text/plain: pogchamp-kappa-360noscope-vohiyo" {
		t.Errorf("twitch: got %s", got)
	}
}

// What a handshake signs for the asking is never a delivery, even though its signature is right.
func TestHandshakeIsNoOracle(t *testing.T) {
	text := "9b4507b3-9040-4669-9ca3-6b94edb50553"
	r := ask("POST", "/hook", text, policy.Header{Name: "x-twitter-webhooks-signature", Value: "sha256=" + base64.StdEncoding.EncodeToString(mac(everybody, text))})
	answering := webhook(schemeFor(t, "twitter"), "handshake: {enabled: true}")
	silent := webhook(schemeFor(t, "twitter"))
	elsewhere := strings.NewReplacer("name: hook", "name: other", "[/hook]", "[/other]").Replace(answering)
	for _, tt := range []struct{ name, yaml, want string }{
		{"where it answers", answering, "deny signature_malformed 401"},
		{"where another endpoint answers", silent + "---\n" + elsewhere, "deny signature_malformed 401"},
		{"where nobody answers", silent, "allow ok"},
	} {
		if got := reply(engine(t, tt.yaml).Decide(t.Context(), r)); got != tt.want {
			t.Errorf("twitter, %s: got %s, want %s", tt.name, got, tt.want)
		}
	}
	challenge := "20f9f8ed05f77439fe955c977e4c8a53"
	key := sha1.Sum([]byte(everybody))
	h := hmac.New(sha1.New, key[:])
	h.Write([]byte(challenge))
	braintree := engine(t, webhook(schemeFor(t, "braintree"), "handshake: {enabled: true, verifyToken: {env: OTHER}}"))
	for _, padding := range []string{"", "&padding=" + strings.Repeat("x", 16<<10)} {
		r := ask("POST", "/hook", "bt_payload="+challenge+"&bt_signature="+"public%7C"+hex.EncodeToString(h.Sum(nil))+padding, policy.Header{Name: "content-type", Value: "application/x-www-form-urlencoded"})
		if d := braintree.Decide(t.Context(), r); d.Reason != policy.SignatureMalformed {
			t.Errorf("braintree with %d bytes of padding: got %s", len(padding), reply(d))
		}
	}
}

// An address may ask a few times; then it is told to wait.
func TestHandshakeBudget(t *testing.T) {
	e := engine(t, webhook(schemeFor(t, "dropbox"), "handshake: {enabled: true}"))
	got := map[string]int{}
	for range 40 {
		got[verdict(e.Decide(t.Context(), ask("GET", "/hook?challenge=a", "")))]++
	}
	if diff := cmp.Diff(map[string]int{"answer handshake 200": 30, "deny rate_limited 429": 10}, got); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
}

func TestHandshakeFaults(t *testing.T) {
	tests := []struct{ name, scheme, line, want string }{
		{"no token", "meta", "handshake: {enabled: true}", "needs a verify token"},
		{"no source", "meta", "handshake: {enabled: true, verifyToken: {}}", "has no single source"},
		{"unreadable", "meta", "handshake: {enabled: true, verifyToken: {env: NOT_SET}}", `"NOT_SET" is not set`},
		{"unknown", "github", "handshake: {enabled: true, provider: strafa}", `did you mean "strava"?`},
		{"a token in the policy", "meta", "handshake: {enabled: true, verifyToken: {value: TOPSECRET}}", "a shared secret stands in the policy file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := policy.Load(folder(t, "a.yaml", webhook(schemeFor(t, tt.scheme), tt.line)), options)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "TOPSECRET") {
				t.Errorf("got %v, want a fault with %q", err, tt.want)
			}
		})
	}
}

// A challenge in a body that may have been cut is not answered.
func TestHandshakeOfAPartialBody(t *testing.T) {
	e := engine(t, webhook(githubScheme, "handshake: {enabled: true, provider: monday}"))
	r := ask("POST", "/hook", `{"challenge":"abc"}`)
	if got := reply(e.Decide(t.Context(), r)); got != `answer handshake 200 application/json: {"challenge":"abc"}` {
		t.Fatalf("a whole one: got %s", got)
	}
	r.BodyState = policy.PartialBody
	if got := reply(e.Decide(t.Context(), r)); got != "deny body_partial 413" {
		t.Errorf("a partial one: got %s", got)
	}
}

// What is signed for a provider is not signed with a secret that is not good any more.
func TestHandshakeKeyInForce(t *testing.T) {
	const token = "9b4507b3-9040-4669-9ca3-6b94edb50553"
	answer := func(secret string) string {
		return `answer handshake 200 application/json: {"response_token":"sha256=` + base64.StdEncoding.EncodeToString(mac(secret, token)) + `"}`
	}
	e := engine(t, webhook(`scheme: twitter, secrets: [{version: "1", env: SECRET}, {version: "2", env: OTHER}]`, "handshake: {enabled: true}"))
	revoke := func(version string) incident.Action {
		return incident.Action{Do: "revoke", Endpoint: "hook", Version: version}
	}
	for _, tt := range []struct {
		revoked []incident.Action
		want    string
	}{
		{nil, answer(everybody)},
		{[]incident.Action{revoke("1")}, answer("another secret, 32 bytes long....")},
		{[]incident.Action{revoke("1"), revoke("2")}, "deny method_not_allowed 405"},
	} {
		on(t, e, tt.revoked...)
		if got := reply(e.Decide(t.Context(), ask("GET", "/hook?crc_token="+token, ""))); got != tt.want {
			t.Errorf("%d revoked: got %s, want %s", len(tt.revoked), got, tt.want)
		}
	}
}
