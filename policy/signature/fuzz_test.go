package signature

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzTemplate checks that what is read can be written out to the same text.
func FuzzTemplate(f *testing.F) {
	for _, info := range Presets() {
		for _, text := range info.Spec.Sign {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		tmpl, problem, fix := parseTemplate(text)
		if (problem == "") != (tmpl != nil) || problem != "" && fix == "" {
			t.Fatalf("template %v, problem %q, fix %q", tmpl, problem, fix)
		}
		s := Spec{Alg: "hmac-sha256", Sign: []string{text}, Sig: SigSpec{In: []string{"header:x"}, Split: ",", KV: "=", Pick: "v", Enc: "hex"}}
		scheme, faults := Compile(s)
		if (scheme == nil) == (len(faults) == 0) {
			t.Fatalf("scheme %v, faults %v", scheme, faults)
		}
		if scheme == nil {
			return
		}
		k, err := scheme.NewKey([]byte("secret"))
		if err != nil {
			t.Fatal(err)
		}
		d := &Delivery{Method: "POST", Path: "/?q=1", PublicURL: "https://h.example", Headers: []Header{{"x", "v=" + strings.Repeat("0", 64)}}, Body: [][]byte{[]byte("{}")}}
		var v Verification
		if scheme.Parse(&v, d) == None && v.Matches(k) {
			t.Fatal("a signature of zeros matches")
		}
	})
}

// FuzzSignatureHeader parses any header in every way a list can be written. Nothing of it is ever a right signature.
func FuzzSignatureHeader(f *testing.F) {
	for _, text := range []string{"t=1,v1=00", "v1,AA== v1,", "1,00,00", "ts=1;h1=00", "a|00&b|00", ",,", "sha256=" + strings.Repeat("0", 64), strings.Repeat("v1=,", 40)} {
		f.Add(text, text, false)
	}
	specs := []Spec{plainHex, prefixed, base64List, pairs, positional, numbered, urlSafe,
		with(func(s *Spec) { s.Sig.Split, s.Sig.KV, s.Sig.Pick = "&", "|", "*" })}
	var schemes []*Scheme
	var keys []*Key
	for _, spec := range specs {
		s := compile(f, spec)
		schemes, keys = append(schemes, s), append(keys, key(f, s, "secret"))
	}
	f.Fuzz(func(t *testing.T, first, second string, merged bool) {
		d := &Delivery{Headers: []Header{{"x-sig", first}, {"x-sig", second}, {"x-sig-1", first}, {"x-id", "1"}, {"x-ts", "1"}}, Merged: merged, Body: [][]byte{[]byte(body)}}
		for i, s := range schemes {
			var v Verification
			got := s.Parse(&v, d)
			if s.sig.split != "," && len(s.sig.in) > 0 && got == None {
				t.Errorf("%v: a header that occurs twice is taken", s.spec.Sig)
			}
			if got == None && v.Matches(keys[i]) {
				t.Errorf("%v: matches", s.spec.Sig)
			}
			if len(v.candidates) > maxCandidates {
				t.Errorf("%d candidates", len(v.candidates))
			}
		}
	})
}

// FuzzParse gives any delivery to every preset, one after the other in the same Verification. Nothing of one may be left in the next.
func FuzzParse(f *testing.F) {
	var schemes []*Scheme
	var keys []*Key
	for _, info := range Presets() {
		s, _ := Preset(info.Name)
		if s.NeedsPublicKey() {
			continue
		}
		schemes, keys = append(schemes, s), append(keys, key(f, s, "0123456789abcdef0123456789abcdef"))
	}
	for _, x := range readVectors(f) {
		d := x.delivery(f, false)
		var lines []string
		for _, h := range d.Headers {
			lines = append(lines, h.Name+": "+h.Value)
		}
		f.Add(d.Path, d.PublicURL, strings.Join(lines, "\n"), bytes.Join(d.Body, nil), false)
	}
	f.Fuzz(func(t *testing.T, path, public, lines string, body []byte, merged bool) {
		d := &Delivery{Method: "POST", Path: path, PublicURL: public, Headers: headers(strings.Split(lines, "\n")...), Merged: merged, Body: [][]byte{body[:len(body)/2], body[len(body)/2:]}}
		before := d.clone()
		var v Verification
		for i, s := range schemes {
			got := s.Parse(&v, d)
			if v.Matches(keys[i]) {
				t.Errorf("%s: matches", s.Name())
			}
			if got != None && len(v.ends) > 0 {
				t.Errorf("%s: signatures are left after %v", s.Name(), got)
			}
			v.Fresh(time.Unix(0, 0), time.Hour)
			v.MessageID(keys[i])
			if len(v.DeliveryID())+len(v.Event()) > len(lines)+len(body)*3+len(path) {
				t.Errorf("%s: the id or the event is longer than all that was sent", s.Name())
			}
		}
		if !slices.Equal(before.Headers, d.Headers) || !bytes.Equal(bytes.Join(before.Body, nil), bytes.Join(d.Body, nil)) {
			t.Error("the delivery was changed")
		}
	})
}

// FuzzForm compares the reading of forms with what a strict reader must keep: no field is lost or made up.
func FuzzForm(f *testing.F) {
	for _, text := range []string{"a=1&b=2", "a", "=", "%", "a=%41+%2b", "&&&", "a=%zz"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		pairs, ok := appendPairs(nil, text)
		if !ok {
			return
		}
		fields := 0
		for field := range strings.SplitSeq(text, "&") {
			if field != "" {
				fields++
			}
		}
		if fields != len(pairs) {
			t.Fatalf("%d fields are read as %d", fields, len(pairs))
		}
		again, ok := appendPairs(nil, string(appendSortedQuery(nil, slices.Clone(pairs))))
		if !ok {
			t.Fatal("cannot read what it writes")
		}
		slices.SortFunc(pairs, comparePairs)
		slices.SortFunc(again, comparePairs)
		pairs = slices.DeleteFunc(pairs, func(p pair) bool { return p == pair{} }) // "=" is written as "="
		again = slices.DeleteFunc(again, func(p pair) bool { return p == pair{} })
		if !slices.Equal(pairs, again) {
			t.Fatalf("%q is read back as %q", pairs, again)
		}
	})
}
