package signature

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"
)

func detachedSpec(change func(*Spec)) Spec {
	s := Spec{Alg: "jws-hs256", Sign: []string{"{method}\n{jws.headers}{body}"}, Sig: SigSpec{In: []string{"header:x-jws"}},
		JWS: JWSSpec{List: "list", Headers: []string{"X-Time"}, Parameters: map[string]string{"version": "2"}}, TS: TimestampSpec{In: []string{"header:x-time"}, Unit: "s", Tolerance: 300}}
	if change != nil {
		change(&s)
	}
	return s
}

// TestCarriedFaults names what is wrong in a scheme whose signature a format carries.
func TestCarriedFaults(t *testing.T) {
	plain := func(change func(*Spec)) Spec { s := plainHex; change(&s); return s }
	tests := []struct {
		name  string
		spec  Spec
		field string
		want  string
	}{
		{"unknown token algorithm", tokenSpec(func(s *Spec) { s.Alg = "jwt-none" }), "alg", `no algorithm is named "jwt-none"`},
		{"unknown message algorithm", messageSpec(func(s *Spec) { s.Alg = "http-signature-none" }), "alg", "no algorithm is named"},
		{"token without a place", tokenSpec(func(s *Spec) { s.Sig.In = nil }), "sig.in", "does not say where"},
		{"token in the body", tokenSpec(func(s *Spec) { s.Sig.In = []string{"json:token"} }), "sig.in[0]", "does not stand in a header"},
		{"token in a claim", tokenSpec(func(s *Spec) { s.Sig.In = []string{"claim:token"} }), "sig.in", "cannot be a part of itself"},
		{"token with a template", tokenSpec(func(s *Spec) { s.Sign = []string{"{body}"} }), "sign", "the algorithm says what is signed"},
		{"token with an encoding", tokenSpec(func(s *Spec) { s.Sig.Enc = "hex" }), "sig.enc", "the algorithm says how"},
		{"token in a list", tokenSpec(func(s *Spec) { s.Sig.Split = "," }), "sig.split", "the algorithm says how"},
		{"token with an empty prefix", tokenSpec(func(s *Spec) { s.Sig.Prefix = []string{""} }), "sig.prefix[0]", "empty prefix"},
		{"token with a time of its own", tokenSpec(func(s *Spec) { s.TS.In = []string{"header:x-time"} }), "ts.in", "holds its time"},
		{"token with a unit", tokenSpec(func(s *Spec) { s.TS.Unit = "s" }), "ts.in", "holds its time"},
		{"token with a tolerance below zero", tokenSpec(func(s *Spec) { s.TS.Tolerance = -1 }), "ts.tolerance", "-1 is not a number of seconds"},
		{"digest that is not known", tokenSpec(func(s *Spec) { s.JWT.Digest = "md5" }), "jwt.digest", `no digest is written as "md5"`},
		{"digest of nothing", tokenSpec(func(s *Spec) { s.JWT = JWTSpec{Digest: "hex"} }), "jwt.digest", "no claim holds a digest"},
		{"optional digest of nothing", tokenSpec(func(s *Spec) { s.JWT = JWTSpec{URL: "u", BodyOptional: true} }), "jwt.body_optional", "no claim holds a digest"},
		{"fresh token", tokenSpec(func(s *Spec) { s.FreshPerAttempt = true }), "freshPerAttempt", "until its own exp"},
		{"token with a certificate", tokenSpec(func(s *Spec) { s.Alg, s.Certificate = "jwt-rs256", "paypal" }), "certificate", "signs in another way"},
		{"token with a label", tokenSpec(func(s *Spec) { s.Sig.Label = "a" }), "sig.label", "no use for it"},
		{"token with components", tokenSpec(func(s *Spec) { s.Components = []string{"date"} }), "components", "no use for it"},
		{"token with parameters of a detached signature", tokenSpec(func(s *Spec) { s.JWS.List = "list" }), "jws", "no use for it"},
		{"MAC with claims", plain(func(s *Spec) { s.JWT.Issuer = "acme" }), "jwt", "no use for it"},
		{"MAC with an id in a claim", plain(func(s *Spec) { s.ID = "claim:jti" }), "id", "the algorithm has none"},
		{"MAC over a claim", plain(func(s *Spec) { s.Sign = []string{"{claim:a}{body}"} }), "sign", "the algorithm has none"},
		{"MAC with a key id", plain(func(s *Spec) { s.Sig.KeyID = "a" }), "sig.keyid", "no use for it"},
		{"MAC over listed headers", plain(func(s *Spec) { s.Sign = []string{"{jws.headers}{body}"} }), "sign[0]", "no place here"},
		{"detached without a template", detachedSpec(func(s *Spec) { s.Sign = nil }), "sign", "does not say what is signed"},
		{"detached with a claim", detachedSpec(func(s *Spec) { s.ID = "claim:jti" }), "id", "the algorithm has none"},
		{"list that the template does not use", detachedSpec(func(s *Spec) { s.Sign = []string{"{body}"} }), "sign[0]", "go together"},
		{"list that is not there", detachedSpec(func(s *Spec) { s.JWS = JWSSpec{} }), "sign[0]", "go together"},
		{"headers without a list", detachedSpec(func(s *Spec) { s.JWS.List = "" }), "jws.list", "no parameter lists"},
		{"header twice", detachedSpec(func(s *Spec) { s.JWS.Headers = []string{"X-Time", "x-time"} }), "jws.headers[1]", "occurs twice"},
		{"header without a name", detachedSpec(func(s *Spec) { s.JWS.Headers = []string{"a b"} }), "jws.headers[0]", "is not the name of a header"},
		{"algorithm as a parameter", detachedSpec(func(s *Spec) { s.JWS.Parameters = map[string]string{"alg": "none"} }), "jws.parameters.alg", "cannot be pinned here"},
		{"empty parameter", detachedSpec(func(s *Spec) { s.JWS.Parameters = map[string]string{"a": ""} }), "jws.parameters.a", "cannot be pinned here"},
		{"timestamp that is not signed", detachedSpec(func(s *Spec) { s.TS.In = []string{"header:x-other"} }), "ts.in", "not signed"},
		{"message without components", messageSpec(func(s *Spec) { s.Components = nil }), "components", "does not say what must be signed"},
		{"message with an unknown component", messageSpec(func(s *Spec) { s.Components[0] = "@status" }), "components[0]", "is not a component"},
		{"message with a name in capitals", messageSpec(func(s *Spec) { s.Components[0] = "Date" }), "components[0]", "is not a component"},
		{"message with a parameter", messageSpec(func(s *Spec) { s.Components[0] = "date;sf" }), "components[0]", "is not a component"},
		{"message with a quote", messageSpec(func(s *Spec) { s.Components[0] = `a" "b` }), "components[0]", "is not a component"},
		{"message with a field without a name", messageSpec(func(s *Spec) { s.Components[0] = "@query-param" }), "components[0]", "is not a component"},
		{"message with a component twice", messageSpec(func(s *Spec) { s.Components[0] = "content-digest" }), "components[2]", "occurs twice"},
		{"message elsewhere", messageSpec(func(s *Spec) { s.Sig.In = []string{"header:x-signature"} }), "sig.in", "in the header Signature"},
		{"message with a prefix", messageSpec(func(s *Spec) { s.Sig.Prefix = []string{"a"} }), "sig.prefix", "the algorithm says how"},
	}
	for _, tt := range tests {
		s, faults := Compile(tt.spec)
		if s != nil || !slices.ContainsFunc(faults, func(f Fault) bool {
			return f.Field == tt.field && strings.Contains(f.Problem, tt.want) && f.Fix != ""
		}) {
			t.Errorf("%s: faults %+v, want %s: %s", tt.name, faults, tt.field, tt.want)
		}
	}
}

