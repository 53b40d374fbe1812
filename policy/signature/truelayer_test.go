package signature

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"
)

// The material of github:TrueLayer/truelayer-signing, test-resources.
const (
	truelayerPEM = `-----BEGIN PUBLIC KEY-----
MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQAoLuW4nFqoUuR8d7FVsUoI62libYd
QlWGtLStnqdudLY92bQ0ra5eZAbkunrGTR9+w9mr4o2Etyb6pC7YB2+23WMBfVyO
QYyKW2KQ+uRfj2rC4kN1wRNpOyP6TIU/yOwX1blcAHdni0GJC1zvYNCclh4rIBX9
PqplO0UoWv5OniK76Ps=
-----END PUBLIC KEY-----
`
	truelayerJWK = `{"kty":"EC","alg":"ES512","kid":"45fc75cf-5649-4134-84b3-192c2c78e990","crv":"P-521",` +
		`"x":"oLuW4nFqoUuR8d7FVsUoI62libYdQlWGtLStnqdudLY92bQ0ra5eZAbkunrGTR9-w9mr4o2Etyb6pC7YB2-23WM",` +
		`"y":"AX1cjkGMiltikPrkX49qwuJDdcETaTsj-kyFP8jsF9W5XAB3Z4tBiQtc72DQnJYeKyAV_T6qZTtFKFr-Tp4iu-j7"}`
	truelayerWebhook = "eyJhbGciOiJFUzUxMiIsImtpZCI6IjQ1ZmM3NWNmLTU2NDktNDEzNC04NGIzLTE5MmMyYzc4ZTk5MCIsInRsX3ZlcnNpb24iOiIyIiwidGxfaGVhZGVycyI6IlgtVGwtV2ViaG9vay1UaW1lc3RhbXAsQ29udGVudC1UeXBlIiwiamt1IjoiaHR0cHM6Ly93ZWJob29rcy50cnVlbGF5ZXIuY29tLy53ZWxsLWtub3duL2p3a3MifQ" +
		"..AB9S1dzZTmw0tofUjJNGO7Kt_jZsahPyIrBTdhfxBWOI3KoLALkMy6ka1MjpZQx06_hQUJnanu9K_LS6V9lNaNGiAX5Cos5RWQfbeBCZWqAvIpXO3FvIzyJKRaTYK8FBG4lfJYPi76_pIkCLGKWeq8__7ElpMVRcLTM5IBKWL8isVZn_"
	truelayerRequest = "eyJhbGciOiJFUzUxMiIsImtpZCI6IjQ1ZmM3NWNmLTU2NDktNDEzNC04NGIzLTE5MmMyYzc4ZTk5MCIsInRsX3ZlcnNpb24iOiIyIiwidGxfaGVhZGVycyI6IklkZW1wb3RlbmN5LUtleSJ9" +
		"..AC9-1MKHb_A2JsB5_VLpRNt1YSrOBRyK3zqtVxpmY7lptQMn9Kk9iPhgaArymBWEmj9Tu76WRJVPUTgHMEi--RYLAexU7kE1Os-pzPCEtoWn9Z7QLDBLexgHM0dgiv-4ORYX2fpMkTfwUHnFQtpLFSCX1xgC5r_daOd7CpqOTykBFTZc"
	// truelayerAttached is for /bar and has its payload in it.
	truelayerAttached = "eyJhbGciOiJFUzUxMiIsImtpZCI6IjQ1ZmM3NWNmLTU2NDktNDEzNC04NGIzLTE5MmMyYzc4ZTk5MCIsInRsX3ZlcnNpb24iOiIyIiwidGxfaGVhZGVycyI6IiJ9.UE9TVCAvYmFyCnt9" +
		".ARLa7Q5b8k5CIhfy1qrS-IkNqCDeE-VFRDz7Lb0fXUMOi_Ktck-R7BHDMXFDzbI5TyaxIo5TGHZV_cs0fg96dlSxAERp3UaN2oCQHIE5gQ4m5uU3ee69XfwwU_RpEIMFypycxwq1HOf4LzTLXqP_CDT8DdyX8oTwYdUBd2d3D17Wd9UA"
)

