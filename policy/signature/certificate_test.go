package signature

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hookauthz/hookauthz/policy/signature/certtest"
)

const (
	topicARN     = "arn:aws:sns:eu-west-1:123456789012:orders"
	snsURL       = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-7506a1e35b36ef5a444dd1a8e7cc3ed8.pem"
	paypalURL    = "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-90621ecd"
	paypalName   = "messageverificationcerts.paypal.com"
	theWebhookID = "4JH86294D6297924G"
)

// bind is a preset with the parameters of these tests.
func bind(t testing.TB, name string) *Scheme {
	t.Helper()
	s, ok := Preset(name)
	if !ok {
		t.Fatalf("there is no preset %q", name)
	}
	p := Parameters{}
	if s.NeedsTopics() {
		p.Topics = []string{"arn:aws:sns:us-east-1:123456789012:other", topicARN}
	} else {
		p.WebhookID = theWebhookID
	}
	bound, faults := s.With(p)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return bound
}

// notification is a message before it is signed.
func notification(version string) certtest.Message {
	return certtest.Message{
		"Type": "Notification", "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324", "TopicArn": topicARN, "Subject": "My First Message",
		"Message": "Hello world!\nMessageId\nnot this one", "Timestamp": "2026-01-01T00:00:00.000Z", "SignatureVersion": version, "SigningCertURL": snsURL,
		"UnsubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=Unsubscribe&SubscriptionArn=" + topicARN + ":c9135db0-26c4-47ec-8998-413945fb5a96",
	}
}

func confirmation(kind string) certtest.Message {
	return notification("2").With("Type", kind, "Subject", nil, "UnsubscribeURL", nil, "Token", "2336412f37",
		"SubscribeURL", "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn="+topicARN+"&Token=2336412f37")
}

// certify prepares a sender whose key comes from a certificate.
func (s *sender) certify(t testing.TB) {
	s.scheme = bind(t, s.name)
	authority := certtest.New(t)
	s.roots, s.pem = authority.Roots(), map[*Key][]byte{}
	private := certtest.Key(t, 0)
	name, from := paypalName, strings.Replace(paypalURL, "api.", map[bool]string{true: "api.", false: "api.sandbox."}[s.name == "paypal"], 1)
	if s.scheme.NeedsTopics() {
		name = "sns.amazonaws.com"
	}
	for i, k := range []**Key{&s.key, &s.other} {
		*k = s.scheme.NewCertificateKey()
		s.pem[*k] = certtest.PEM(authority.Leaf(&certtest.Key(t, i).PublicKey, name, nil), authority.Middle)
	}
	s.private = private
	if s.scheme.NeedsWebhookID() {
		s.headers = headers("paypal-cert-url: " + from)
		return
	}
	version := map[string]string{"aws-sns": "2", "aws-sns-sha1": "1"}[s.name]
	signed := notification(version).With("Message", "SIGNED")
	signed.Sign(t, private)
	s.signedText = []string{signed["MessageId"].(string), "2026-01-01T00:00:00.000Z", topicARN, "My First Message", `"Notification"`, "MessageId", "TopicArn", "SigningCertURL", "https://sns.eu-west-1.amazonaws.com/Simple", "marker"}
	s.body = func(r *rapid.T) []byte {
		return notification(version).With("Message", "marker "+rapid.String().Draw(r, "message")).Sign(t, private)
	}
}

// decideCertified verifies a delivery as the decision engine does, with a certificate.
func decideCertified(s *Scheme, d *Delivery, k *Key, pem []byte, roots *x509.CertPool, now time.Time, tolerance time.Duration) string {
	var v Verification
	if f := s.Parse(&v, d); f != None {
		return f.String()
	}
	if v.Matches(k) {
		return "matches without a certificate"
	}
	if err := v.Certify(pem, roots, now); err != nil {
		return err.Error()
	}
	switch {
	case !v.Matches(k):
		return verdictMismatch
	case tolerance > 0 && !v.Fresh(now, tolerance):
		return verdictStale
	}
	return verdictValid
}

