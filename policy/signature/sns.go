package signature

import (
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// The fields of an Amazon SNS message, in the order in which they are signed; those from SignatureVersion on are not.
const (
	snsMessageText = iota
	snsMessageID
	snsSubject
	snsSubscribeURL
	snsTimestamp
	snsToken
	snsTopicArn
	snsType
	snsSignatureVersion
	snsSignature
	snsSigningCertURL
	snsUnsubscribeURL
	snsAttributes
	snsFields
)

var snsNames = [snsFields]string{"Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type",
	"SignatureVersion", "Signature", "SigningCertURL", "UnsubscribeURL", "MessageAttributes"}

// snsHeaders repeat fields of the message. Applications read them, so they must not say otherwise.
var snsHeaders = []string{"x-amz-sns-message-type", "x-amz-sns-message-id", "x-amz-sns-topic-arn"}

var snsHeaderFields = []int{snsType, snsMessageID, snsTopicArn}

// snsSigns says whether a field of the message is signed.
func snsSigns(name string) bool { return slices.Contains(snsNames[:snsSignatureVersion], name) }

// snsMessage is a message as read. A field that is absent is empty: no field may be there and empty.
type snsMessage [snsFields]string

func (m *snsMessage) text(field int) string { return m[field] }

// appendSigned appends what SNS signs: the name and the value of each field that is there, each on a line of its own.
func (m *snsMessage) appendSigned(dst []byte) []byte {
	for field, name := range snsNames[:snsSignatureVersion] {
		if m[field] != "" {
			dst = append(dst, name...)
			dst = append(dst, '\n')
			dst = append(dst, m[field]...)
			dst = append(dst, '\n')
		}
	}
	return dst
}

// readSNS reads the message, once. It refuses whatever could be read in two ways and whatever is not signed: other fields, fields of
// another type of message, attributes unless the policy takes them. The text that is signed can then be taken apart in one way only, for
// only its first field may hold a line break and the last lines say what type of message it is.
func (v *Verification) readSNS() bool {
	if v.snsBody == notTried {
		v.snsBody = progressOf(v.sns.read(v.contiguous(), v.scheme.parameters.UnsignedAttributes) && v.sns.sound(v.scheme) && v.snsHeadersAgree())
	}
	return v.snsBody == done
}

// read takes the fields out of a JSON object of texts.
func (m *snsMessage) read(body []byte, attributes bool) bool {
	s := jsonScanner{data: body}
	s.space()
	if !s.next('{') {
		return false
	}
	var seen [snsFields]bool
	for more := true; more; {
		s.space()
		key, ok := s.str()
		field := slices.Index(snsNames[:], string(key))
		if !ok || field < 0 || seen[field] {
			return false
		}
		seen[field] = true
		s.space()
		if !s.next(':') {
			return false
		}
		s.space()
		switch {
		case field == snsAttributes:
			if !attributes || !s.value(0, 1) {
				return false
			}
		case field == snsSubject && s.word("null"): // as absent
		default:
			raw, ok := s.str()
			if !ok {
				return false
			}
			if m[field], ok = unescape(raw); !ok || m[field] == "" || !utf8.ValidString(m[field]) {
				return false
			}
		}
		s.space()
		more = s.next(',')
	}
	if !s.next('}') {
		return false
	}
	s.space()
	return s.at == len(s.data)
}

// sound says whether the fields fit the type of the message, the scheme's algorithm and the policy's topics.
func (m *snsMessage) sound(s *Scheme) bool {
	for field, text := range m {
		if field != snsMessageText && strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
			return false
		}
	}
	has := func(fields ...int) bool { return !slices.ContainsFunc(fields, func(f int) bool { return m[f] == "" }) }
	lacks := func(fields ...int) bool { return !slices.ContainsFunc(fields, func(f int) bool { return m[f] != "" }) }
	if !has(snsMessageText, snsMessageID, snsTimestamp, snsTopicArn, snsSignature, snsSigningCertURL) {
		return false
	}
	// The version says which hash is used. The policy does: the message must agree.
	if want := map[string]string{"rsa-sha1": "1", "rsa-sha256": "2"}[s.alg.name]; m[snsSignatureVersion] != want || want == "" {
		return false
	}
	topic, ok := parseTopic(m[snsTopicArn])
	if !ok || !slices.Contains(s.parameters.Topics, m[snsTopicArn]) {
		return false
	}
	switch m[snsType] {
	case "Notification":
		unsubscribe := "https://" + topic.host() + "/?Action=Unsubscribe&SubscriptionArn=" + m[snsTopicArn] + ":"
		return lacks(snsSubscribeURL, snsToken) && (m[snsUnsubscribeURL] == "" || strings.HasPrefix(m[snsUnsubscribeURL], unsubscribe))
	case "SubscriptionConfirmation", "UnsubscribeConfirmation":
		return has(snsSubscribeURL, snsToken) && lacks(snsSubject, snsUnsubscribeURL)
	}
	return false
}

// snsHeadersAgree says whether the headers that repeat fields of the message are as the fields.
func (v *Verification) snsHeadersAgree() bool {
	for i, name := range snsHeaders {
		h := v.headers[slices.Index(v.scheme.headers, name)]
		if h.count > 1 || h.count == 1 && h.value != v.sns[snsHeaderFields[i]] {
			return false
		}
	}
	return true
}

// topic is the ARN of an SNS topic.
type topic struct{ partition, region string }

// maxTopics bounds the topics of one policy.
const maxTopics = 64

var topicForm = regexp.MustCompile(`^arn:(aws|aws-cn|aws-us-gov):sns:([a-z]{2}[a-z0-9-]{1,28}):[0-9]{12}:[A-Za-z0-9_-]{1,256}(?:\.fifo)?$`)

func parseTopic(arn string) (topic, bool) {
	m := topicForm.FindStringSubmatch(arn)
	if m == nil || strings.HasPrefix(m[2], "cn-") != (m[1] == "aws-cn") {
		return topic{}, false
	}
	return topic{partition: m[1], region: m[2]}, true
}

// suffix is the domain of the topic's partition.
func (t topic) suffix() string {
	if t.partition == "aws-cn" {
		return ".amazonaws.com.cn"
	}
	return ".amazonaws.com"
}

// host is the endpoint of SNS in the topic's region.
func (t topic) host() string { return "sns." + t.region + t.suffix() }

// snsCertificateURL says whether a URL is one of the certificates of SNS in the topic's own region, to the letter. AWS's newest SDK asks for
// the region as well.
func snsCertificateURL(url, arn string) bool {
	t, ok := parseTopic(arn)
	if !ok {
		return false
	}
	rest, ok := strings.CutPrefix(url, "https://"+t.host()+"/SimpleNotificationService-")
	id, ok2 := strings.CutSuffix(rest, ".pem")
	return ok && ok2 && id != "" && len(id) <= 64 && strings.Trim(id, "0123456789abcdef") == ""
}

// snsCertificateNames are the names that AWS gives its signing certificates: one for most regions, others for those that must be enabled,
// for China and for GovCloud. The URL has passed snsCertificateURL.
func snsCertificateNames(url string) []string {
	host, _, _ := strings.Cut(strings.TrimPrefix(url, "https://"), "/")
	region, suffix, _ := strings.Cut(strings.TrimPrefix(host, "sns."), ".")
	names := []string{host, "sns-signing." + region + "." + suffix, "sns-" + region + "." + suffix}
	switch {
	case strings.HasPrefix(region, "us-gov-"):
		return append(names, "sns-us-gov-west-1.amazonaws.com")
	case suffix == "amazonaws.com":
		return append(names, "sns.amazonaws.com")
	}
	return names
}