func TestTrueLayer(t *testing.T) {
	s, ok := Preset("truelayer")
	if !ok {
		t.Fatal("there is no preset truelayer")
	}
	var keys []*Key
	for _, text := range []string{truelayerPEM, truelayerJWK} {
		k, err := s.NewPublicKey([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	sent := time.Date(2021, 11, 29, 11, 42, 55, 0, time.UTC)
	const webhookBody = `{"event_type":"example","event_id":"18b2842b-a57b-4887-a0a6-d3c7c36f1020"}`
	webhook := func(signature string, change func(*Delivery)) *Delivery {
		d := &Delivery{Method: "POST", Path: "/tl-webhook", Body: [][]byte{[]byte(webhookBody)},
			Headers: headers("tl-signature: "+signature, "x-tl-webhook-timestamp: 2021-11-29T11:42:55Z", "content-type: application/json", "user-agent: truelayer")}
		if change != nil {
			change(d)
		}
		return d
	}
	header := func(name, value string) func(*Delivery) {
		return func(d *Delivery) {
			for i := range d.Headers {
				if d.Headers[i].Name == name {
					d.Headers[i].Value = value
				}
			}
		}
	}
	head, signature, _ := strings.Cut(truelayerWebhook, "..")
	tests := []struct {
		name string
		d    *Delivery
		now  time.Time
		want string
	}{
		{"published", webhook(truelayerWebhook, nil), sent, verdictValid},
		{"published, merged", webhook(truelayerWebhook, func(d *Delivery) { d.Merged = true }), sent, verdictValid},
		{"slash at the end", webhook(truelayerWebhook, func(d *Delivery) { d.Path += "/" }), sent, verdictValid},
		{"a query, which is not signed", webhook(truelayerWebhook, func(d *Delivery) { d.Path += "?a=1" }), sent, verdictValid},
		{"at the tolerance", webhook(truelayerWebhook, nil), sent.Add(5 * time.Minute), verdictValid},
		{"after it", webhook(truelayerWebhook, nil), sent.Add(5*time.Minute + 1), verdictStale},
		{"ahead of it", webhook(truelayerWebhook, nil), sent.Add(-5*time.Minute - 1), verdictStale},
		{"another time", webhook(truelayerWebhook, header("x-tl-webhook-timestamp", "2021-12-02T14:18:00Z")), time.Date(2021, 12, 2, 14, 18, 0, 0, time.UTC), verdictMismatch},
		{"another spelling of the time", webhook(truelayerWebhook, header("x-tl-webhook-timestamp", "2021-11-29T11:42:55.0Z")), sent, verdictMismatch},
		{"no time", webhook(truelayerWebhook, func(d *Delivery) { d.Headers = append(d.Headers[:1], d.Headers[2:]...) }), sent, TimestampMissing.String()},
		{"time twice", webhook(truelayerWebhook, func(d *Delivery) { d.Headers = append(d.Headers, d.Headers[1]) }), sent, TimestampMalformed.String()},
		{"no time at all", webhook(truelayerWebhook, header("x-tl-webhook-timestamp", "now")), sent, TimestampMalformed.String()},
		{"a listed header is missing", webhook(truelayerWebhook, func(d *Delivery) { d.Headers = append(d.Headers[:2], d.Headers[3:]...) }), sent, Malformed.String()},
		{"a listed header twice", webhook(truelayerWebhook, func(d *Delivery) { d.Headers = append(d.Headers, d.Headers[2]) }), sent, Malformed.String()},
		{"a listed header changed", webhook(truelayerWebhook, header("content-type", "text/plain")), sent, verdictMismatch},
		{"a listed header with a line break", webhook(truelayerWebhook, header("content-type", "application/json\nx: y")), sent, Malformed.String()},
		{"a listed header with a byte that cannot be seen", webhook(truelayerWebhook, func(d *Delivery) { d.Merged = true; header("content-type", "a!b")(d) }), sent, Malformed.String()},
		{"another method", webhook(truelayerWebhook, func(d *Delivery) { d.Method = "PUT" }), sent, verdictMismatch},
		{"another path", webhook(truelayerWebhook, func(d *Delivery) { d.Path = "/tl-webhook2" }), sent, verdictMismatch},
		{"another body", webhook(truelayerWebhook, func(d *Delivery) { d.Body = [][]byte{[]byte("{}")} }), sent, verdictMismatch},
		{"a request's signature, which has no time", &Delivery{Method: "POST", Path: "/merchant_accounts/a61acaef-ee05-4077-92f3-25543a11bd8d/sweeping", Body: [][]byte{[]byte(`{"currency":"GBP","max_amount_in_minor":5000000}`)},
			Headers: headers("tl-signature: "+truelayerRequest, "idempotency-key: idemp-2076717c-9005-4811-a321-9e0787fa0382", "x-tl-webhook-timestamp: 2021-11-29T11:42:55Z")}, sent, TimestampMissing.String()},
		{"attached", webhook(truelayerAttached, func(d *Delivery) { d.Path, d.Body = "/bar", [][]byte{[]byte("{}")} }), sent, Malformed.String()},
		{"attached, with dots behind", webhook(truelayerAttached+"....", func(d *Delivery) { d.Path, d.Body = "/bar", [][]byte{[]byte("{}")} }), sent, Malformed.String()},
		{"three dots", webhook(head+"..."+signature, nil), sent, Malformed.String()},
		{"one dot", webhook(head+"."+signature, nil), sent, Malformed.String()},
		{"no signature", webhook(head+"..", nil), sent, Malformed.String()},
		{"no header", webhook(".."+signature, nil), sent, Malformed.String()},
		{"signature truncated", webhook(truelayerWebhook[:len(truelayerWebhook)-4], nil), sent, Malformed.String()},
		{"none", webhook(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","tl_version":"2","tl_headers":"X-Tl-Webhook-Timestamp"}`))+".."+signature, nil), sent, Malformed.String()},
		{"another algorithm", webhook(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","tl_version":"2","tl_headers":"X-Tl-Webhook-Timestamp"}`))+".."+signature, nil), sent, Malformed.String()},
		{"another version", webhook(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES512","tl_version":"1","tl_headers":"X-Tl-Webhook-Timestamp"}`))+".."+signature, nil), sent, Malformed.String()},
		{"no version", webhook(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES512","tl_headers":"X-Tl-Webhook-Timestamp"}`))+".."+signature, nil), sent, Malformed.String()},
		{"no list", webhook(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES512","tl_version":"2"}`))+".."+signature, nil), sent, TimestampMissing.String()},
		{"empty list", webhook(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES512","tl_version":"2","tl_headers":""}`))+".."+signature, nil), sent, TimestampMissing.String()},
		{"list that is a list", webhook(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES512","tl_version":"2","tl_headers":["X-Tl-Webhook-Timestamp"]}`))+".."+signature, nil), sent, Malformed.String()},
		{"header listed twice", webhook(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES512","tl_version":"2","tl_headers":"X-Tl-Webhook-Timestamp,x-tl-webhook-timestamp"}`))+".."+signature, nil), sent, Malformed.String()},
		{"empty name listed", webhook(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES512","tl_version":"2","tl_headers":"X-Tl-Webhook-Timestamp,"}`))+".."+signature, nil), sent, Malformed.String()},
		{"critical extension", webhook(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES512","tl_version":"2","tl_headers":"X-Tl-Webhook-Timestamp","crit":["b64"],"b64":false}`))+".."+signature, nil), sent, Malformed.String()},
		{"good header, signature of another", webhook(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES512","tl_version":"2","tl_headers":"X-Tl-Webhook-Timestamp"}`))+".."+signature, nil), sent, verdictMismatch},
		{"signature of zeros", webhook(head+".."+base64.RawURLEncoding.EncodeToString(make([]byte, 132)), nil), sent, verdictMismatch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for i, k := range keys {
				if got := decide(s, tt.d, []*Key{k}, &tt.now, 5*time.Minute); got != tt.want {
					t.Errorf("key %d: %s, want %s", i, got, tt.want)
				}
			}
		})
	}
	var with, without Verification
	s.Parse(&with, webhook(truelayerWebhook, func(d *Delivery) { d.Path += "/" }))
	s.Parse(&without, webhook(truelayerWebhook, nil))
	if !with.Matches(keys[0]) || !without.Matches(keys[0]) || with.MessageID(keys[0]) != without.MessageID(keys[0]) {
		t.Error("a slash at the end makes another message")
	}
	if without.DeliveryID() != "18b2842b-a57b-4887-a0a6-d3c7c36f1020" || !s.IDSigned() || !s.BodySigned() || !s.TimestampSigned() {
		t.Errorf("id %q, id signed %v, body signed %v, timestamp signed %v", without.DeliveryID(), s.IDSigned(), s.BodySigned(), s.TimestampSigned())
	}
}
