package signature

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// with changes a copy of a good scheme.
func with(change func(*Spec)) Spec {
	s := Spec{Alg: "hmac-sha256", Sign: []string{"{body}"}, Sig: SigSpec{In: []string{"header:X-Sig"}, Enc: "hex"}}
	change(&s)
	return s
}

func TestCompileFaults(t *testing.T) {
	tests := []struct {
		name string
		spec Spec
		want []string // "field: part of the problem"
	}{
		{"empty", Spec{}, []string{"alg: names no algorithm", "sign: does not say what is signed", "sig.in: where the signature stands", `sig.enc: no encoding is named ""`}},
		{"algorithm", with(func(s *Spec) { s.Alg = "hmac-sha-256" }), []string{`alg: no algorithm is named "hmac-sha-256"`}},
		{"template brace", with(func(s *Spec) { s.Sign = []string{"{body"} }), []string{"sign: a brace has no partner"}},
		{"closing brace", with(func(s *Spec) { s.Sign = []string{"body}"} }), []string{"sign: a brace has no partner"}},
		{"empty template", with(func(s *Spec) { s.Sign = []string{"{body}", ""} }), []string{"sign[1]: the template is empty"}},
		{"literal alone", with(func(s *Spec) { s.Sign = []string{"hello"} }), []string{"sign: nothing of the delivery"}},
		{"part", with(func(s *Spec) { s.Sign = []string{"{bdy}"} }), []string{`sign: "bdy" is not a source`}},
		{"filter", with(func(s *Spec) { s.Sign = []string{"{body|md5}"} }), []string{`sign: no filter is named "md5"`}},
		{"header name", with(func(s *Spec) { s.Sign = []string{"{header:X Y}"} }), []string{`sign: "X Y" is not the name of a header`}},
		{"JSON path", with(func(s *Spec) { s.Sign = []string{"{json:a..b}"} }), []string{`sign: "a..b" is not a path`}},
		{"segment", with(func(s *Spec) { s.Sign = []string{"{opt:a|b}"} }), []string{`sign: the optional segment "a|b" does not have four fields`}},
		{"segment's filter", with(func(s *Spec) { s.Sign = []string{"{opt:a|header:x|md5|b}"} }), []string{`sign: no filter is named "md5"`}},
		{"segment's source", with(func(s *Spec) { s.Sign = []string{"{opt:a|x||b}"} }), []string{`sign: "x" is not a source`}},
		{"too many fields", with(func(s *Spec) {
			for i := range 2 {
				text := ""
				for j := range 40 {
					text += fmt.Sprintf("{header:x%d}", 40*i+j)
				}
				s.Check = append(s.Check, CheckSpec{A: text, B: "{body}"})
			}
		}), []string{"check[1].a: more than 64 fields"}},
		{"pairs parted as the list is", with(func(s *Spec) { s.Sig.Split, s.Sig.KV, s.Sig.Pick = ",", ",", "v1" }), []string{`sig.kv: "," is not what stands between`}},
		{"source of a timestamp", with(func(s *Spec) { s.TS = TimestampSpec{In: []string{"x"}, Unit: "s"} }), []string{`ts.in: "x" is not a source`}},
		{"format without a year", with(func(s *Spec) {
			s.TS = TimestampSpec{In: []string{"header:X-Ts"}, Unit: "strptime:%H"}
			s.Sign = []string{"{header:X-Ts}.{body}"}
		}), []string{`ts.unit: the format "%H" cannot be read back`}},
		{"format with a word of the package time", with(func(s *Spec) {
			s.TS = TimestampSpec{In: []string{"header:X-Ts"}, Unit: "strptime:%Y PM"}
			s.Sign = []string{"{header:X-Ts}.{body}"}
		}), []string{`ts.unit: the format "%Y PM" cannot be read back`}},
		{"long name", with(func(s *Spec) { s.Sign = []string{"{" + strings.Repeat("x", 100) + "}"} }), []string{"sign: " + strings.Repeat("x", 80) + `..." is not a source`}},
		{"secret of an HMAC", with(func(s *Spec) { s.Sign = []string{"{secret}{body}"} }), []string{"sign: {secret} has no place here"}},
		{"hash without its secret", with(func(s *Spec) { s.Alg = "hash-sha256" }), []string{"sign: can be made by anybody"}},
		{"too many templates", with(func(s *Spec) { s.Sign = strings.Split(strings.Repeat("{body} ", 9), " ") }), []string{"sign: more than 8 templates"}},
		{"too many parts", with(func(s *Spec) { s.Sign = []string{strings.Repeat("{body}", 65)} }), []string{"sign: more than 64 parts"}},
		{"source", with(func(s *Spec) { s.Sig.In = []string{"X-Sig"} }), []string{`sig.in: "X-Sig" is not a source`}},
		{"signature in itself", with(func(s *Spec) { s.Sig.In = []string{"sig:v1"} }), []string{"sig.in: a part of itself"}},
		{"encoding", with(func(s *Spec) { s.Sig.Enc = "base32" }), []string{`sig.enc: no encoding is named "base32"`}},
		{"separator", with(func(s *Spec) { s.Sig.Split = ", " }), []string{`sig.split: ", " is not a separator`}},
		{"separator that is a digit", with(func(s *Spec) { s.Sig.Split = "1" }), []string{`sig.split: "1" is not a separator`}},
		{"pairs without a list", with(func(s *Spec) { s.Sig.KV, s.Sig.Pick = "=", "v1" }), []string{"sig.kv: pairs need a list"}},
		{"pairs of nothing", with(func(s *Spec) { s.Sig.Split, s.Sig.KV = ",", "=" }), []string{"sig.pick: which pairs are signatures"}},
		{"pick without pairs", with(func(s *Spec) { s.Sig.Split, s.Sig.Pick = ",", "v1" }), []string{"sig.pick: no pairs to pick from"}},
		{"drop without a list", with(func(s *Spec) { s.Sig.DropFirst = true }), []string{"sig.drop_first: no plain list"}},
		{"optional prefix", with(func(s *Spec) { s.Sig.PrefixOptional = true }), []string{"sig.prefix_optional: there is no prefix"}},
		{"empty prefix", with(func(s *Spec) { s.Sig.Prefix = []string{""} }), []string{"sig.prefix[0]: an empty prefix"}},
		{"part of no list", with(func(s *Spec) { s.Sign = []string{"{sig:t}.{body}"} }), []string{"sign: a part of a list, and sig has none"}},
		{"position without a number", with(func(s *Spec) { s.Sign, s.Sig.Split = []string{"{sig:t}.{body}"}, "," }), []string{"sign: sig:t names a pair"}},
		{"id of no list", with(func(s *Spec) { s.ID = "sig:t" }), []string{"id: a part of a list, and sig has none"}},
		{"numbered", with(func(s *Spec) { s.Sig.Numbered = "X Sig" }), []string{"sig.numbered: not the beginning of a header's name"}},
		{"unit", with(func(s *Spec) {
			s.TS = TimestampSpec{In: []string{"header:X-Ts"}, Unit: "minutes"}
			s.Sign = []string{"{header:X-Ts}.{body}"}
		}), []string{`ts.unit: no unit is named "minutes"`}},
		{"format", with(func(s *Spec) {
			s.TS = TimestampSpec{In: []string{"header:X-Ts"}, Unit: "strptime:%Q"}
			s.Sign = []string{"{header:X-Ts}.{body}"}
		}), []string{`ts.unit: the format "%Q" cannot be read back`}},
		{"tolerance without a timestamp", with(func(s *Spec) { s.TS.Tolerance = 300 }), []string{"ts.in: where the timestamp stands"}},
		{"tolerance below zero", with(func(s *Spec) {
			s.TS = TimestampSpec{In: []string{"header:X-Ts"}, Unit: "s", Tolerance: -1}
			s.Sign = []string{"{header:X-Ts}.{body}"}
		}), []string{"ts.tolerance: -1 is not"}},
		{"timestamp that is not signed", with(func(s *Spec) { s.TS = TimestampSpec{In: []string{"header:X-Ts"}, Unit: "s", Tolerance: 300} }), []string{"ts.in: the timestamp is not signed"}},
		{"token that signs", with(func(s *Spec) { s.Alg = "token" }), []string{"sign: a static token signs nothing"}},
		{"token with a timestamp", Spec{Alg: "token", Sig: SigSpec{In: []string{"header:X"}}, TS: TimestampSpec{In: []string{"header:Y"}, Unit: "s"}}, []string{"ts: a static token proves no time"}},
		{"key steps", with(func(s *Spec) {
			s.Key = KeySpec{Strip: []string{""}, Normalize: "nfc", Decode: "base32", Hash: "md5"}
		}), []string{"key.strip[0]: an empty prefix", `key.normalize: no normalization is named "nfc"`, `key.decode: no decoding is named "base32"`, `key.hash: no hash of keys is named "md5"`}},
		{"id", with(func(s *Spec) { s.ID = "X-Id" }), []string{`id: "X-Id" is not a source`}},
		{"event", with(func(s *Spec) { s.Event = "header:" }), []string{`event: the source "header:" has no name`}},
		{"guard", with(func(s *Spec) { s.Require = []RequireSpec{{Header: "X Y", Equals: "1"}, {Header: "X"}} }), []string{`require[0].header: "X Y" is not the name`, "require[1].equals: must equal nothing"}},
		{"check", with(func(s *Spec) { s.Check = []CheckSpec{{A: "{body|sha256hex}", B: "", IfPresent: "x"}} }), []string{"check[0].b: the template is empty", `check[0].if_present: "x" is not a source`}},
		{"secret in a check", with(func(s *Spec) {
			s.Alg, s.Sign = "hash-sha256", []string{"{secret}{body}"}
			s.Check = []CheckSpec{{A: "{secret}", B: "{header:X}"}}
		}), []string{"check[0].a: {secret} has no place here"}},
		{"only", with(func(s *Spec) { s.Only = []string{"header:X"} }), []string{"only[0]: neither of a JSON body nor of a form"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, faults := Compile(tt.spec)
			if s != nil {
				t.Error("a scheme with faults was compiled")
			}
			var got []string
			for i, f := range faults {
				got = append(got, f.Field+": "+f.Problem)
				if f.Fix == "" {
					t.Errorf("%s: %s: no fix", f.Field, f.Problem)
				}
				if i < len(tt.want) {
					field, part, _ := strings.Cut(tt.want[i], ": ")
					if f.Field == field && strings.Contains(f.Problem, part) {
						got[i] = tt.want[i]
					}
				}
			}
			if diff := cmp.Diff(got, tt.want); diff != "" {
				t.Errorf("got -, want +: %s", diff)
			}
		})
	}
}

