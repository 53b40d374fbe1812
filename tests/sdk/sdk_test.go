package sdk

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/PaddleHQ/paddle-go-sdk/v4"
	"github.com/PagerDuty/go-pagerduty/webhookv3"
	"github.com/buildkite/go-buildkite/v4"
	"github.com/bwmarrin/discordgo"
	"github.com/google/go-github/v84/github"
	line "github.com/line/line-bot-sdk-go/v8/linebot/webhook"
	"github.com/sendgrid/sendgrid-go/helpers/eventwebhook"
	"github.com/slack-go/slack"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	stripe "github.com/stripe/stripe-go/v84/webhook"
	svix "github.com/svix/svix-webhooks/go"
	"github.com/twilio/twilio-go/client"
	"pgregory.net/rapid"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/store"
)

// publicURL is what URL-signing senders were given.
const publicURL = "https://hooks.example.com/hook"

var errRefused = errors.New("the SDK refuses it")

// refusedUnless is errRefused where an SDK says no more than that.
func refusedUnless(ok bool) error {
	if ok {
		return nil
	}
	return errRefused
}

// sdk is what a sender publishes. They sign and check with the clock of the machine.
type sdk struct {
	preset string
	policy string // more of the policy's signature
	// secret draws a secret as the sender hands it out.
	secret func(t *rapid.T) string
	// body draws a body as the sender makes it.
	body func(t *rapid.T) []byte
	// sign makes the headers of a delivery; nil where the SDK only verifies.
	sign func(secret string, at time.Time, body []byte) (map[string]string, error)
	// verify says whether the SDK takes a delivery. It may consume the request's body.
	verify func(secret string, r *http.Request, body []byte) error
}

func plainSecret(t *rapid.T) string {
	return rapid.StringMatching(`[A-Za-z0-9]{16,40}`).Draw(t, "secret")
}

func whsec(t *rapid.T) string {
	return "whsec_" + base64.StdEncoding.EncodeToString(rapid.SliceOfN(rapid.Byte(), 24, 64).Draw(t, "secret"))
}

func anyBody(t *rapid.T) []byte { return rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "body") }

// formBody has no name twice: of those, twilio-go reads only the first value.
func formBody(t *rapid.T) []byte {
	form := url.Values{}
	for _, name := range rapid.SliceOfNDistinct(rapid.StringN(1, 10, -1), 1, 6, rapid.ID).Draw(t, "names") {
		form.Set(name, rapid.String().Draw(t, "value"))
	}
	return []byte(form.Encode())
}

func seconds(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }

var sdks = map[string]sdk{
	"stripe-go": {
		preset: "stripe", secret: whsec, body: anyBody,
		sign: func(secret string, at time.Time, body []byte) (map[string]string, error) {
			p := stripe.GenerateTestSignedPayload(&stripe.UnsignedPayload{Payload: body, Secret: secret, Timestamp: at})
			return map[string]string{"stripe-signature": p.Header}, nil
		},
		verify: func(secret string, r *http.Request, body []byte) error {
			return stripe.ValidatePayload(body, r.Header.Get("Stripe-Signature"), secret)
		},
	},
	"slack-go": {
		preset: "slack", secret: plainSecret, body: anyBody,
		verify: func(secret string, r *http.Request, body []byte) error {
			v, err := slack.NewSecretsVerifier(r.Header, secret)
			if err != nil {
				return err
			}
			if _, err := v.Write(body); err != nil {
				return err
			}
			return v.Ensure()
		},
	},
	"twilio-go, form": {
		preset: "twilio", policy: ", publicURL: '" + publicURL + "'", secret: plainSecret, body: formBody, verify: verifyTwilio,
	},
	"twilio-go, JSON": {
		preset: "twilio-json", policy: ", publicURL: '" + publicURL + "'", secret: plainSecret, body: anyBody, verify: verifyTwilio,
	},
	"standard-webhooks": {
		preset: "standard-webhooks", secret: whsec, body: anyBody,
		sign: func(secret string, at time.Time, body []byte) (map[string]string, error) {
			w, err := standardwebhooks.NewWebhook(secret)
			if err != nil {
				return nil, err
			}
			signature, err := w.Sign("msg_1", at, body)
			return map[string]string{"webhook-id": "msg_1", "webhook-timestamp": seconds(at), "webhook-signature": signature}, err
		},
		verify: func(secret string, r *http.Request, body []byte) error {
			w, err := standardwebhooks.NewWebhook(secret)
			if err != nil {
				return err
			}
			return w.Verify(body, r.Header)
		},
	},
	"svix-webhooks": {
		preset: "svix", secret: whsec, body: anyBody,
		sign: func(secret string, at time.Time, body []byte) (map[string]string, error) {
			w, err := svix.NewWebhook(secret)
			if err != nil {
				return nil, err
			}
			signature, err := w.Sign("msg_1", at, body)
			return map[string]string{"svix-id": "msg_1", "svix-timestamp": seconds(at), "svix-signature": signature}, err
		},
		verify: func(secret string, r *http.Request, body []byte) error {
			w, err := svix.NewWebhook(secret)
			if err != nil {
				return err
			}
			return w.Verify(body, r.Header)
		},
	},
	"go-github": {
		preset: "github", secret: plainSecret, body: anyBody,
		verify: func(secret string, r *http.Request, body []byte) error {
			return github.ValidateSignature(r.Header.Get(github.SHA256SignatureHeader), body, []byte(secret))
		},
	},
	"go-github, SHA-1": {
		preset: "github-sha1", secret: plainSecret, body: anyBody,
		verify: func(secret string, r *http.Request, body []byte) error {
			return github.ValidateSignature(r.Header.Get(github.SHA1SignatureHeader), body, []byte(secret))
		},
	},
	"line-bot-sdk-go": {
		preset: "line", secret: plainSecret, body: anyBody,
		verify: func(secret string, r *http.Request, body []byte) error {
			return refusedUnless(line.ValidateSignature(secret, r.Header.Get("X-Line-Signature"), body))
		},
	},
	"go-pagerduty": {
		preset: "pagerduty", secret: plainSecret, body: anyBody,
		verify: func(secret string, r *http.Request, _ []byte) error { return webhookv3.VerifySignature(r, secret) },
	},
	"go-buildkite": {
		preset: "buildkite", secret: plainSecret, body: anyBody,
		verify: func(secret string, r *http.Request, _ []byte) error {
			_, err := buildkite.ValidatePayload(r, []byte(secret))
			return err
		},
	},
	"paddle-go-sdk": {
		preset: "paddle", secret: plainSecret, body: anyBody,
		verify: func(secret string, r *http.Request, _ []byte) error {
			ok, err := paddle.NewWebhookVerifier(secret, paddle.VerifierWithTimestampTolerance(time.Minute)).Verify(r)
			if err != nil {
				return err
			}
			return refusedUnless(ok)
		},
	},
}

func verifyTwilio(secret string, r *http.Request, body []byte) error {
	v := client.NewRequestValidator(secret)
	return refusedUnless(v.ValidateBody(r.URL.String(), body, r.Header.Get("X-Twilio-Signature")))
}