// Messages that Amazon SNS signed, and the certificate that it signed them with. SNS serves it alone: the authority's own certificate, which
// leads from it to a root of the system, must be found by its name.
func TestAmazonsOwnMessages(t *testing.T) {
	read := func(name string) []byte {
		data, err := os.ReadFile(path.Join("testdata/sns", name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(read("amazon-root-ca-1.pem"))
	leaf := read("SimpleNotificationService-7506a1e35b36ef5a444dd1a8e7cc3ed8.pem")
	chain := append(slices.Clone(leaf), read("amazon-rsa-2048-m01.pem")...)
	for _, name := range []string{"notification-v1-subject.json", "notification-v2.json", "subscription-confirmation-v1.json", "unsubscribe-confirmation-v2.json"} {
		t.Run(name, func(t *testing.T) {
			preset := "aws-sns"
			if strings.Contains(name, "v1") {
				preset = "aws-sns-sha1"
			}
			unbound, _ := Preset(preset)
			s, faults := unbound.With(Parameters{Topics: []string{"arn:aws:sns:us-west-2:131990247566:dongie-standard-topic"}})
			if len(faults) > 0 {
				t.Fatal(faults)
			}
			body := read(name)
			var message map[string]string
			if err := json.Unmarshal(body, &message); err != nil {
				t.Fatal(err)
			}
			at, err := time.Parse(time.RFC3339, message["Timestamp"])
			if err != nil {
				t.Fatal(err)
			}
			d := &Delivery{Body: [][]byte{body[:100], body[100:]}, Headers: headers("x-amz-sns-message-type: "+message["Type"], "x-amz-sns-message-id: "+message["MessageId"])}
			if got := decideCertified(s, d, s.NewCertificateKey(), chain, roots, at.Add(time.Minute), time.Minute); got != verdictValid {
				t.Errorf("got %q", got)
			}
			if got := decideCertified(s, d, s.NewCertificateKey(), leaf, roots, at, time.Minute); !strings.Contains(got, "unknown authority") {
				t.Errorf("without the authority: got %q", got)
			}
			if got := decideCertified(s, d, s.NewCertificateKey(), chain, roots, at.AddDate(1, 0, 0), 0); got != ErrCertificateExpired.Error() {
				t.Errorf("a year later: got %q", got)
			}
			var v Verification
			if f := s.Parse(&v, d); f != None || v.DeliveryID() != message["MessageId"] || v.Event() != message["Type"] || v.CertificateURL() != message["SigningCertURL"] {
				t.Errorf("%v: id %q, event %q, certificate at %q", f, v.DeliveryID(), v.Event(), v.CertificateURL())
			}
			if other, _ := Preset("aws-sns"); other.Parse(&v, d) != Malformed {
				t.Error("a scheme without topics takes it")
			}
		})
	}
}

func TestCertificateFacts(t *testing.T) {
	for _, name := range []string{"aws-sns", "aws-sns-sha1", "paypal", "paypal-sandbox"} {
		s := bind(t, name)
		sns := s.NeedsTopics()
		if !s.NeedsCertificate() || !s.NeedsPublicKey() || !s.TimestampSigned() || !s.IDSigned() || s.BodySigned() != sns || s.EventSigned() != sns || s.Nonce() == sns || s.NeedsWebhookID() == sns {
			t.Errorf("%s: %+v", name, s.facts)
		}
		if _, err := s.NewPublicKey([]byte("x")); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s takes a public key: %v", name, err)
		}
		if _, err := s.NewKey([]byte("x")); err == nil {
			t.Errorf("%s takes a secret", name)
		}
	}
}

// Every way to make SNS say what it did not sign. The messages are signed as they stand unless a body is given.
func TestSNSForgeries(t *testing.T) {
	key := certtest.Key(t, 0)
	authority := certtest.New(t)
	pem := certtest.PEM(authority.Leaf(&key.PublicKey, "sns.amazonaws.com", nil), authority.Middle)
	good := notification("2")
	body := string(good.Sign(t, key))
	replaced := func(old, new string) string {
		if !strings.Contains(body, old) {
			t.Fatalf("the body has no %q", old)
		}
		return strings.Replace(body, old, new, 1)
	}
	const host = "https://sns.eu-west-1.amazonaws.com"
	withURL := func(u string) certtest.Message { return good.With("SigningCertURL", u) }
	malformed := Malformed.String()
	tests := []struct {
		name    string
		message certtest.Message
		body    string
		headers []string
		want    string
	}{
		{name: "as signed", message: good, want: verdictValid},
		{name: "without a subject", message: good.With("Subject", nil), want: verdictValid},
		{name: "without the link to unsubscribe", message: good.With("UnsubscribeURL", nil), want: verdictValid},
		{name: "a confirmation", message: confirmation("SubscriptionConfirmation"), want: verdictValid},
		{name: "the confirmation of an end", message: confirmation("UnsubscribeConfirmation"), want: verdictValid},
		{name: "headers that agree", body: body, headers: []string{"x-amz-sns-message-type: Notification", "x-amz-sns-topic-arn: " + topicARN}, want: verdictValid},
		{name: "escapes of the same text", body: replaced("Hello", `\u0048ello`), want: verdictValid},
		{name: "text beyond the BMP", message: good.With("Message", "a 😀 b"), want: verdictValid},

		{name: "another message", body: replaced("Hello", "Jello"), want: verdictMismatch},
		{name: "another id", body: replaced("22b80b92", "22b80b93"), want: verdictMismatch},
		{name: "another subject", body: replaced("My First", "My Second"), want: verdictMismatch},
		{name: "another topic of the policy", body: replaced(`"`+topicARN+`"`, `"arn:aws:sns:us-east-1:123456789012:other"`), want: malformed}, // another region
		{name: "a later timestamp", body: replaced("T00:00:00.000Z", "T00:00:01.000Z"), want: verdictMismatch},
		{name: "old timestamp", message: good.With("Timestamp", "2025-12-31T22:00:00.000Z"), want: verdictStale},
		{name: "the key of somebody else", body: string(good.With().Sign(t, certtest.Key(t, 1))), want: verdictMismatch},

		{name: "somebody else's topic", message: good.With("TopicArn", "arn:aws:sns:eu-west-1:999999999999:orders", "UnsubscribeURL", nil), want: malformed},
		{name: "topic with a longer name", message: good.With("TopicArn", topicARN+"2", "UnsubscribeURL", nil), want: malformed},
		{name: "topic in capitals", message: good.With("TopicArn", strings.ToUpper(topicARN), "UnsubscribeURL", nil), want: malformed},
		{name: "version 1", message: good.With("SignatureVersion", "1"), want: malformed},
		{name: "version switched", body: replaced(`"SignatureVersion": "2"`, `"SignatureVersion": "1"`), want: malformed},
		{name: "version as a number", body: replaced(`"SignatureVersion": "2"`, `"SignatureVersion": 2`), want: malformed},
		{name: "no version", message: good.With("SignatureVersion", nil), want: malformed},
		{name: "another type", message: good.With("Type", "Other"), want: malformed},
		{name: "type of a confirmation", body: replaced(`"Notification"`, `"SubscriptionConfirmation"`), want: malformed},

		{name: "no message", message: good.With("Message", nil), want: malformed},
		{name: "no id", message: good.With("MessageId", nil), want: malformed},
		{name: "no topic", message: good.With("TopicArn", nil, "UnsubscribeURL", nil), want: malformed},
		{name: "no type", message: good.With("Type", nil), want: malformed},
		{name: "no timestamp", message: good.With("Timestamp", nil), want: TimestampMissing.String()},
		{name: "no certificate", message: good.With("SigningCertURL", nil), want: malformed},
		{name: "no signature", body: string(good.With("Signature", nil).JSON(t)), want: Missing.String()},
		{name: "empty signature", body: string(good.With("Signature", "").JSON(t)), want: Missing.String()},
		{name: "no token", message: confirmation("SubscriptionConfirmation").With("Token", nil), want: malformed},
		{name: "no URL to confirm", message: confirmation("SubscriptionConfirmation").With("SubscribeURL", nil), want: malformed},

		{name: "empty subject", body: string(good.With("Subject", nil).Sign(t, key)[:2]) + `"Subject": "",` + string(good.With("Subject", nil).Sign(t, key)[2:]), want: malformed},
		{name: "null as the subject", body: `{"Subject": null,` + string(good.With("Subject", nil).Sign(t, key)[1:]), want: verdictValid}, // as absent
		{name: "subject added", body: `{"Subject": "forged",` + string(good.With("Subject", nil).Sign(t, key)[1:]), want: verdictMismatch},
		{name: "subject removed", body: replaced(`"Subject": "My First Message",`, ""), want: verdictMismatch},
		{name: "subject with a line break", message: good.With("Subject", "a\nTimestamp\nb"), want: malformed},
		{name: "subject in a confirmation", message: confirmation("SubscriptionConfirmation").With("Subject", "x"), want: malformed},
		{name: "subject moved into the message", body: string(moved(good, key, t).JSON(t)), want: verdictMismatch},
		{name: "id with a line break", message: good.With("MessageId", "a\nSubject\nb"), want: malformed},
		{name: "URL to confirm in a notification", message: good.With("SubscribeURL", "https://evil.example/"), want: malformed},
		{name: "token in a notification", message: good.With("Token", "x"), want: malformed},
		{name: "link to unsubscribe elsewhere", message: good.With("UnsubscribeURL", "https://evil.example/?Action=Unsubscribe"), want: malformed},
		{name: "link to unsubscribe from another topic", message: good.With("UnsubscribeURL", host+"/?Action=Unsubscribe&SubscriptionArn=arn:aws:sns:eu-west-1:999999999999:x:1"), want: malformed},
		{name: "attributes", message: good.With("MessageAttributes", map[string]any{"a": map[string]string{"Type": "String", "Value": "b"}}), want: malformed},
		{name: "another field", body: replaced("{", `{"Extra": "x",`), want: malformed},
		{name: "a field in another case", body: replaced("{", `{"message": "forged",`), want: malformed},
		{name: "an escaped name", body: replaced(`"Message":`, `"\u004dessage":`), want: malformed},
		{name: "message twice", body: replaced("{", `{"Message": "forged",`), want: malformed},
		{name: "message twice, escaped", body: replaced("{", `{"M\u0065ssage": "forged",`), want: malformed},
		{name: "signature twice", body: replaced("{", `{"Signature": "AAAA",`), want: malformed},
		{name: "message as an object", body: replaced(`"Hello world!\nMessageId\nnot this one"`, `{"a": 1}`), want: malformed},
		{name: "message as null", body: replaced(`"Hello world!\nMessageId\nnot this one"`, `null`), want: malformed},
		{name: "half a surrogate pair", body: replaced("Hello", `\ud800ello`), want: malformed},
		{name: "not UTF-8", body: replaced("Hello", "\xffello"), want: malformed},
		{name: "in a list", body: "[" + body + "]", want: Missing.String()},
		{name: "with more behind", body: body + "{}", want: malformed},
		{name: "cut off", body: body[:len(body)-2], want: malformed},
		{name: "a comma too many", body: body[:len(body)-2] + ",}", want: malformed},
		{name: "empty", body: "{}", want: Missing.String()},
		{name: "raw delivery", body: "Hello world!", headers: []string{"x-amz-sns-rawdelivery: true"}, want: malformed},
		{name: "header of another type", body: body, headers: []string{"x-amz-sns-message-type: SubscriptionConfirmation"}, want: malformed},
		{name: "header of another id", body: body, headers: []string{"x-amz-sns-message-id: x"}, want: malformed},
		{name: "header of another topic", body: body, headers: []string{"x-amz-sns-topic-arn: arn:aws:sns:us-east-1:123456789012:other"}, want: malformed},
		{name: "header twice", body: body, headers: []string{"x-amz-sns-message-type: Notification", "x-amz-sns-message-type: Notification"}, want: malformed},

		{name: "certificate over plain HTTP", message: withURL(strings.Replace(snsURL, "https", "http", 1)), want: malformed},
		{name: "certificate of another host", message: withURL("https://evil.example/SimpleNotificationService-00.pem"), want: malformed},
		{name: "certificate of a host that begins alike", message: withURL(host + ".evil.example/SimpleNotificationService-00.pem"), want: malformed},
		{name: "certificate of a host that ends alike", message: withURL("https://evil-sns.eu-west-1.amazonaws.com/SimpleNotificationService-00.pem"), want: malformed},
		{name: "certificate in a bucket", message: withURL("https://sns.s3.amazonaws.com/SimpleNotificationService-00.pem"), want: malformed},
		{name: "certificate in a bucket of a region", message: withURL("https://sns.s3-eu-west-1.amazonaws.com/SimpleNotificationService-00.pem"), want: malformed},
		{name: "certificate of another region", message: withURL("https://sns.us-east-1.amazonaws.com/SimpleNotificationService-00.pem"), want: malformed},
		{name: "certificate of China", message: withURL(host + ".cn/SimpleNotificationService-00.pem"), want: malformed},
		{name: "certificate with a port", message: withURL("https://sns.eu-west-1.amazonaws.com:8443/SimpleNotificationService-00.pem"), want: malformed},
		{name: "certificate with the usual port", message: withURL("https://sns.eu-west-1.amazonaws.com:443/SimpleNotificationService-00.pem"), want: malformed},
		{name: "certificate with a user", message: withURL("https://sns.eu-west-1.amazonaws.com@evil.example/SimpleNotificationService-00.pem"), want: malformed},
		{name: "certificate with a user of ours", message: withURL("https://x@sns.eu-west-1.amazonaws.com/SimpleNotificationService-00.pem"), want: malformed},
		{name: "certificate with a query", message: withURL(snsURL + "?x=.pem"), want: malformed},
		{name: "certificate with a fragment", message: withURL(snsURL + "#.pem"), want: malformed},
		{name: "certificate with a traversal", message: withURL(host + "/SimpleNotificationService-00/../x.pem"), want: malformed},
		{name: "certificate with an escaped traversal", message: withURL(host + "/SimpleNotificationService-%2e%2e.pem"), want: malformed},
		{name: "certificate of another path", message: withURL(host + "/x/SimpleNotificationService-00.pem"), want: malformed},
		{name: "certificate without a name", message: withURL(host + "/SimpleNotificationService-.pem"), want: malformed},
		{name: "certificate with a backslash", message: withURL(`https://sns.eu-west-1.amazonaws.com\@evil.example/SimpleNotificationService-00.pem`), want: malformed},
		{name: "certificate of a host in punycode", message: withURL("https://sns.xn--eu-west-1-abc.amazonaws.com/SimpleNotificationService-00.pem"), want: malformed},
		{name: "certificate of a host in other letters", message: withURL("https://sns.eu-west-1.аmazonaws.com/SimpleNotificationService-00.pem"), want: malformed},
		{name: "certificate with capitals", message: withURL(strings.Replace(snsURL, "sns.", "SNS.", 1)), want: malformed},
		{name: "certificate with a dot behind the host", message: withURL("https://sns.eu-west-1.amazonaws.com./SimpleNotificationService-00.pem"), want: malformed},
		{name: "certificate with a space", message: withURL(" " + snsURL), want: malformed},
		{name: "certificate with a line break", message: withURL(snsURL + "\n"), want: malformed},
		{name: "certificate with a very long name", message: withURL(host + "/SimpleNotificationService-" + strings.Repeat("0", 65) + ".pem"), want: malformed},
	}
	s := bind(t, "aws-sns")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			body := tt.body
			if tt.message != nil {
				body = string(tt.message.Sign(t, key))
			}
			d := &Delivery{Method: "POST", Path: "/", Headers: headers(tt.headers...), Body: [][]byte{[]byte(body)}}
			if got := decideCertified(s, d, s.NewCertificateKey(), pem, authority.Roots(), moment, time.Hour); got != tt.want {
				t.Errorf("got %q, want %q\n%s", got, tt.want, body)
			}
		})
	}
}

