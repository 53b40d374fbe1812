package main

import (
	"strconv"
	"strings"

	"github.com/hookauthz/hookauthz/policy/signature"
)

const handshakesHead = `# Handshakes

Before it sends deliveries, or beside them, a provider may ask whether an endpoint is ours. hookauthz answers at the edge, and the
application never sees the question.

- A signed one is verified like any delivery and then answered. ` + "`handshake: {enabled: false}`" + ` turns that off.
- An unsigned one is answered only where the policy says so, at most 30 times a minute for each client address, and with the verify token
  that the provider has:

` + "```yaml" + `
handshake: {enabled: true, verifyToken: {env: META_VERIFY_TOKEN}}
` + "```" + `

- ` + "`provider: NAME`" + ` names the handshake of a provider whose scheme has none of its own: ` + "`handshake: {enabled: true, provider: okta}`" + `.

What is echoed (` + "`{echo}`" + `) is at most 256 characters of ` + "`[A-Za-z0-9._~=-]`" + `; any other text is no handshake. A MAC (` + "`{mac}`" + `) is made only of a text of the
pattern shown, and a delivery whose signed message looks like such a text is denied: its signature could be had for the asking.

Not answered: Asana and Notion, which deliver the secret itself; Amazon SNS, whose ` + "`SubscribeURL`" + ` is never fetched.

`

// handshakesPage is a table of what is answered and how.
func handshakesPage() string {
	rows := [][]string{{"handshake", "provider", "with presets", "signed", "request", "answer", "policy needs"}}
	for _, h := range signature.AllHandshakes() {
		s := h.Spec()
		rows = append(rows, []string{code(s.Name), link(s.Provider, s.Source), codes(s.Presets, ", "), yes(s.Signed), requestCell(s), answerCell(s), needsCell(h)})
	}
	return handshakesHead + table(rows)
}

func requestCell(s signature.HandshakeSpec) string {
	var parts []string
	for _, c := range s.When {
		if c.Is == "" {
			parts = append(parts, "no "+code(c.At))
		} else {
			parts = append(parts, code(c.At)+" is "+code(c.Is))
		}
	}
	if s.Token != "" {
		parts = append(parts, code(s.Token)+" is the verify token")
	}
	for _, source := range []string{s.Echo, s.MAC, s.Require} {
		if source == "" {
			continue
		}
		if s.Pattern != "" {
			parts = append(parts, code(source)+" of "+code(s.Pattern))
		} else {
			parts = append(parts, code(source))
		}
	}
	return lines(append([]string{s.Method}, parts...)...)
}

func answerCell(s signature.HandshakeSpec) string {
	wrong := ""
	if s.WrongToken != 0 {
		wrong = strconv.Itoa(s.WrongToken) + " for a wrong token"
	}
	mac := ""
	if strings.Contains(s.Answer, "{mac}") {
		mac = code("{mac}") + " is " + s.Enc
	}
	return lines(strings.TrimSpace(strconv.Itoa(s.Status)+" "+code(s.Type)), code(s.Answer), mac, wrong)
}

func needsCell(h *signature.Handshake) string {
	s := h.Spec()
	if s.Signed {
		return "nothing"
	}
	needs := "`enabled: true`"
	if len(s.Presets) == 0 {
		needs += ", `provider: " + s.Name + "`"
	}
	if h.NeedsToken() {
		needs += ", `verifyToken`"
	}
	return needs
}