// folder holds one policy named hook whose key is in the environment.
func folder(t *testing.T, preset, keys, more string) string {
	t.Helper()
	dir := t.TempDir()
	file := fmt.Sprintf("apiVersion: hookauthz.io/v1alpha1\nkind: WebhookPolicy\nmetadata: {name: hook}\nspec:\n  match: {paths: [/hook]}\n"+
		"  signature: {scheme: %s, %s: [{version: \"1\", env: KEY}]%s}\n", preset, keys, more)
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// load loads the folder with its key.
func load(t *rapid.T, dir, key string) *policy.Set {
	t.Helper()
	set, err := policy.Load(dir, policy.LoadOptions{LookupEnv: func(string) (string, bool) { return key, true }})
	if err != nil {
		t.Fatalf("loading:\n%v", err)
	}
	return set
}

// reason is what the engine says of a delivery in both forms of headers.
func reason(t *rapid.T, set *policy.Set, d policy.SignedDelivery, at time.Time) policy.Reason {
	t.Helper()
	_, target, _ := strings.Cut(d.URL, "://")
	reasons := [2]policy.Reason{}
	for i, merged := range []bool{false, true} {
		e := policy.NewEngine(set, policy.EngineConfig{Store: store.NewMemory(store.MemoryConfig{})})
		got := e.Decide(t.Context(), &policy.Request{
			Time: at, Method: d.Method, Host: "hooks.example.com", Path: target[strings.IndexByte(target, '/'):], Merged: merged,
			Peer: netip.MustParseAddr("192.0.2.10"), Headers: d.Headers, Body: [][]byte{d.Body}, BodyState: policy.WholeBody,
		})
		if (got.Outcome == policy.Allow) != (got.Reason == policy.OK) {
			t.Fatalf("the outcome is %v and the reason %v", got.Outcome, got.Reason)
		}
		reasons[i] = got.Reason
	}
	if reasons[0] != reasons[1] {
		t.Fatalf("%v with headers as they are and %v with merged ones", reasons[0], reasons[1])
	}
	return reasons[0]
}

// httpRequest is a delivery as an SDK's user has it.
func httpRequest(t *rapid.T, d policy.SignedDelivery) *http.Request {
	t.Helper()
	r, err := http.NewRequest(d.Method, d.URL, bytes.NewReader(d.Body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range d.Headers {
		r.Header.Add(h.Name, h.Value)
	}
	return r
}

// flipped is a body of which one bit differs.
func flipped(t *rapid.T, body []byte) []byte {
	out := bytes.Clone(body)
	out[rapid.IntRange(0, len(out)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
	return out
}

func TestTheyVerifyWhatWeSign(t *testing.T) {
	for name, s := range sdks {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, s.preset, "secrets", s.policy)
			rapid.Check(t, func(t *rapid.T) {
				secret, body := s.secret(t), s.body(t)
				d, err := load(t, dir, secret).Sign("hook", policy.SignOptions{Time: time.Now(), Body: body, URL: publicURL})
				if err != nil {
					t.Fatal(err)
				}
				if err := s.verify(secret, httpRequest(t, d), d.Body); err != nil {
					t.Fatalf("%v\n%+v", err, d)
				}
				if err := s.verify(s.secret(t)+"QUFB", httpRequest(t, d), d.Body); err == nil {
					t.Fatal("the SDK verifies with another secret: it cannot tell")
				}
			})
		})
	}
}

func TestWeVerifyWhatTheySign(t *testing.T) {
	signers := 0
	for name, s := range sdks {
		if s.sign == nil {
			continue
		}
		signers++
		t.Run(name, func(t *testing.T) {
			dir := folder(t, s.preset, "secrets", s.policy)
			rapid.Check(t, func(t *rapid.T) {
				secret, body := s.secret(t), s.body(t)
				at := time.Unix(rapid.Int64Range(1_600_000_000, 2_000_000_000).Draw(t, "at"), 0)
				headers, err := s.sign(secret, at, body)
				if err != nil {
					t.Fatal(err)
				}
				d := policy.SignedDelivery{Method: "POST", URL: publicURL, Body: body}
				for name, value := range headers {
					d.Headers = append(d.Headers, policy.Header{Name: name, Value: value})
				}
				set := load(t, dir, secret)
				expect := func(what string, d policy.SignedDelivery, at time.Time, want policy.Reason) {
					t.Helper()
					if got := reason(t, set, d, at); got != want {
						t.Fatalf("%s: %v, want %v\n%+v", what, got, want, d)
					}
				}
				expect("as signed", d, at, policy.OK)
				expect("300 s later", d, at.Add(300*time.Second), policy.OK)
				expect("301 s later", d, at.Add(301*time.Second), policy.TimestampOutOfTolerance)
				d.Body = flipped(t, body)
				expect("with another body", d, at, policy.SignatureMismatch)
			})
		})
	}
	if signers != 3 {
		t.Errorf("%d SDKs sign, want 3", signers)
	}
}

// What we take of deliveries that somebody changed, the SDK takes. The spellings that we take on purpose are left out: hex in capitals,
// spaces around the items of a list, and a list in which one signature of several is right.
func TestWhatWeTakeTheyTake(t *testing.T) {
	for name, s := range sdks {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, s.preset, "secrets", s.policy)
			rapid.Check(t, func(t *rapid.T) {
				secret, body := s.secret(t), s.body(t)
				set := load(t, dir, secret)
				now := time.Now()
				d, err := set.Sign("hook", policy.SignOptions{Time: now, Body: body, URL: publicURL})
				if err != nil {
					t.Fatal(err)
				}
				if rapid.Bool().Draw(t, "body") {
					d.Body = flipped(t, d.Body)
				} else {
					h := &d.Headers[rapid.IntRange(1, len(d.Headers)-1).Draw(t, "header")] // the first one is the content type
					h.Value = rapid.SampledFrom([]func(string) string{
						func(string) string { return "" },
						func(v string) string { return v + v[len(v)-1:] },
						func(v string) string { return v[:len(v)-1] },
						func(v string) string { return v[1:] },
						func(v string) string { return strings.Replace(v, "1", "2", 1) },
					}).Draw(t, "change")(h.Value)
				}
				if reason(t, set, d, now) == policy.OK {
					if err := s.verify(secret, httpRequest(t, d), d.Body); err != nil {
						t.Fatalf("we take what the SDK does not: %v\n%+v", err, d)
					}
				}
			})
		})
	}
}