// moved is a message whose subject has gone into the text: the bytes that are signed would be the same if text and subject could change places.
func moved(m certtest.Message, key any, t *testing.T) certtest.Message {
	t.Helper()
	signed := m.With()
	signed.Sign(t, certtest.Key(t, 0))
	return signed.With("Message", fmt.Sprintf("%s\nMessageId\n%s", m["Message"], m["MessageId"]), "Subject", nil)
}

// MessageAttributes pass where the policy takes what is not signed, and change nothing of the rest.
func TestSNSAttributes(t *testing.T) {
	key, authority := certtest.Key(t, 0), certtest.New(t)
	pem := certtest.PEM(authority.Leaf(&key.PublicKey, "sns.amazonaws.com", nil), authority.Middle)
	unbound, _ := Preset("aws-sns")
	s, faults := unbound.With(Parameters{Topics: []string{topicARN}, UnsignedAttributes: true})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	for attributes, want := range map[string]string{`{"a": {"Type": "String", "Value": "b"}}`: verdictValid, `{`: Malformed.String(), `{}, "Message": "forged"`: Malformed.String()} {
		body := `{"MessageAttributes": ` + attributes + `,` + string(notification("2").Sign(t, key)[1:])
		if got := decideCertified(s, &Delivery{Body: [][]byte{[]byte(body)}}, s.NewCertificateKey(), pem, authority.Roots(), moment, time.Hour); got != want {
			t.Errorf("%s: got %q, want %q", attributes, got, want)
		}
	}
}