// TestCarriedFacts says what a policy must know of each format.
func TestCarriedFacts(t *testing.T) {
	type facts struct {
		Body, Stamped, Signed, URL, ID, Event bool
		Headers                               string
	}
	tests := []struct {
		name string
		spec Spec
		want facts
	}{
		{"token", tokenSpec(nil), facts{true, true, true, true, true, false, "x-token"}},
		{"token of no body", tokenSpec(func(s *Spec) { s.JWT.Body, s.JWT.URL, s.ID = "", "", "query:id" }), facts{false, true, true, false, false, false, "x-token"}},
		{"token of the URL", tokenSpec(func(s *Spec) { s.JWT.Body, s.ID, s.Event = "", "query:id", "json:type" }), facts{false, true, true, true, true, false, "x-token"}},
		{"detached", detachedSpec(func(s *Spec) { s.ID, s.Event = "json:id", "header:x-type" }), facts{true, true, true, false, true, false, "x-jws x-time x-type"}},
		{"detached with the id in a listed header", detachedSpec(func(s *Spec) { s.JWS.Headers, s.ID = []string{"X-Time", "X-Id"}, "header:x-id" }), facts{true, true, true, false, true, false, "x-jws x-time x-id"}},
		{"message", messageSpec(func(s *Spec) { s.ID, s.Event = "query:id", "json:type" }), facts{true, true, true, true, true, true, "signature signature-input content-digest"}},
		{"message without the body", messageSpec(func(s *Spec) { s.Components, s.ID = []string{"x-id", "@path"}, "header:x-id" }), facts{false, true, true, false, true, false, "signature signature-input x-id"}},
		{"message without the query", messageSpec(func(s *Spec) { s.Components, s.ID = []string{"content-digest"}, "query:id" }), facts{true, true, true, false, false, false, "signature signature-input content-digest"}},
	}
	for _, tt := range tests {
		s := compile(t, tt.spec)
		got := facts{s.BodySigned(), s.HasTimestamp(), s.TimestampSigned(), s.NeedsURL(), s.IDSigned(), s.EventSigned(), strings.Join(s.Headers(), " ")}
		if got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// TestListedHeaders says that what a scheme asks for must be listed: what merely stands in the delivery is not signed.
func TestListedHeaders(t *testing.T) {
	s := compile(t, detachedSpec(func(s *Spec) { s.JWS.Headers = []string{"X-Time", "X-Tenant"} }))
	k := key(t, s, "secret")
	raw := base64.RawURLEncoding
	for list, want := range map[string]string{"X-Time,X-Tenant": verdictValid, "x-tenant,x-time": verdictValid, "X-Time": Malformed.String(), "X-Tenant": TimestampMissing.String()} {
		head := raw.EncodeToString([]byte(`{"alg":"HS256","version":"2","list":"` + list + `"}`))
		message := "POST\n"
		for name := range strings.SplitSeq(list, ",") {
			message += name + ": " + map[string]string{"x-time": "1767225600", "x-tenant": "a"}[strings.ToLower(name)] + "\n"
		}
		signature := raw.EncodeToString(mac(head + "." + raw.EncodeToString([]byte(message+body))))
		d := &Delivery{Method: "POST", Headers: headers("x-time: 1767225600", "x-tenant: a", "x-jws: "+head+".."+signature), Body: [][]byte{[]byte(body)}}
		if got := decide(s, d, []*Key{k}, &moment, 300*time.Second); got != want {
			t.Errorf("%s: %s, want %s", list, got, want)
		}
	}
}

// TestSignCarried makes deliveries of inline schemes and changes them.
func TestSignCarried(t *testing.T) {
	for name, spec := range map[string]Spec{
		"token":    tokenSpec(func(s *Spec) { s.Sig.Prefix, s.Sig.KeyID = []string{"Bearer "}, "k1" }),
		"base64":   tokenSpec(func(s *Spec) { s.JWT.Digest = "base64" }),
		"urlsafe":  tokenSpec(func(s *Spec) { s.JWT.Digest = "base64url" }),
		"timeless": tokenSpec(func(s *Spec) { s.TS.Optional = true }),
		"detached": detachedSpec(func(s *Spec) { s.JWS.Headers, s.Sig.KeyID = []string{"X-Time", "X-Other"}, "k1" }),
		"message": messageSpec(func(s *Spec) {
			s.Components = append(s.Components, "x-other", `@query-param;name="a"`, "@authority", "@scheme", "@request-target", "@path", "@query")
			s.Sig.Label, s.Sig.Tag, s.Sig.KeyID = "mine", "t", "k1"
		}),
	} {
		s := compile(t, spec)
		k := key(t, s, "secret")
		d := Delivery{Method: "POST", Path: "/hooks?a=1", Body: [][]byte{[]byte(body)}, Headers: headers("x-other: kept")}
		if s.NeedsURL() {
			d.PublicURL = "https://hooks.example.com/hooks"
		}
		signed, err := s.Sign(k, d, moment, "id")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := decide(s, &signed, []*Key{k}, &moment, time.Minute); got != verdictValid || !slices.Contains(signed.Headers, Header{"x-other", "kept"}) {
			t.Errorf("%s: %s, %v", name, got, signed.Headers)
		}
		signed.Body = [][]byte{[]byte(body + " ")}
		if got := decide(s, &signed, []*Key{k}, &moment, time.Minute); got != verdictMismatch {
			t.Errorf("%s, another body: %s", name, got)
		}
	}
	s := compile(t, messageSpec(func(s *Spec) { s.Components = []string{`@query-param;name="a"`} }))
	if _, err := s.Sign(key(t, s, "secret"), Delivery{Method: "POST", Path: "/"}, moment, ""); err == nil {
		t.Error("a field of the query is signed that is not there")
	}
}