func TestFacts(t *testing.T) {
	tests := []struct {
		name string
		spec Spec
		want facts
	}{
		{"body", plainHex, facts{bodySigned: true}},
		{"unsigned id", prefixed, facts{bodySigned: true}},
		{"signed id and time", base64List, facts{bodySigned: true, idSigned: true, timestampSigned: true}},
		{"JSON fields of a signed body", jsonID, facts{bodySigned: true, idSigned: true, eventSigned: true}},
		{"one template without the body", with(func(s *Spec) { s.Sign = []string{"{body}", "{header:X}"} }), facts{}},
		{"the body in lower case", with(func(s *Spec) { s.Sign = []string{"{body|lower}"} }), facts{}},
		{"an id in lower case", with(func(s *Spec) {
			s.Sign, s.ID = []string{"{header:X-Id|lower} {body}"}, "header:X-Id"
		}), facts{bodySigned: true}},
		{"the body's digest", with(func(s *Spec) { s.Sign = []string{"{body|sha512b64}"} }), facts{bodySigned: true}},
		{"sorted form", forms, facts{bodySigned: true}},
		{"one field of a form", formF, facts{}},
		{"all of the URL", urls, facts{needsURL: true}},
		{"digest in the query of a signed URL", checked, facts{bodySigned: true, needsURL: true}},
		{"the same where it may be absent", with(func(s *Spec) {
			s.Sign = []string{"{url}"}
			s.Check = []CheckSpec{{A: "{body|sha256hex}", B: "{query:digest}", IfPresent: "query:digest"}}
		}), facts{needsURL: true}},
		{"digest in an unsigned header", with(func(s *Spec) {
			s.Sign = []string{"{url}"}
			s.Check = []CheckSpec{{A: "{body|sha256hex}", B: "{header:digest}"}}
		}), facts{needsURL: true}},
		{"a URL without its query does not sign the query", with(func(s *Spec) {
			s.Sign = []string{"{url.noquery}"}
			s.ID = "query:id"
		}), facts{needsURL: true}},
		{"signature in the body", bodySig, facts{timestampSigned: true}},
		{"unsigned time without a tolerance", with(func(s *Spec) { s.TS = TimestampSpec{In: []string{"header:X-Ts"}, Unit: "s"} }), facts{bodySigned: true}},
		{"time in a signed body", lateStamp, facts{bodySigned: true, timestampSigned: true}},
		{"token", tokens, facts{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(compile(t, tt.spec).facts, tt.want, cmp.AllowUnexported(facts{})); diff != "" {
				t.Errorf("got -, want +: %s", diff)
			}
		})
	}
}