// Law: however a message is made up, it is taken as signed by SNS only where taking its text apart gives that very message.
func TestSNSTextHasOneReading(t *testing.T) {
	line := rapid.SampledFrom([]string{"a", "Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type", "Notification", "Token", "SubscribeURL", "SubscriptionConfirmation", topicARN})
	lines := rapid.Custom(func(t *rapid.T) string { return strings.Join(rapid.SliceOfN(line, 1, 12).Draw(t, "lines"), "\n") })
	draw := func(t *rapid.T) snsMessage {
		m := snsMessage{snsMessageText: lines.Draw(t, "message"), snsMessageID: line.Draw(t, "id"), snsTimestamp: line.Draw(t, "timestamp"), snsTopicArn: topicARN,
			snsSignature: "x", snsSigningCertURL: snsURL, snsSignatureVersion: "2", snsType: "Notification"}
		if rapid.Bool().Draw(t, "confirmation") {
			m[snsType], m[snsToken], m[snsSubscribeURL] = "SubscriptionConfirmation", line.Draw(t, "token"), line.Draw(t, "url")
		} else if rapid.Bool().Draw(t, "with subject") {
			m[snsSubject] = line.Draw(t, "subject")
		}
		return m
	}
	s := bind(t, "aws-sns")
	seen := map[string]snsMessage{}
	rapid.Check(t, func(t *rapid.T) {
		m := draw(t)
		if !m.sound(s) {
			t.Fatalf("not sound: %q", m)
		}
		text := string(m.appendSigned(nil))
		if other, ok := seen[text]; ok && other != m {
			t.Fatalf("two messages with one text:\n%q\n%q", m, other)
		}
		seen[text] = m
		if again, ok := takeApart(text); !ok || again != m {
			t.Fatalf("%q is read as\n%q, want\n%q", text, again, m)
		}
	})
}

