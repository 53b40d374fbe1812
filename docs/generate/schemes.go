package main

import (
	"cmp"
	_ "embed" // for the language of schemes
	"fmt"
	"strings"
	"time"

	"github.com/hookauthz/hookauthz/policy/signature"
)

//go:embed schemes.head.md
var schemesHead string

// schemesPage is the language of schemes and a table of all presets.
func schemesPage() string {
	var b strings.Builder
	b.WriteString(schemesHead)
	presets := signature.Presets()
	fmt.Fprintf(&b, "## Presets\n\n%d presets. A sender's name leads to its own page where it is known. \"Signed\" beside an id or event says that it is\npart of what is "+
		"signed. Confidence says how well the facts are founded: the sender's own source or docs, third-party code, or memory.\n\n", len(presets))
	rows := [][]string{{"preset", "sender", "what is signed", "signature", "secret", "timestamp, tolerance", "delivery id, event type", "each attempt signed anew", "confidence"}}
	for _, p := range presets {
		rows = append(rows, presetRow(p))
	}
	b.WriteString(table(rows))
	return b.String()
}

func presetRow(p signature.Info) []string {
	scheme, _ := signature.Preset(p.Name) // every one that is listed is there, which a test sees to
	name := code(p.Name)
	if p.Alias != "" {
		name = lines(name, "also "+code(p.Alias))
	}
	also := ""
	if len(p.Also) > 0 {
		also = "also " + text(strings.Join(p.Also, ", "))
	}
	return []string{
		name,
		lines(link(p.Provider, p.Documentation), also),
		signedCell(p.Spec, scheme),
		signatureCell(p.Spec),
		lines(text(p.Secret), code(p.SecretExample)),
		timestampCell(p.Spec, scheme),
		lines(toldCell("id", p.Spec.ID, p.DeliveryID, scheme.IDSigned()), toldCell("event", p.Spec.Event, p.EventType, scheme.EventSigned())),
		yes(scheme.FreshPerAttempt()),
		text(p.Confidence),
	}
}

func signedCell(s signature.Spec, scheme *signature.Scheme) string {
	switch {
	case scheme.IsToken():
		return "nothing: a static token"
	case s.JWT.Body != "" || s.JWT.URL != "":
		return claimsCell(s.JWT)
	case len(s.Components) > 0:
		return codes(s.Components, ", ")
	case !scheme.BodySigned():
		return lines(codes(s.Sign, " or "), "body not signed")
	default:
		return codes(s.Sign, " or ")
	}
}

// claimsCell says which claims of a token are digests of what.
func claimsCell(j signature.JWTSpec) string {
	var claims []string
	for _, c := range [][2]string{{"body", j.Body}, {"URL", j.URL}} {
		if c[1] != "" {
			claims = append(claims, c[0]+": claim "+code(c[1])+", SHA-256 in "+cmp.Or(j.Digest, "hex"))
		}
	}
	return lines(claims...)
}

func signatureCell(s signature.Spec) string {
	where := codes(s.Sig.In, " or ")
	if s.Sig.Numbered != "" {
		where = code("header:"+s.Sig.Numbered+"1") + " and so on"
	}
	how := s.Alg
	if s.Sig.Enc != "" {
		how += ", " + s.Sig.Enc
	}
	shape := ""
	if s.Sig.Pick == "*" {
		shape = "every pair"
	} else if s.Sig.Pick != "" {
		shape = code(s.Sig.Pick + s.Sig.KV + "...")
	} else if len(s.Sig.Prefix) > 0 {
		for i, prefix := range s.Sig.Prefix {
			if i > 0 {
				shape += " or "
			}
			shape += code(prefix + "...")
		}
	}
	if s.Sig.Split != "" {
		shape = strings.TrimSpace(shape + " in a list parted by " + separator(s.Sig.Split))
	}
	return lines(where, text(how), shape)
}

func separator(s string) string {
	if s == " " {
		return "spaces"
	}
	return code(s)
}

func timestampCell(s signature.Spec, scheme *signature.Scheme) string {
	if !scheme.HasTimestamp() {
		return "none"
	}
	tolerance := "tolerance not documented"
	switch {
	case !scheme.TimestampSigned():
		tolerance = "not signed"
	case scheme.Tolerance() > 0:
		tolerance = duration(scheme.Tolerance())
	}
	if len(s.JWT.Body+s.JWT.URL) > 0 || len(s.Components) > 0 {
		where := "claims " + codes([]string{"exp", "nbf", "iat"}, ", ")
		if len(s.Components) > 0 {
			where = codes([]string{"created", "expires"}, ", ")
		}
		if s.TS.Optional {
			where += " where they are there"
		}
		return lines(where, tolerance)
	}
	return lines(codes(s.TS.In, " or "), strings.TrimPrefix(text(s.TS.Unit)+", "+tolerance, ", "))
}

// duration is a time as a policy has it: 5m.
func duration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// toldCell says where an id or event type stands: a source that the scheme reads, or what is known otherwise.
func toldCell(what, source, known string, signed bool) string {
	switch {
	case source != "" && signed:
		return what + ": " + code(source) + ", signed"
	case source != "":
		return what + ": " + code(source)
	case known != "":
		return what + ": " + text(known) + ", not read"
	default:
		return ""
	}
}