// publicSDK is one whose senders sign with a private key.
type publicSDK struct {
	preset string
	// public is the key as the sender hands it out.
	public string
	sign   func(at time.Time, body []byte) (map[string]string, error)
	verify func(r *http.Request, body []byte) error
}

func discord(t *testing.T) publicSDK {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return publicSDK{
		preset: "discord", public: hex.EncodeToString(public),
		sign: func(at time.Time, body []byte) (map[string]string, error) {
			signature := ed25519.Sign(private, append([]byte(seconds(at)), body...))
			return map[string]string{"x-signature-timestamp": seconds(at), "x-signature-ed25519": hex.EncodeToString(signature)}, nil
		},
		verify: func(r *http.Request, _ []byte) error { return refusedUnless(discordgo.VerifyInteraction(r, public)) },
	}
}

func sendgrid(t *testing.T) publicSDK {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := base64.StdEncoding.EncodeToString(der)
	return publicSDK{
		preset: "sendgrid", public: public,
		sign: func(at time.Time, body []byte) (map[string]string, error) {
			digest := sha256.Sum256(append([]byte(seconds(at)), body...))
			signature, err := private.Sign(rand.Reader, digest[:], crypto.SHA256)
			return map[string]string{
				strings.ToLower(eventwebhook.VerificationHTTPHeader): base64.StdEncoding.EncodeToString(signature),
				strings.ToLower(eventwebhook.TimestampHTTPHeader):    seconds(at),
			}, err
		},
		verify: func(r *http.Request, body []byte) error {
			key, err := eventwebhook.ConvertPublicKeyBase64ToECDSA(public)
			if err != nil {
				return err
			}
			ok, err := eventwebhook.VerifySignature(key, body, r.Header.Get(eventwebhook.VerificationHTTPHeader), r.Header.Get(eventwebhook.TimestampHTTPHeader))
			if err != nil {
				return err
			}
			return refusedUnless(ok)
		},
	}
}

// With a private key in the sender's hands only, the SDK and we must agree: on what is signed and on what is not.
func TestWeAgreeOnPublicKeys(t *testing.T) {
	for name, s := range map[string]publicSDK{"discordgo": discord(t), "sendgrid-go": sendgrid(t)} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, s.preset, "publicKeys", ", tolerance: 5m")
			rapid.Check(t, func(t *rapid.T) {
				body, at := anyBody(t), time.Now()
				headers, err := s.sign(at, body)
				if err != nil {
					t.Fatal(err)
				}
				d := policy.SignedDelivery{Method: "POST", URL: publicURL, Body: body}
				for name, value := range headers {
					d.Headers = append(d.Headers, policy.Header{Name: name, Value: value})
				}
				set := load(t, dir, s.public)
				if ours, theirs := reason(t, set, d, at), s.verify(httpRequest(t, d), d.Body); ours != policy.OK || theirs != nil {
					t.Fatalf("as signed: we say %v and the SDK %v", ours, theirs)
				}
				d.Body = flipped(t, body)
				if ours, theirs := reason(t, set, d, at), s.verify(httpRequest(t, d), d.Body); ours != policy.SignatureMismatch || theirs == nil {
					t.Fatalf("with another body: we say %v and the SDK %v", ours, theirs)
				}
			})
		})
	}
}