// takeApart reads a signed text from its end, as only one reader can.
func takeApart(text string) (m snsMessage, ok bool) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	pop := func(field int) bool {
		n := len(lines)
		if n < 2 || lines[n-2] != snsNames[field] {
			return false
		}
		m[field], lines = lines[n-1], lines[:n-2]
		return true
	}
	ok = pop(snsType) && pop(snsTopicArn)
	if m[snsType] != "Notification" {
		ok = ok && pop(snsToken)
	}
	ok = ok && pop(snsTimestamp)
	if m[snsType] != "Notification" {
		ok = ok && pop(snsSubscribeURL)
	} else if len(lines) > 1 && lines[len(lines)-2] == "Subject" {
		ok = ok && pop(snsSubject)
	}
	if !ok || !pop(snsMessageID) || lines[0] != "Message" {
		return m, false
	}
	m[snsMessageText] = strings.Join(lines[1:], "\n")
	m[snsSignature], m[snsSigningCertURL], m[snsSignatureVersion] = "x", snsURL, "2"
	return m, true
}

func TestPayPal(t *testing.T) {
	key, authority := certtest.Key(t, 0), certtest.New(t)
	pem := certtest.PEM(authority.Leaf(&key.PublicKey, paypalName, nil), authority.Middle)
	s := bind(t, "paypal")
	const body, id, at = `{"event_type":"PAYMENT.SALE.COMPLETED"}`, "dfb3be50-fd74-11e4-8bf3-77339302725b", "2026-01-01T00:00:00Z"
	text := fmt.Sprintf("%s|%s|%s|%d", id, at, theWebhookID, crc32.ChecksumIEEE([]byte(body)))
	good := map[string]string{"paypal-transmission-id": id, "paypal-transmission-time": at, "paypal-cert-url": paypalURL, "paypal-auth-algo": "SHA256withRSA",
		"paypal-transmission-sig": certtest.SignText(t, key, text)}
	malformed := Malformed.String()
	tests := []struct {
		name, header, value string
		body                string
		want                string
	}{
		{name: "as signed", want: verdictValid},
		{name: "another body", body: body + " ", want: verdictMismatch},
		{name: "another id", header: "paypal-transmission-id", value: "other", want: verdictMismatch},
		{name: "id that holds the separator", header: "paypal-transmission-id", value: "a|b", want: malformed},
		{name: "another time", header: "paypal-transmission-time", value: "2026-01-01T00:00:01Z", want: verdictMismatch},
		{name: "no time", header: "paypal-transmission-time", want: TimestampMissing.String()},
		{name: "no id", header: "paypal-transmission-id", want: malformed},
		{name: "no signature", header: "paypal-transmission-sig", want: Missing.String()},
		{name: "another webhook", header: "paypal-transmission-sig", value: certtest.SignText(t, key, strings.Replace(text, theWebhookID, "1JH86294D6297924G", 1)), want: verdictMismatch},
		{name: "no algorithm", header: "paypal-auth-algo", want: malformed},
		{name: "SHA-1", header: "paypal-auth-algo", value: "SHA1withRSA", want: malformed},
		{name: "no certificate", header: "paypal-cert-url", want: malformed},
		{name: "certificate of the sandbox", header: "paypal-cert-url", value: strings.Replace(paypalURL, "api.", "api.sandbox.", 1), want: malformed},
		{name: "certificate over plain HTTP", header: "paypal-cert-url", value: strings.Replace(paypalURL, "https", "http", 1), want: malformed},
		{name: "certificate of another host", header: "paypal-cert-url", value: strings.Replace(paypalURL, "api.paypal.com", "api.paypal.com.evil.example", 1), want: malformed},
		{name: "certificate with a user", header: "paypal-cert-url", value: strings.Replace(paypalURL, "https://", "https://api.paypal.com@evil.example/", 1), want: malformed},
		{name: "certificate with a port", header: "paypal-cert-url", value: strings.Replace(paypalURL, ".com/", ".com:444/", 1), want: malformed},
		{name: "certificate with a traversal", header: "paypal-cert-url", value: paypalURL + "/../../x", want: malformed},
		{name: "certificate with a query", header: "paypal-cert-url", value: paypalURL + "?x", want: malformed},
		{name: "certificate of another path", header: "paypal-cert-url", value: strings.Replace(paypalURL, "certs", "keys", 1), want: malformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := &Delivery{Body: [][]byte{[]byte(body)}}
			if tt.body != "" {
				d.Body[0] = []byte(tt.body)
			}
			for name, value := range good {
				if name == tt.header {
					value = tt.value
				}
				if value != "" {
					d.Headers = append(d.Headers, Header{name, value})
				}
			}
			if got := decideCertified(s, d, s.NewCertificateKey(), pem, authority.Roots(), moment, time.Hour); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if len(d.Headers) == len(good) { // a second header of any name is a fault
				for i := range d.Headers {
					twice := d.clone()
					twice.Headers = append(twice.Headers, d.Headers[i])
					if got := decideCertified(s, twice, s.NewCertificateKey(), pem, authority.Roots(), moment, time.Hour); got == verdictValid {
						t.Errorf("%s twice is taken", d.Headers[i].Name)
					}
				}
			}
		})
	}
}

