package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// The secrets of the policies. Every one is looked for in all that the programs write.
const (
	secret        = "e2e-current-secret-5f0b7a"
	expiredSecret = "e2e-expired-secret-91c3d2"
	leakedSecret  = "e2e-leaked-secret-77aa01"

	// Those of examples/secrets and examples/hookauthz.env.
	githubSecret  = "It's a Secret to Everybody"
	stripeSecret  = "whsec_00978109cfe549c69d5b6fe3e54a2855"
	stripeOld     = "whsec_7e4d3f2b8aa292e3bd61d4d96c3a7895"
	slackSecret   = "f702dc0c1ba6c76a2a01321f4e0af733"
	ordersSecret  = "whsec_Iv+WmIx5BQ37fZ2bsb7+Ja3KTEwWsoUt"
	gitlabSecret  = "example-gitlab-3c21bdf3995eb316a83730a5"
	partnerSecret = "example-partner-63ecae60f0b39c87c80142d7"
	billingSecret = "example-billing-9c62a8245f7f102a17127551"
)

var secretEnv = []string{"E2E_SECRET=" + secret, "E2E_EXPIRED=" + expiredSecret, "E2E_LEAKED=" + leakedSecret}

// The schemes, written down a second time from the senders' own documentation.

func mac(key, message []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(message)
	return m.Sum(nil)
}

// hexMAC is the hex HMAC-SHA256 of the parts in their order.
func hexMAC(key string, parts ...string) string {
	return hex.EncodeToString(mac([]byte(key), []byte(strings.Join(parts, ""))))
}

// guide signs as "Webhook Security Best Practices" has it.
func guide(path, key string, body []byte) delivery {
	return delivery{Path: path, Body: body, Headers: []header{{"X-Webhook-Signature", hexMAC(key, string(body))}}}
}

// asJSON is the delivery with the content type of JSON.
func asJSON(d delivery) delivery { return d.With(header{"Content-Type", "application/json"}) }

func stripe(path, key string, at time.Time, body []byte) delivery {
	sig := fmt.Sprintf("t=%d,v1=%s", at.Unix(), hexMAC(key, fmt.Sprint(at.Unix()), ".", string(body)))
	return asJSON(delivery{Path: path, Body: body, Headers: []header{{"Stripe-Signature", sig}}})
}

func slack(key string, at time.Time, body []byte) delivery {
	stamp := fmt.Sprint(at.Unix())
	return delivery{Path: "/webhooks/slack", Body: body, Headers: []header{
		{"X-Slack-Request-Timestamp", stamp}, {"X-Slack-Signature", "v0=" + hexMAC(key, "v0:", stamp, ":", string(body))},
	}}
}

func standard(path, key, id string, at time.Time, body []byte) delivery {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(key, "whsec_"))
	if err != nil {
		panic(err)
	}
	stamp := fmt.Sprint(at.Unix())
	sig := base64.StdEncoding.EncodeToString(mac(raw, []byte(id+"."+stamp+"."+string(body))))
	return delivery{Path: path, Body: body, Headers: []header{
		{"webhook-id", id}, {"webhook-timestamp", stamp}, {"webhook-signature", "v1," + sig},
	}}
}

// github is the delivery of GitHub's documentation, with its signature.
var github = delivery{
	Path: "/webhooks/github", Body: []byte("Hello, World!"),
	Headers: []header{{"X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"}},
}

func stampOf(t time.Time) string { return fmt.Sprint(t.Unix()) }
