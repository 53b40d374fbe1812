package signature

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

// TestSign says that every preset with a shared secret can be signed for any URL and JSON body, and what stands in the way elsewhere.
func TestSign(t *testing.T) {
	for _, info := range Presets() {
		if scheme, _ := Preset(info.Name); scheme.NeedsPublicKey() {
			if _, err := scheme.Sign(nil, Delivery{}, moment, ""); err == nil || !strings.Contains(err.Error(), "the private key is the sender's alone") {
				t.Errorf("%s: error %v", info.Name, err)
			}
			continue
		}
		s := newSender(t, info.Name)
		d := Delivery{Method: "POST", Path: "/hooks", Body: [][]byte{[]byte(`{"type":"t"}`)}, Headers: headers("content-type: application/json")}
		if s.scheme.NeedsURL() {
			d.PublicURL = "https://hooks.example.com/hooks"
		}
		if s.scheme.needsForm {
			d.Body = nil
		}
		signed, err := s.scheme.Sign(s.key, d, moment, "")
		if err != nil {
			t.Errorf("%s: %v", info.Name, err)
		} else if got := s.decide(&signed, s.key); got != verdictValid {
			t.Errorf("%s: %s", info.Name, got)
		}
	}
}

// TestSignKeeps keeps the headers whose value is free.
func TestSignKeeps(t *testing.T) {
	s := compile(t, base64List)
	d := Delivery{Headers: headers("x-id: mine", "x-ts: 1"), Body: [][]byte{[]byte(body)}}
	signed, err := s.Sign(key(t, s, "secret"), d, moment, "other")
	if err != nil {
		t.Fatal(err)
	}
	want := headers("x-id: mine", "x-ts: 1767225600", "x-sig: v1,"+base64MAC("mine.1767225600."+body))
	if !slices.Equal(signed.Headers, want) {
		t.Errorf("got %v, want %v", signed.Headers, want)
	}
	if !slices.Equal(d.Headers, headers("x-id: mine", "x-ts: 1")) {
		t.Errorf("the delivery was changed: %v", d.Headers)
	}
}

// TestSignInPlace says where texts go that stand in the query or the body, and what stays there.
func TestSignInPlace(t *testing.T) {
	const secret = "secret"
	mac := func(text string) string {
		h := hmac.New(sha256.New, []byte(secret))
		h.Write([]byte(text))
		return hex.EncodeToString(h.Sum(nil))
	}
	tests := []struct {
		name, preset string
		path, body   string
		wantPath     string
		wantBody     string
		wantType     string
	}{
		{"JSON made", "mailgun", "/", "", "/",
			`{"signature":{"signature":"` + mac("1767225600msg_1") + `","timestamp":"1767225600","token":"msg_1"}}`, ""},
		{"JSON kept", "mailgun", "/?a=1", ` {"event-data": {"n": 1.50, "u": "<\u00e9>"}, "signature": {"token": "mine", "timestamp": 5, "signature": "old"}}`, "/?a=1",
			`{"event-data":{"n":1.50,"u":"<\u00e9>"},"signature":{"signature":"` + mac("1767225600mine") + `","timestamp":1767225600,"token":"mine"}}`, ""},
		{"form made", "mailgun-form", "/", "", "/",
			"timestamp=1767225600&token=msg_1&signature=" + mac("1767225600msg_1"), "application/x-www-form-urlencoded"},
		{"form kept", "mailgun-form", "/", "event=opened&tok%65n=a+b&timestamp=5&x=%C3%A9&timestamp=6", "/",
			"event=opened&tok%65n=a+b&timestamp=1767225600&x=%C3%A9&signature=" + mac("1767225600a b"), "application/x-www-form-urlencoded"},
		{"list made", "adyen-payments", "/", `{"live":"true"}`, "/",
			`{"live":"true","notificationItems":[{"NotificationRequestItem":{"additionalData":{"hmacSignature":"*"}}}]}`, ""},
		{"query made", "twilio-json", "/hook", `{}`, "/hook?bodySHA256=44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", `{}`, ""},
		{"query kept", "twilio-json", "/hook?a=%20&bodySHA256=old&b", `{}`, "/hook?a=%20&bodySHA256=44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a&b", `{}`, ""},
		{"time in the body", "linear", "/", `{"webhookTimestamp":5,"b":"a"}`, "/", `{"b":"a","webhookTimestamp":1767225600000}`, ""},
		{"no time in the body", "linear", "/", `{ "b":"a" }`, "/", `{ "b":"a" }`, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, _ := Preset(test.preset)
			given := secret
			if test.preset == "adyen-payments" {
				given = "3031"
			}
			d := Delivery{Method: "POST", Path: test.path, PublicURL: "https://hooks.example.com/hook", Body: [][]byte{[]byte(test.body)}}
			if test.body == "" {
				d.Body = nil
			}
			signed, err := s.Sign(key(t, s, given), d, moment, "msg_1")
			if err != nil {
				t.Fatal(err)
			}
			got := string(bytes.Join(signed.Body, nil))
			if before, after, free := strings.Cut(test.wantBody, "*"); free && strings.HasPrefix(got, before) && strings.HasSuffix(got, after) {
				got = test.wantBody
			}
			if got != test.wantBody || signed.Path != test.wantPath {
				t.Errorf("got %s %s\nwant %s %s", signed.Path, got, test.wantPath, test.wantBody)
			}
			at := slices.IndexFunc(signed.Headers, func(h Header) bool { return h.Name == contentType })
			if test.wantType != "" && (at < 0 || signed.Headers[at].Value != test.wantType) {
				t.Errorf("headers %v, want the type %s", signed.Headers, test.wantType)
			}
		})
	}
}

// TestSignFaults says what cannot be signed and why.
func TestSignFaults(t *testing.T) {
	for _, test := range []struct{ name, preset, body, want string }{
		{"a list instead of an object", "mailgun", `[1]`, `the delivery cannot hold json:signature.timestamp, which is needed: a list has no place for "signature"`},
		{"no JSON", "mailgun", `a=1`, "the delivery cannot hold json:signature.timestamp, which is needed: the body is no JSON object"},
		{"JSON cut off", "mailgun", `{"a":`, "the body is no JSON object"},
		{"a text on the way", "dropbox-sign", `{"event":"x"}`, "the body is no JSON object"},
		{"two items", "adyen-payments", `{"notificationItems":[{},{}]}`, "cannot be valid"},
		{"a field too many", "braintree", "bt_payload=a&b=1", "cannot be valid"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, _ := Preset(test.preset)
			_, err := s.Sign(key(t, s, "3031"), Delivery{Method: "POST", Path: "/", Body: [][]byte{[]byte(test.body)}}, moment, "")
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}