// A CRC-32 is no digest: another body with the same one is taken, which is why the scheme says that it does not sign the body.
func TestPayPalBodyCanBeForged(t *testing.T) {
	body := []byte(`{"event_type":"PAYMENT.SALE.COMPLETED","amount":"1.00"}`)
	forged := append([]byte(`{"event_type":"PAYMENT.SALE.COMPLETED","amount":"9.00"}`), 0, 0, 0, 0)
	want := crc32.ChecksumIEEE(body)
	// The CRC is affine in the last four bytes: they are found bit by bit.
	tail := forged[len(forged)-4:]
	base := crc32.ChecksumIEEE(forged)
	var rows [32]struct{ effect, bits uint32 }
	for bit := range 32 {
		tail[bit/8] ^= 1 << (bit % 8)
		effect, bits := crc32.ChecksumIEEE(forged)^base, uint32(1)<<bit
		tail[bit/8] ^= 1 << (bit % 8)
		for top := 31; top >= 0 && effect != 0; top-- {
			if effect>>top&1 == 0 {
				continue
			}
			if rows[top].effect == 0 {
				rows[top].effect, rows[top].bits = effect, bits
				break
			}
			effect, bits = effect^rows[top].effect, bits^rows[top].bits
		}
	}
	rest, bits := want^base, uint32(0)
	for top := 31; top >= 0; top-- {
		if rest>>top&1 == 1 {
			rest, bits = rest^rows[top].effect, bits^rows[top].bits
		}
	}
	for bit := range 32 {
		if bits>>bit&1 == 1 {
			tail[bit/8] ^= 1 << (bit % 8)
		}
	}
	if crc32.ChecksumIEEE(forged) != want || rest != 0 {
		t.Fatalf("the forgery has %x, want %x", crc32.ChecksumIEEE(forged), want)
	}
	if s := bind(t, "paypal"); s.BodySigned() {
		t.Error("the scheme says that it signs the body")
	}
}

func TestCertify(t *testing.T) {
	key, authority, other := certtest.Key(t, 0), certtest.New(t), certtest.New(t)
	leaf := func(name string, change func(*x509.Certificate)) []byte {
		return certtest.PEM(authority.Leaf(&key.PublicKey, name, change), authority.Middle)
	}
	const name = "sns.amazonaws.com"
	good := leaf(name, nil)
	const expired, wrong = "the certificate is not valid at this time", "the certificate is not the sender's"
	tests := []struct {
		name string
		pem  []byte
		want string
	}{
		{"good", good, ""},
		{"the region's own name", leaf("sns.eu-west-1.amazonaws.com", nil), ""},
		{"the region's signing name", leaf("sns-signing.eu-west-1.amazonaws.com", nil), ""},
		{"another region's name", leaf("sns.us-east-1.amazonaws.com", nil), wrong},
		{"another name", leaf("evil.example", nil), wrong},
		{"another service", leaf("sqs.amazonaws.com", nil), wrong},
		{"a wildcard", leaf("*.amazonaws.com", nil), wrong},
		{"the name as the common name only", leaf(name, func(c *x509.Certificate) { c.DNSNames = []string{"evil.example"} }), wrong},
		{"expired", leaf(name, func(c *x509.Certificate) { c.NotAfter = moment.Add(-time.Second) }), expired},
		{"not yet valid", leaf(name, func(c *x509.Certificate) { c.NotBefore = moment.Add(time.Second) }), expired},
		{"an authority", leaf(name, func(c *x509.Certificate) {
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
		}), wrong},
		{"not for signatures", leaf(name, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), wrong},
		{"for mail only", leaf(name, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} }), "incompatible key usage"},
		{"no RSA key", certtest.PEM(authority.Leaf(authority.Middle.PublicKey, name, nil), authority.Middle), wrong},
		{"of another root", certtest.PEM(other.Leaf(&key.PublicKey, name, nil), other.Middle, other.Root), "unknown authority"},
		{"without the authority", certtest.PEM(authority.Leaf(&key.PublicKey, name, nil)), "unknown authority"},
		{"the authority alone", certtest.PEM(authority.Middle), wrong},
		{"signed by a certificate that is no authority", nil, "unknown authority"},
		{"empty", nil, "not PEM"},
		{"HTML", []byte("<html>not found</html>"), "not PEM"},
		{"more behind", append(slices.Clone(good), "more"...), "not PEM"},
		{"a key besides", append([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), good...), "other things"},
		{"not a certificate", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "reading the certificate"},
		{"too many", []byte(strings.Repeat(string(authority.Chain()), 9)), "too many"},
	}
	s := bind(t, "aws-sns")
	d := &Delivery{Body: [][]byte{notification("2").Sign(t, key)}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "signed by a certificate that is no authority" {
				forger := certtest.New(t)
				tt.pem = certtest.PEM(forger.Leaf(&key.PublicKey, name, nil), authority.Leaf(forger.Middle.PublicKey, name, nil))
			}
			var v Verification
			if f := s.Parse(&v, d); f != None {
				t.Fatal(f)
			}
			err := v.Certify(tt.pem, authority.Roots(), moment)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if errors.Is(err, ErrCertificateExpired) != (tt.want == expired) || errors.Is(err, ErrCertificateName) != (tt.want == wrong) {
				t.Errorf("%v is of another kind", err)
			}
			if v.Matches(s.NewCertificateKey()) != (err == nil) {
				t.Error("a certificate that is not taken verifies, or the other way round")
			}
			if err == nil { // a worse one takes its place
				if v.Certify(nil, authority.Roots(), moment) == nil || v.Matches(s.NewCertificateKey()) {
					t.Error("the certificate before is still used")
				}
			}
		})
	}
	var v Verification
	if v.Certify(good, authority.Roots(), moment) == nil {
		t.Error("a certificate is taken without a delivery")
	}
}

// A certificate that was taken is not taken again where anything is otherwise.
func TestCertifyAgain(t *testing.T) {
	authority, other := certtest.New(t), certtest.New(t)
	key := certtest.Key(t, 0)
	pem := certtest.PEM(authority.Leaf(&key.PublicKey, "sns-signing.eu-west-1.amazonaws.com", nil), authority.Middle)
	short := certtest.PEM(authority.Leaf(&key.PublicKey, "sns.amazonaws.com", func(c *x509.Certificate) { c.NotAfter = moment.Add(time.Hour) }), authority.Middle)
	spoilt := slices.Clone(pem)
	spoilt[len(spoilt)/4] ^= 1
	sns, _ := Preset("aws-sns")
	const elsewhere = "arn:aws:sns:us-east-1:123456789012:orders"
	s, faults := sns.With(Parameters{Topics: []string{topicARN, elsewhere}})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	here := &Delivery{Body: [][]byte{notification("2").Sign(t, key)}}
	there := &Delivery{Body: [][]byte{notification("2").With("TopicArn", elsewhere, "SigningCertURL", strings.Replace(snsURL, "eu-west-1", "us-east-1", 1), "UnsubscribeURL", nil).Sign(t, key)}}
	var v Verification
	certify := func(d *Delivery, pem []byte, roots *x509.CertPool, at time.Time) bool {
		if f := s.Parse(&v, d); f != None {
			t.Fatal(f)
		}
		if v.Matches(s.NewCertificateKey()) {
			t.Error("the certificate of the delivery before is used")
		}
		err := v.Certify(pem, roots, at)
		if v.Matches(s.NewCertificateKey()) != (err == nil) {
			t.Error("matches, and", err)
		}
		return err == nil
	}
	roots := authority.Roots()
	for _, step := range []struct {
		what  string
		d     *Delivery
		pem   []byte
		roots *x509.CertPool
		at    time.Time
		want  bool
	}{
		{"first", here, pem, roots, moment, true},
		{"again", here, pem, roots, moment, true},
		{"a copy", here, slices.Clone(pem), roots, moment, true},
		{"after a copy", here, pem, roots, moment, true},
		{"another of the same length", here, spoilt, roots, moment, false},
		{"after another", here, pem, roots, moment, true},
		{"another region, whose name it has not", there, pem, roots, moment, false},
		{"after that", here, pem, roots, moment, true},
		{"other roots", here, pem, other.Roots(), moment, false},
		{"nothing", here, nil, roots, moment, false},
		{"one that ends soon", here, short, roots, moment, true},
		{"in its last second", here, short, roots, moment.Add(time.Hour), true},
		{"after its end", here, short, roots, moment.Add(time.Hour + time.Second), false},
		{"before its beginning", here, short, roots, moment.AddDate(-1, 0, 0), false},
	} {
		if got := certify(step.d, step.pem, step.roots, step.at); got != step.want {
			t.Errorf("%s: taken %v, want %v", step.what, got, step.want)
		}
	}
}

func TestSNSCertificateNames(t *testing.T) {
	tests := map[string]string{ // as AWS's own SDK has them
		"us-west-2": "sns.amazonaws.com", "eu-west-1": "sns.amazonaws.com", "me-south-1": "sns-signing.me-south-1.amazonaws.com",
		"af-south-1": "sns-signing.af-south-1.amazonaws.com", "us-gov-west-1": "sns-us-gov-west-1.amazonaws.com", "us-gov-east-1": "sns-us-gov-west-1.amazonaws.com",
		"cn-north-1": "sns-cn-north-1.amazonaws.com.cn", "cn-northwest-1": "sns-cn-northwest-1.amazonaws.com.cn",
	}
	for region, want := range tests {
		topic := topic{partition: "aws", region: region}
		if strings.HasPrefix(region, "cn-") {
			topic.partition = "aws-cn"
		}
		url := "https://" + topic.host() + "/SimpleNotificationService-00.pem"
		if got := snsCertificateNames(url); !slices.Contains(got, want) {
			t.Errorf("%s: %q, want %q among them", region, got, want)
		}
	}
	if slices.Contains(snsCertificateNames("https://sns.cn-north-1.amazonaws.com.cn/x"), "sns.amazonaws.com") {
		t.Error("the certificate of another partition is taken in China")
	}
}

func TestWith(t *testing.T) {
	sns, _ := Preset("aws-sns")
	paypal, _ := Preset("paypal")
	github, _ := Preset("github")
	tests := []struct {
		name   string
		scheme *Scheme
		p      Parameters
		want   string // field: problem
	}{
		{"no topics", sns, Parameters{}, ": the scheme aws-sns needs the topics"},
		{"not a topic", sns, Parameters{Topics: []string{topicARN, "orders"}}, `topics[1]: "orders" is not`},
		{"a pattern", sns, Parameters{Topics: []string{"arn:aws:sns:eu-west-1:123456789012:*"}}, "topics[0]: "},
		{"a subscription", sns, Parameters{Topics: []string{topicARN + ":c9135db0"}}, "topics[0]: "},
		{"a queue", sns, Parameters{Topics: []string{"arn:aws:sqs:eu-west-1:123456789012:orders"}}, "topics[0]: "},
		{"another partition", sns, Parameters{Topics: []string{"arn:aws-iso:sns:us-iso-east-1:123456789012:orders"}}, "topics[0]: "},
		{"China in the wrong partition", sns, Parameters{Topics: []string{"arn:aws:sns:cn-north-1:123456789012:orders"}}, "topics[0]: "},
		{"too many", sns, Parameters{Topics: slices.Repeat([]string{topicARN}, 65)}, "topics: 65 topics"},
		{"webhook id of SNS", sns, Parameters{Topics: []string{topicARN}, WebhookID: "X"}, "webhookID: the scheme aws-sns has no webhook id"},
		{"no webhook id", paypal, Parameters{}, ": the scheme paypal needs the id"},
		{"not a webhook id", paypal, Parameters{WebhookID: "a|b"}, `webhookID: "a|b" is not`},
		{"topics of PayPal", paypal, Parameters{WebhookID: "X", Topics: []string{topicARN}}, "topics: the scheme paypal has no topics"},
		{"topics of another", github, Parameters{Topics: []string{topicARN}}, "topics: the scheme github has no topics"},
	}
	for _, tt := range tests {
		s, faults := tt.scheme.With(tt.p)
		if s != nil || len(faults) == 0 || !strings.HasPrefix(faults[0].Field+": "+faults[0].Problem, tt.want) || faults[0].Fix == "" {
			t.Errorf("%s: %v, %+v, want %q", tt.name, s, faults, tt.want)
		}
	}
	if s, faults := github.With(Parameters{}); s == nil || len(faults) > 0 {
		t.Errorf("nothing given, nothing wanted: %v, %v", s, faults)
	}
}

func TestCertificateSpecFaults(t *testing.T) {
	sns, _ := Preset("aws-sns")
	paypal, _ := Preset("paypal")
	tests := []struct {
		name   string
		from   *Scheme
		change func(*Spec)
		want   string
	}{
		{"unknown", sns, func(s *Spec) { s.Certificate = "aws" }, "certificate"},
		{"without certificates", sns, func(s *Spec) { s.Certificate = "" }, "sign[0]"},
		{"of another sender", sns, func(s *Spec) { s.Certificate = "paypal" }, "sign[0]"},
		{"another algorithm", sns, func(s *Spec) { s.Alg = "ed25519" }, "alg"},
		{"a MAC", sns, func(s *Spec) { s.Alg = "hmac-sha256" }, "alg"},
		{"nothing ties it", sns, func(s *Spec) { s.Sign = []string{"{body}"} }, "sign[0]"},
		{"nothing ties it to the webhook", paypal, func(s *Spec) { s.Sign = []string{"{header:PAYPAL-TRANSMISSION-ID}|{body|crc32}"} }, "sign[0]"},
		{"tied in one of two ways", paypal, func(s *Spec) { s.Sign = append(s.Sign, "{body}") }, "sign[1]"},
	}
	for _, tt := range tests {
		spec := tt.from.Spec()
		spec.Sign = slices.Clone(spec.Sign)
		tt.change(&spec)
		s, faults := Compile(spec)
		if s != nil || !slices.ContainsFunc(faults, func(f Fault) bool { return f.Field == tt.want }) {
			t.Errorf("%s: %v, want one of %s", tt.name, faults, tt.want)
		}
	}
}

// FuzzCertificateURL takes no URL that another reader could take for a place that is not the sender's.
func FuzzCertificateURL(f *testing.F) {
	for _, u := range []string{snsURL, paypalURL, "https://sns.eu-west-1.amazonaws.com@evil.example/SimpleNotificationService-0.pem", "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0.pem#.pem"} {
		f.Add(u, topicARN)
	}
	f.Fuzz(func(t *testing.T, text, arn string) {
		sns, paypal := snsCertificateURL(text, arn), paypalCertificateURL(text, paypalHost)
		if !sns && !paypal {
			return
		}
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "https" || u.User != nil || u.Port() != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.RawPath != "" || path.Clean(u.Path) != u.Path || u.String() != text {
			t.Fatalf("%q is taken: %+v, %v", text, u, err)
		}
		switch {
		case paypal && u.Host != "api.paypal.com":
			t.Fatalf("%q is taken as PayPal's", text)
		case sns && (!strings.HasPrefix(u.Host, "sns.") || strings.Count(u.Path, "/") != 1 || path.Ext(u.Path) != ".pem" ||
			strings.TrimSuffix(strings.TrimSuffix(u.Host, ".cn"), ".amazonaws.com") != "sns."+strings.Split(arn, ":")[3]):
			t.Fatalf("%q is taken as that of %q", text, arn)
		}
	})
}

// FuzzSNS reads anything as a message. What is taken must be what encoding/json, which is the most generous reader, makes of it.
func FuzzSNS(f *testing.F) {
	key := certtest.Key(f, 0)
	f.Add(notification("2").Sign(f, key))
	f.Add(confirmation("SubscriptionConfirmation").Sign(f, key))
	f.Add([]byte(`{"Message":"a","message":"b"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var m snsMessage
		if !m.read(body, false) {
			return
		}
		var generous struct{ Message, MessageId, Subject, SubscribeURL, Timestamp, Token, TopicArn, Type, SignatureVersion, Signature, SigningCertURL, UnsubscribeURL string }
		if err := json.Unmarshal(body, &generous); err != nil {
			t.Fatalf("%q is taken: %v", body, err)
		}
		g := generous
		if want := (snsMessage{g.Message, g.MessageId, g.Subject, g.SubscribeURL, g.Timestamp, g.Token, g.TopicArn, g.Type, g.SignatureVersion, g.Signature, g.SigningCertURL, g.UnsubscribeURL, ""}); m != want {
			t.Fatalf("%q is read as\n%q, want\n%q", body, m, want)
		}
	})
}
