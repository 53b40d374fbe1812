package signature

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const body = `{"hello":"world"}`

// mac is HMAC-SHA256 under the secret of these tests.
func mac(message string) []byte {
	h := hmac.New(sha256.New, []byte("secret"))
	h.Write([]byte(message))
	return h.Sum(nil)
}

func hexMAC(message string) string    { return hex.EncodeToString(mac(message)) }
func base64MAC(message string) string { return base64.StdEncoding.EncodeToString(mac(message)) }

func compile(t testing.TB, s Spec) *Scheme {
	t.Helper()
	scheme, faults := Compile(s)
	if len(faults) > 0 {
		t.Fatalf("compiling: %+v", faults)
	}
	return scheme
}

func key(t testing.TB, s *Scheme, secret string) *Key {
	t.Helper()
	k, err := s.NewKey([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// headers reads "name: value" lines.
func headers(lines ...string) []Header {
	var hs []Header
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		hs = append(hs, Header{name, value})
	}
	return hs
}

var (
	plainHex   = Spec{Alg: "hmac-sha256", Sign: []string{"{body}"}, Sig: SigSpec{In: []string{"header:X-Sig"}, Enc: "hex"}}
	prefixed   = Spec{Alg: "hmac-sha256", Sign: []string{"{body}"}, Sig: SigSpec{In: []string{"header:X-Sig"}, Enc: "hex", Prefix: []string{"sha256="}}, ID: "header:X-Id"}
	base64List = Spec{Alg: "hmac-sha256", Sign: []string{"{header:X-Id}.{header:X-Ts}.{body}"}, ID: "header:X-Id",
		Sig: SigSpec{In: []string{"header:X-Sig"}, Split: " ", Prefix: []string{"v1,"}, Enc: "base64"},
		TS:  TimestampSpec{In: []string{"header:X-Ts"}, Unit: "s", Tolerance: 300}}
	pairs = Spec{Alg: "hmac-sha256", Sign: []string{"{sig:t}.{body}"},
		Sig: SigSpec{In: []string{"header:X-Sig"}, Split: ",", KV: "=", Pick: "v1", Enc: "hex"},
		TS:  TimestampSpec{In: []string{"sig:t"}, Unit: "s", Tolerance: 300}}
	tokens = Spec{Alg: "token", Sig: SigSpec{In: []string{"header:X-Token"}}}
	bearer = Spec{Alg: "token", Sig: SigSpec{In: []string{"header:Authorization"}, Prefix: []string{"Bearer "}}}
	basic  = Spec{Alg: "token", Sig: SigSpec{In: []string{"header:Authorization"}, Prefix: []string{"Basic "}, Enc: "base64"}}
	jsonID = Spec{Alg: "hmac-sha256", Sign: []string{"{json:a.id}:{json?:a.opt}:{body}"}, Sig: SigSpec{In: []string{"header:X-Sig"}, Enc: "hex"}, ID: "json:a.id", Event: "json:type"}
	nonced = Spec{Alg: "hmac-sha256", Sign: []string{"{body}.{header:X-Nonce}.{header:X-Ts}"},
		Sig: SigSpec{In: []string{"header:X-Sig"}, Enc: "hex"}, TS: TimestampSpec{In: []string{"header:X-Ts"}, Unit: "ms"}}
	trailed = Spec{Alg: "hmac-sha256", Sign: []string{"{body}#{header:X-Nonce}"}, Sig: SigSpec{In: []string{"header:X-Sig"}, Enc: "hex"}}
	forms   = Spec{Alg: "hmac-sha256", Sign: []string{"{form.sorted}"}, Sig: SigSpec{In: []string{"header:X-Sig"}, Enc: "hex"}}
	formF   = Spec{Alg: "hmac-sha256", Sign: []string{"{form:payload}"}, Sig: SigSpec{In: []string{"header:X-Sig"}, Enc: "hex"}}
	urls    = Spec{Alg: "hmac-sha256", Sign: []string{"{method} {url} {url.port} {url.noport} {url.noquery} {path} {query} {query.sorted}"}, Sig: SigSpec{In: []string{"header:X-Sig"}, Enc: "hex"}}
	opts    = Spec{Alg: "hmac-sha256", Sign: []string{"{opt:id:|query:id|lower|;}{opt:r:|header:x-r||;}ts:{sig:ts};"},
		Sig: SigSpec{In: []string{"header:X-Sig"}, Split: ",", KV: "=", Pick: "v1", Enc: "hex"}}
	guarded = Spec{Alg: "hmac-sha256", Sign: []string{"{body}"}, Sig: SigSpec{In: []string{"header:X-Sig"}, Enc: "hex"},
		Require: []RequireSpec{{Header: "X-Version", Equals: "1"}}}
	checked = Spec{Alg: "hmac-sha256", Sign: []string{"{url}"}, Sig: SigSpec{In: []string{"header:X-Sig"}, Enc: "hex"},
		Check: []CheckSpec{{A: "{body|sha256hex}", B: "{query:digest}"}}}
	alternatives = Spec{Alg: "hmac-sha256", Sign: []string{"{body}"}, Sig: SigSpec{In: []string{"header:X-New", "header:X-Old"}, Enc: "hex"}}
	numbered     = Spec{Alg: "hmac-sha256", Sign: []string{"{body}"}, Sig: SigSpec{Numbered: "X-Sig-", Enc: "hex"}}
	positional   = Spec{Alg: "hmac-sha256", Sign: []string{"{sig:0}.{body}"}, Sig: SigSpec{In: []string{"header:X-Sig"}, Split: ",", DropFirst: true, Enc: "hex"},
		TS: TimestampSpec{In: []string{"sig:0"}, Unit: "ms"}}
	zoned3339 = Spec{Alg: "hmac-sha256", Sign: []string{"{header:X-Ts}.{body}"}, Sig: SigSpec{In: []string{"header:X-Sig"}, Enc: "hex"}, TS: TimestampSpec{In: []string{"header:X-Ts"}, Unit: "rfc3339"}}
	filters   = Spec{Alg: "hmac-sha256", Sign: []string{"{header:X|sha256hex} {header:X|sha256raw} {header:X|sha512b64} {header:X|lower} {body|sha256raw} {body|sha512b64} {body|lower}"}, Sig: SigSpec{In: []string{"header:X-Sig"}, Enc: "hex"}}
	sometimes = Spec{Alg: "hmac-sha256", Sign: []string{"{body}"}, Sig: SigSpec{In: []string{"header:X-Sig"}, Enc: "hex"},
		Check: []CheckSpec{{A: "{header:X-Digest}", B: "{body|sha256hex}", IfPresent: "header:X-Digest"}}}
	late = Spec{Alg: "hmac-sha256", Sign: []string{"{header:X-Ts}.{body}"}, Sig: SigSpec{In: []string{"header:X-Sig"}, Enc: "hex"},
		TS: TimestampSpec{In: []string{"header:X-Ts"}, Unit: "s", Optional: true}}
	sorted    = Spec{Alg: "hmac-sha256", Sign: []string{"{query.sorted}"}, Sig: SigSpec{In: []string{"header:X-Sig"}, Enc: "hex"}}
	oneItem   = Spec{Alg: "hmac-sha256", Sign: []string{"{json:items.0.id}"}, Sig: SigSpec{In: []string{"header:X-Sig"}, Enc: "hex"}, Only: []string{"json:items"}}
	onlyForm  = Spec{Alg: "hmac-sha256", Sign: []string{"{form:p}"}, Sig: SigSpec{In: []string{"form:s"}, Enc: "hex"}, Only: []string{"form:p", "form:s"}}
	bodySig   = Spec{Alg: "hmac-sha256", Sign: []string{"{json:s.t}{json:s.n}"}, Sig: SigSpec{In: []string{"json:s.sig"}, Enc: "hex"}, TS: TimestampSpec{In: []string{"json:s.t"}, Unit: "s"}}
	urlSafe   = Spec{Alg: "hmac-sha256", Sign: []string{"{body}"}, Sig: SigSpec{In: []string{"header:X-Sig"}, Enc: "base64url"}}
	lateStamp = Spec{Alg: "hmac-sha256", Sign: []string{"{body}"}, Sig: SigSpec{In: []string{"header:X-Sig"}, Enc: "hex"},
		TS: TimestampSpec{In: []string{"json:sent", "header:X-Ts"}, Unit: "ms", Tolerance: 60, Optional: true}}
)

func TestDecide(t *testing.T) {
	const (
		form   = "content-type: application/x-www-form-urlencoded"
		digest = "93a23971a914e5eacbf0a8d25154cda309c3c1c72fbb9914d47c60f3cb681588" // of body
	)
	now := time.Unix(1000000000, 0)
	missing, malformed, noTime, badTime := Missing.String(), Malformed.String(), TimestampMissing.String(), TimestampMalformed.String()
	good := hexMAC(body)
	sum, sum512, bodySum, bodySum512 := sha256.Sum256([]byte("Hé")), sha512.Sum512([]byte("Hé")), sha256.Sum256([]byte(body)), sha512.Sum512([]byte(body))
	base64Of := base64.StdEncoding.EncodeToString
	filteredText := hex.EncodeToString(sum[:]) + " " + string(sum[:]) + " " + base64Of(sum512[:]) + " hé " + string(bodySum[:]) + " " + base64Of(bodySum512[:]) + " " + body
	stamped := hexMAC("1000000000." + body)
	listed := "v1," + base64MAC("id.1000000000."+body)
	long := strings.Repeat("a", 5000)
	tests := []struct {
		name    string
		spec    Spec
		headers []Header
		body    string // "" for the usual one, "-" for none
		path    string
		merged  bool
		want    string
	}{
		{"hex", plainHex, headers("x-sig: " + good), "", "", false, verdictValid},
		{"upper-case hex", plainHex, headers("x-sig: " + strings.ToUpper(good)), "", "", false, verdictValid},
		{"no signature", plainHex, nil, "", "", false, missing},
		{"empty signature", plainHex, headers("x-sig: "), "", "", false, missing},
		{"one digit", plainHex, headers("x-sig: " + good[:1]), "", "", false, malformed},
		{"one byte", plainHex, headers("x-sig: " + good[:2]), "", "", false, malformed},
		{"prefix of the signature", plainHex, headers("x-sig: " + good[:62]), "", "", false, malformed},
		{"over-long signature", plainHex, headers("x-sig: " + good + "00"), "", "", false, malformed},
		{"very long signature", plainHex, headers("x-sig: " + long), "", "", false, malformed},
		{"space in the signature", plainHex, headers("x-sig:  " + good), "", "", false, malformed},
		{"wrong signature", plainHex, headers("x-sig: " + hexMAC("x")), "", "", false, verdictMismatch},
		{"not hex", plainHex, headers("x-sig: " + strings.Repeat("g", 64)), "", "", false, malformed},
		{"signature twice", plainHex, headers("x-sig: "+good, "x-sig: "+good), "", "", false, malformed},
		{"signature joined", plainHex, headers("x-sig: " + good + "," + good), "", "", true, malformed},
		{"signature joined with a space", plainHex, headers("x-sig: " + good + ", " + good), "", "", false, malformed},
		{"invalid byte in the merged form", plainHex, headers("x-sig: !" + good[1:]), "", "", true, malformed},
		{"empty body", plainHex, headers("x-sig: " + hexMAC("")), "-", "", false, verdictValid},

		{"prefix", prefixed, headers("x-sig: sha256=" + good), "", "", false, verdictValid},
		{"no prefix", prefixed, headers("x-sig: " + good), "", "", false, malformed},
		{"upper-case prefix", prefixed, headers("x-sig: SHA256=" + good), "", "", false, malformed},
		{"prefix alone", prefixed, headers("x-sig: sha256="), "", "", false, malformed},
		{"unsigned id", prefixed, headers("x-sig: sha256="+good, "x-id: 1"), "", "", false, verdictValid},
		{"unsigned id twice", prefixed, headers("x-sig: sha256="+good, "x-id: 1", "x-id: 1"), "", "", false, malformed},
		{"unsigned id joined", prefixed, headers("x-sig: sha256="+good, "x-id: 1,1"), "", "", true, malformed},
		{"comma in an id that cannot be joined", prefixed, headers("x-sig: sha256="+good, "x-id: 1,1"), "", "", false, verdictValid},
		{"invalid byte in an id", prefixed, headers("x-sig: sha256="+good, "x-id: a!"), "", "", true, malformed},
		{"exclamation mark in a raw id", prefixed, headers("x-sig: sha256="+good, "x-id: a!"), "", "", false, verdictValid},

		{"list", base64List, headers("x-sig: "+listed, "x-id: id", "x-ts: 1000000000"), "", "", false, verdictValid},
		{"list of two, the second right", base64List, headers("x-sig: v1,"+base64MAC("x")+" "+listed, "x-id: id", "x-ts: 1000000000"), "", "", false, verdictValid},
		{"list of two, the first undecodable", base64List, headers("x-sig: v1,zzz "+listed, "x-id: id", "x-ts: 1000000000"), "", "", false, verdictValid},
		{"other versions are ignored", base64List, headers("x-sig: v2,zzz v1a,zzz "+listed, "x-id: id", "x-ts: 1000000000"), "", "", false, verdictValid},
		{"only other versions", base64List, headers("x-sig: v2,"+base64MAC("id.1000000000."+body), "x-id: id", "x-ts: 1000000000"), "", "", false, malformed},
		{"spaces alone", base64List, headers("x-sig:    ", "x-id: id", "x-ts: 1000000000"), "", "", false, missing},
		{"list header twice", base64List, headers("x-sig: "+listed, "x-sig: "+listed, "x-id: id", "x-ts: 1000000000"), "", "", false, malformed},
		{"list header twice, merged", base64List, headers("x-sig: "+listed+" v1,x,"+listed, "x-id: id", "x-ts: 1000000000"), "", "", true, malformed},
		{"unpadded base64", base64List, headers("x-sig: "+strings.TrimRight(listed, "="), "x-id: id", "x-ts: 1000000000"), "", "", false, malformed},
		{"line break in base64", base64List, headers("x-sig: v1,\n"+listed[3:], "x-id: id", "x-ts: 1000000000"), "", "", false, malformed},
		{"no timestamp", base64List, headers("x-sig: "+listed, "x-id: id"), "", "", false, noTime},
		{"empty timestamp", base64List, headers("x-sig: "+listed, "x-id: id", "x-ts: "), "", "", false, noTime},
		{"timestamp twice", base64List, headers("x-sig: "+listed, "x-id: id", "x-ts: 1000000000", "x-ts: 1000000000"), "", "", false, badTime},
		{"timestamp joined", base64List, headers("x-sig: "+listed, "x-id: id", "x-ts: 1000000000,1000000000"), "", "", true, badTime},
		{"signed timestamp", base64List, headers("x-sig: "+listed, "x-id: id", "x-ts: +1000000000"), "", "", false, badTime},
		{"timestamp with a space", base64List, headers("x-sig: "+listed, "x-id: id", "x-ts:  1000000000"), "", "", false, badTime},
		{"timestamp with a fraction", base64List, headers("x-sig: "+listed, "x-id: id", "x-ts: 1000000000.0"), "", "", false, badTime},
		{"timestamp with an exponent", base64List, headers("x-sig: "+listed, "x-id: id", "x-ts: 1e9"), "", "", false, badTime},
		{"timestamp with a leading zero", base64List, headers("x-sig: "+listed, "x-id: id", "x-ts: 01000000000"), "", "", false, badTime},
		{"timestamp of 20 digits", base64List, headers("x-sig: "+listed, "x-id: id", "x-ts: 10000000000000000000"), "", "", false, badTime},
		{"timestamp in other digits", base64List, headers("x-sig: "+listed, "x-id: id", "x-ts: ١٠٠٠"), "", "", false, badTime},
		{"no id", base64List, headers("x-sig: "+listed, "x-ts: 1000000000"), "", "", false, malformed},
		{"empty id", base64List, headers("x-sig: v1,"+base64MAC(".1000000000."+body), "x-id: ", "x-ts: 1000000000"), "", "", false, malformed},
		{"id twice", base64List, headers("x-sig: "+listed, "x-id: id", "x-id: id", "x-ts: 1000000000"), "", "", false, malformed},
		{"delimiter in the id", base64List, headers("x-sig: v1,"+base64MAC("i.d.1000000000."+body), "x-id: i.d", "x-ts: 1000000000"), "", "", false, malformed},
		{"300 s old", base64List, headers("x-sig: v1,"+base64MAC("id.999999700."+body), "x-id: id", "x-ts: 999999700"), "", "", false, verdictValid},
		{"301 s old", base64List, headers("x-sig: v1,"+base64MAC("id.999999699."+body), "x-id: id", "x-ts: 999999699"), "", "", false, verdictStale},
		{"300 s ahead", base64List, headers("x-sig: v1,"+base64MAC("id.1000000300."+body), "x-id: id", "x-ts: 1000000300"), "", "", false, verdictValid},
		{"301 s ahead", base64List, headers("x-sig: v1,"+base64MAC("id.1000000301."+body), "x-id: id", "x-ts: 1000000301"), "", "", false, verdictStale},
		{"too many signatures", base64List, headers("x-sig: "+strings.Repeat("v1,"+base64MAC("x")+" ", 32)+listed, "x-id: id", "x-ts: 1000000000"), "", "", false, malformed},
		{"as many signatures as may be", base64List, headers("x-sig: "+strings.Repeat("v1,"+base64MAC("x")+" ", 31)+listed, "x-id: id", "x-ts: 1000000000"), "", "", false, verdictValid},

		{"pairs", pairs, headers("x-sig: t=1000000000,v1=" + stamped), "", "", false, verdictValid},
		{"pairs with a space", pairs, headers("x-sig: t=1000000000, v1=" + stamped + ", v0=x"), "", "", false, verdictValid},
		{"pairs in two headers", pairs, headers("x-sig: t=1000000000", "x-sig: v1="+stamped), "", "", false, verdictValid},
		{"pairs in another order", pairs, headers("x-sig: v1=" + stamped + ",t=1000000000"), "", "", false, verdictValid},
		{"two timestamps", pairs, headers("x-sig: t=1000000000,t=1000000000,v1=" + stamped), "", "", false, malformed},
		{"two timestamps, one empty", pairs, headers("x-sig: t=,t=1000000000,v1=" + stamped), "", "", false, malformed},
		{"two headers with timestamps", pairs, headers("x-sig: t=1000000000,v1="+stamped, "x-sig: t=1000000000,v1="+stamped), "", "", false, malformed},
		{"pairs without a timestamp", pairs, headers("x-sig: v1=" + stamped), "", "", false, noTime},
		{"pairs with a bad timestamp", pairs, headers("x-sig: t=x,v1=" + stamped), "", "", false, badTime},
		{"pairs without a signature", pairs, headers("x-sig: t=1000000000"), "", "", false, malformed},
		{"pairs with another version", pairs, headers("x-sig: t=1000000000,v0=" + stamped), "", "", false, malformed},
		{"upper-case key of a pair", pairs, headers("x-sig: t=1000000000,V1=" + stamped), "", "", false, malformed},
		{"not pairs", pairs, headers("x-sig: hello"), "", "", false, malformed},
		{"commas alone", pairs, headers("x-sig: ,,"), "", "", false, missing},

		{"token", tokens, headers("x-token: secret"), "", "", false, verdictValid},
		{"wrong token", tokens, headers("x-token: secreT"), "", "", false, verdictMismatch},
		{"token cut short", tokens, headers("x-token: secre"), "", "", false, verdictMismatch},
		{"empty token", tokens, headers("x-token: "), "", "", false, missing},
		{"no token", tokens, nil, "", "", false, missing},
		{"token twice", tokens, headers("x-token: secret", "x-token: secret"), "", "", false, malformed},
		{"token joined", tokens, headers("x-token: secret,secret"), "", "", true, malformed},
		{"token with an invalid byte", tokens, headers("x-token: secret!"), "", "", true, malformed},
		{"bearer", bearer, headers("authorization: Bearer secret"), "", "", false, verdictValid},
		{"bearer without a token", bearer, headers("authorization: Bearer "), "", "", false, malformed},
		{"bearer in lower case", bearer, headers("authorization: bearer secret"), "", "", false, malformed},
		{"basic", basic, headers("authorization: Basic c2VjcmV0"), "", "", false, verdictValid},
		{"basic of another user", basic, headers("authorization: Basic c2VjcmVX"), "", "", false, verdictMismatch},
		{"basic undecodable", basic, headers("authorization: Basic ?"), "", "", false, malformed},

		{"JSON", jsonID, headers("x-sig: " + hexMAC(`1:x:{"a":{"id":1,"opt":"x"}}`)), `{"a":{"id":1,"opt":"x"}}`, "", false, verdictValid},
		{"JSON without the optional part", jsonID, headers("x-sig: " + hexMAC(`1::{"a":{"id":"1"}}`)), `{"a":{"id":"1"}}`, "", false, verdictValid},
		{"JSON without the part", jsonID, headers("x-sig: " + hexMAC(`::{"a":{}}`)), `{"a":{}}`, "", false, malformed},
		{"JSON null", jsonID, headers("x-sig: " + hexMAC(`::{"a":{"id":null}}`)), `{"a":{"id":null}}`, "", false, malformed},
		{"JSON key twice", jsonID, headers("x-sig: " + hexMAC(`1::{"a":{"id":1,"id":1}}`)), `{"a":{"id":1,"id":1}}`, "", false, malformed},
		{"JSON key twice, one escaped", jsonID, headers("x-sig: " + hexMAC(`1::{"a":{"id":1,"\u0069d":1}}`)), `{"a":{"id":1,"\u0069d":1}}`, "", false, malformed},
		{"JSON key twice above", jsonID, headers("x-sig: " + hexMAC(`1::{"a":{},"a":{"id":1}}`)), `{"a":{},"a":{"id":1}}`, "", false, malformed},
		{"JSON object for a text", jsonID, headers("x-sig: " + hexMAC(`::{"a":{"id":{}}}`)), `{"a":{"id":{}}}`, "", false, malformed},
		{"JSON with a delimiter in a part", jsonID, headers("x-sig: " + hexMAC(`1:2::{"a":{"id":"1:2"}}`)), `{"a":{"id":"1:2"}}`, "", false, malformed},
		{"not JSON", jsonID, headers("x-sig: " + hexMAC(`1::{`)), `{"a":{"id":1}`, "", false, malformed},
		{"no body for JSON", jsonID, headers("x-sig: " + hexMAC(`::`)), "-", "", false, malformed},

		{"after the body", nonced, headers("x-sig: "+hexMAC(body+".n.1000000000000"), "x-nonce: n", "x-ts: 1000000000000"), "", "", false, verdictValid},
		{"delimiter after the body", nonced, headers("x-sig: "+hexMAC(body+".n.1000000000000"), "x-nonce: world.n", "x-ts: 1000000000000"), "", "", false, malformed},
		{"bytes moved out of the body", nonced, headers("x-sig: "+hexMAC("a.b.n.1000000000000"), "x-nonce: b.n", "x-ts: 1000000000000"), "a", "", false, malformed},

		{"last of all", trailed, headers("x-sig: "+hexMAC(body+"#n"), "x-nonce: n"), "", "", false, verdictValid},
		{"delimiter in the last of all", trailed, headers("x-sig: "+hexMAC("a#b#n"), "x-nonce: b#n"), "a", "", false, malformed},

		{"form", forms, headers("x-sig: "+hexMAC("a1b2b3"), form), "b=3&a=1&b=2&b=3", "", false, verdictValid},
		{"form with a parameter of its type", forms, headers("x-sig: "+hexMAC("a1"), form+"; charset=UTF-8"), "a=1", "", false, verdictValid},
		{"form escapes", forms, headers("x-sig: "+hexMAC("a b&="), form), "a+b=%26%3d", "", false, verdictValid},
		{"form with a bad escape", forms, headers("x-sig: "+hexMAC("a%"), form), "a=%", "", false, malformed},
		{"empty form", forms, headers("x-sig: "+hexMAC(""), "content-type: application/json"), "-", "", false, verdictValid},
		{"body that is no form", forms, headers("x-sig: "+hexMAC(""), "content-type: application/json"), "", "", false, malformed},
		{"body of no type", forms, headers("x-sig: " + hexMAC("")), "a=1", "", false, malformed},
		{"two content types", forms, headers("x-sig: "+hexMAC("a1"), form, form), "a=1", "", false, malformed},
		{"form field", formF, headers("x-sig: "+hexMAC("{}"), form), "payload=%7B%7D&other=1", "", false, verdictValid},
		{"form field twice", formF, headers("x-sig: "+hexMAC("{}"), form), "payload=%7B%7D&payload=%7B%7D", "", false, malformed},
		{"form field missing", formF, headers("x-sig: "+hexMAC(""), form), "other=1", "", false, malformed},

		{"all of the URL", urls, headers("x-sig: " + hexMAC("POST https://h.example/p?b=2&a=%41 https://h.example:443/p?b=2&a=%41 https://h.example/p?b=2&a=%41 https://h.example/p /q b=2&a=%41 a=A&b=2")), "", "/q?b=2&a=%41", false, verdictValid},
		{"another query", urls, headers("x-sig: " + hexMAC("POST https://h.example/p?b=2 https://h.example:443/p?b=2 https://h.example/p?b=2 https://h.example/p /q b=2 b=2")), "", "/q?b=3", false, verdictMismatch},

		{"optional segments", opts, headers("x-sig: ts=1,v1="+hexMAC("id:abc;r:x;ts:1;"), "x-r: x"), "", "/?id=ABC", false, verdictValid},
		{"optional segment left out", opts, headers("x-sig: ts=1,v1="+hexMAC("r:x;ts:1;"), "x-r: x"), "", "/", false, verdictValid},
		{"delimiter in an optional segment", opts, headers("x-sig: ts=1,v1="+hexMAC("r:x;y;ts:1;"), "x-r: x;y"), "", "/", false, malformed},
		{"optional segment twice", opts, headers("x-sig: ts=1,v1=" + hexMAC("id:a;ts:1;")), "", "/?id=a&id=a", false, malformed},

		{"guard", guarded, headers("x-sig: "+good, "x-version: 1"), "", "", false, verdictValid},
		{"guard with another value", guarded, headers("x-sig: "+good, "x-version: 2"), "", "", false, malformed},
		{"guard absent", guarded, headers("x-sig: " + good), "", "", false, malformed},
		{"guard twice", guarded, headers("x-sig: "+good, "x-version: 1", "x-version: 1"), "", "", false, malformed},

		{"check", checked, headers("x-sig: " + hexMAC("https://h.example/p?digest="+digest)), "", "/p?digest=" + digest, false, verdictValid},
		{"check fails", checked, headers("x-sig: " + hexMAC("https://h.example/p?digest="+digest)), body + " ", "/p?digest=" + digest, false, verdictMismatch},
		{"check without its text", checked, headers("x-sig: " + hexMAC("https://h.example/p")), "", "/p", false, verdictMismatch},
		{"check with two texts", checked, headers("x-sig: " + hexMAC("https://h.example/p?digest="+digest+"&digest="+digest)), "", "/p?digest=" + digest + "&digest=" + digest, false, verdictMismatch},

		{"first header", alternatives, headers("x-new: " + good), "", "", false, verdictValid},
		{"second header", alternatives, headers("x-old: " + good), "", "", false, verdictValid},
		{"the first header that is there counts", alternatives, headers("x-old: "+good, "x-new: "+hexMAC("x")), "", "", false, verdictMismatch},
		{"numbered", numbered, headers("x-sig-1: "+hexMAC("x"), "x-sig-2: "+good), "", "", false, verdictValid},
		{"numbered twice", numbered, headers("x-sig-1: "+good, "x-sig-1: "+good), "", "", false, malformed},
		{"numbered from zero", numbered, headers("x-sig-0: " + good), "", "", false, missing},
		{"numbered beyond the last", numbered, headers("x-sig-33: " + good), "", "", false, malformed},
		{"not a number", numbered, headers("x-sig-x: " + good), "", "", false, missing},

		{"positions", positional, headers("x-sig: 1000000000000," + hexMAC("x") + "," + hexMAC("1000000000000."+body)), "", "", false, verdictValid},
		{"no position to drop", positional, headers("x-sig: " + hexMAC("1000000000000."+body)), "", "", false, malformed},

		{"date with a zone", zoned3339, headers("x-sig: "+hexMAC("2001-09-09T01:46:40.5Z."+body), "x-ts: 2001-09-09T01:46:40.5Z"), "", "", false, verdictValid},
		{"date cut at its fraction", zoned3339, headers("x-sig: "+hexMAC("2001-09-09T01:46:40.5Z."+body), "x-ts: 2001-09-09T01:46:40"), "5Z." + body, "", false, badTime},

		{"filters", filters, headers("x: Hé", "x-sig: "+hexMAC(filteredText)), "", "", false, verdictValid},
		{"filter of another text", filters, headers("x: HÉ", "x-sig: "+hexMAC(filteredText)), "", "", false, verdictMismatch},
		{"check of what is there", sometimes, headers("x-sig: "+good, "x-digest: "+digest), "", "", false, verdictValid},
		{"check of what is there fails", sometimes, headers("x-sig: "+good, "x-digest: "+digest[1:]), "", "", false, verdictMismatch},
		{"check of what is there twice", sometimes, headers("x-sig: "+good, "x-digest: "+digest, "x-digest: "+digest), "", "", false, verdictMismatch},
		{"check of what is not there", sometimes, headers("x-sig: " + good), "", "", false, verdictValid},
		{"optional timestamp that is signed", late, headers("x-sig: " + hexMAC("."+body)), "", "", false, noTime},
		{"query sorted", sorted, headers("x-sig: " + hexMAC("a=1&a=0&b=+%26")), "", "/?b=%20%26&a=1&&a=0", false, verdictValid},
		{"query that cannot be read", sorted, headers("x-sig: " + hexMAC("a=%25")), "", "/?a=%", false, malformed},
		{"form with too many fields", forms, headers("x-sig: "+hexMAC(""), form), strings.Repeat("a=1&", maxPairs+1), "", false, malformed},
		{"no JSON for the guard", oneItem, headers("x-sig: " + hexMAC("7")), `{"items":[{"id":7}]`, "", false, malformed},
		{"field of the guard twice", onlyForm, headers(form), "p=1&s=" + hexMAC("1") + "&s=" + hexMAC("1"), "", false, malformed},
		{"query field that cannot be read", opts, headers("x-sig: ts=1,v1=" + hexMAC("ts:1;")), "", "/?%=1", false, malformed},

		{"one item", oneItem, headers("x-sig: " + hexMAC("7")), `{"items":[{"id":7}]}`, "", false, verdictValid},
		{"an item rides along", oneItem, headers("x-sig: " + hexMAC("7")), `{"items":[{"id":7},{"id":8}]}`, "", false, malformed},
		{"a list rides along", oneItem, headers("x-sig: " + hexMAC("7")), `{"items":[{"id":7}],"items":[{"id":8}]}`, "", false, malformed},
		{"no list", oneItem, headers("x-sig: " + hexMAC("7")), `{"items":{"0":{"id":7}}}`, "", false, malformed},
		{"form of what is signed", onlyForm, headers(form), "p=1&s=" + hexMAC("1"), "", false, verdictValid},
		{"a field rides along", onlyForm, headers(form), "p=1&q=2&s=" + hexMAC("1"), "", false, malformed},

		{"signature in the body", bodySig, nil, `{"s":{"t":"1000000000","n":"x","sig":"` + hexMAC("1000000000x") + `"}}`, "", false, verdictValid},
		{"signature missing in the body", bodySig, nil, `{"s":{"t":"1000000000","n":"x"}}`, "", false, missing},
		{"signature twice in the body", bodySig, nil, `{"s":{"t":"1000000000","n":"x","sig":"` + hexMAC("1000000000x") + `","sig":""}}`, "", false, malformed},

		{"base64url", urlSafe, headers("x-sig: " + base64.URLEncoding.EncodeToString(mac(body))), "", "", false, verdictValid},
		{"base64url without padding", urlSafe, headers("x-sig: " + base64.RawURLEncoding.EncodeToString(mac(body))), "", "", false, verdictValid},

		{"stamp in the body", lateStamp, headers("x-sig: " + hexMAC(`{"sent":1000000000000}`)), `{"sent":1000000000000}`, "", false, verdictValid},
		{"stale stamp in the body", lateStamp, headers("x-sig: "+hexMAC(`{"sent":1}`), "x-ts: 1000000000000"), `{"sent":1}`, "", false, verdictStale},
		{"stamp as a fraction", lateStamp, headers("x-sig: " + hexMAC(`{"sent":1000000000000.5}`)), `{"sent":1000000000000.5}`, "", false, badTime},
		{"two stamps in the body", lateStamp, headers("x-sig: " + hexMAC(`{"sent":1000000000000,"sent":1}`)), `{"sent":1000000000000,"sent":1}`, "", false, badTime},
		{"optional stamp left out", lateStamp, headers("x-sig: " + hexMAC(`{}`)), `{}`, "", false, verdictValid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := compile(t, tt.spec)
			d := &Delivery{Method: "POST", Path: tt.path, PublicURL: "https://h.example/p", Headers: tt.headers, Merged: tt.merged}
			switch tt.body {
			case "":
				d.Body = [][]byte{[]byte(body)}
			case "-":
			default:
				half := len(tt.body) / 2
				d.Body = [][]byte{[]byte(tt.body[:half]), nil, []byte(tt.body[half:])}
			}
			tolerance := s.Tolerance()
			if tolerance == 0 && s.HasTimestamp() {
				tolerance = 5 * time.Minute
			}
			if got := decide(s, d, []*Key{key(t, s, "secret")}, &now, tolerance); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestBase64Canonical flips the bits of the last character that mean nothing.
func TestBase64Canonical(t *testing.T) {
	s := compile(t, Spec{Alg: "hmac-sha256", Sign: []string{"{body}"}, Sig: SigSpec{In: []string{"header:X-Sig"}, Enc: "base64"}})
	k := key(t, s, "secret")
	good := base64MAC(body)
	valid := 0
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" {
		text := good[:len(good)-2] + string(c) + "="
		d := &Delivery{Headers: headers("x-sig: " + text), Body: [][]byte{[]byte(body)}}
		if decide(s, d, []*Key{k}, nil, 0) == verdictValid {
			valid++
		}
	}
	if valid != 1 {
		t.Errorf("%d spellings of one signature are valid, want 1", valid)
	}
}

func TestTold(t *testing.T) {
	s := compile(t, jsonID)
	text := `{"type":"t","a":{"id":"\u00e9"}}`
	var v Verification
	d := &Delivery{Headers: headers("x-sig: " + hexMAC("é::"+text)), Body: [][]byte{[]byte(text)}}
	if got := s.Parse(&v, d); got != None {
		t.Fatal(got)
	}
	if got, want := v.DeliveryID()+" "+v.Event(), "é t"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !s.IDSigned() || !s.EventSigned() || !s.BodySigned() {
		t.Errorf("id signed %v, event signed %v, body signed %v; want all", s.IDSigned(), s.EventSigned(), s.BodySigned())
	}
	v.Reset()
	if got := v.DeliveryID() + v.Event(); got != "" {
		t.Errorf("after Reset: %q", got)
	}
	if v.Matches(key(t, s, "secret")) {
		t.Error("matches after Reset")
	}
}

// TestFailedParseNeverMatches asks on after a failure.
func TestFailedParseNeverMatches(t *testing.T) {
	s := compile(t, base64List)
	k := key(t, s, "secret")
	var v Verification
	if v.Matches(k) || v.Fresh(time.Now(), time.Hour) || v.MessageID(k) != (MessageID{}) {
		t.Error("the zero value verifies")
	}
	d := &Delivery{Headers: headers("x-sig: v1,"+base64MAC("id.1000000000."+body), "x-id: id"), Body: [][]byte{[]byte(body)}}
	if got := s.Parse(&v, d); got != TimestampMissing {
		t.Fatalf("got %v, want %v", got, TimestampMissing)
	}
	if v.Matches(k) || v.Fresh(time.Unix(1000000000, 0), time.Hour) {
		t.Error("matches without its timestamp")
	}
}

// TestNoPublicURL is our own fault, which must not pass.
func TestNoPublicURL(t *testing.T) {
	s := compile(t, with(func(s *Spec) { s.Sign = []string{"{url}{body}"} }))
	d := &Delivery{Path: "/", Headers: headers("x-sig: " + hexMAC(body)), Body: [][]byte{[]byte(body)}}
	if got := decide(s, d, []*Key{key(t, s, "secret")}, nil, 0); got != Malformed.String() {
		t.Errorf("got %q, want %q", got, Malformed)
	}
}

func TestTimestamp(t *testing.T) {
	s := compile(t, pairs)
	var v Verification
	if _, ok := v.Timestamp(); ok {
		t.Error("the zero value has a timestamp")
	}
	d := &Delivery{Headers: headers("x-sig: t=1000000000,v1=" + hexMAC(body)), Body: [][]byte{[]byte(body)}}
	if f := s.Parse(&v, d); f != None {
		t.Fatal(f)
	}
	if got, ok := v.Timestamp(); !ok || !got.Equal(time.Unix(1000000000, 0)) {
		t.Errorf("got %v, %v", got, ok)
	}
}

// TestMemoryIsGivenBack keeps no buffer of a large body.
func TestMemoryIsGivenBack(t *testing.T) {
	s := compile(t, jsonID)
	large := []byte(`{"a":{"id":1},"b":"` + strings.Repeat("x", 2*maxKept) + `"}`)
	d := &Delivery{Headers: headers("x-sig: " + hexMAC("1::"+string(large))), Body: [][]byte{large[:10], large[10:]}}
	var v Verification
	if f := s.Parse(&v, d); f != None || !v.Matches(key(t, s, "secret")) {
		t.Fatalf("parsed with %v, or no match", f)
	}
	v.Reset()
	if kept := cap(v.joined) + cap(v.scratch) + cap(v.scratch2); kept > 3*maxKept {
		t.Errorf("%d bytes are kept", kept)
	}
}

// TestPartlyReadTokens has a right token before one that cannot be read.
func TestPartlyReadTokens(t *testing.T) {
	s := compile(t, Spec{Alg: "token", Sig: SigSpec{In: []string{"header:X-Token"}, Split: ";", Enc: "base64"}})
	k := key(t, s, "secret")
	var v Verification
	if got := s.Parse(&v, &Delivery{Headers: headers("x-token: c2VjcmV0;?")}); got != Malformed || v.Matches(k) {
		t.Errorf("parsed with %v, matches %v; want %v and no match", got, v.Matches(k), Malformed)
	}
	if got := s.Parse(&v, &Delivery{Headers: headers("x-token: c2VjcmV0;c2VjcmV1")}); got != None || !v.Matches(k) {
		t.Errorf("parsed with %v, matches %v; want a match", got, v.Matches(k))
	}
}

// TestForeignKeys gives a scheme the keys of others.
func TestForeignKeys(t *testing.T) {
	for _, spec := range []Spec{plainHex, tokens} {
		s := compile(t, spec)
		d := &Delivery{Headers: headers("x-sig: "+hexMAC(body), "x-token: secret"), Body: [][]byte{[]byte(body)}}
		for _, other := range []Spec{with(func(s *Spec) { s.Alg = "hmac-sha512" }), with(func(s *Spec) { s.Alg, s.Sign = "hash-sha256", []string{"{secret}{body}"} }), bearer, plainHex} {
			var v Verification
			if f := s.Parse(&v, d); f != None {
				t.Fatal(f)
			}
			k := key(t, compile(t, other), "secret")
			if got, want := v.Matches(k), spec.Alg == other.Alg; got != want {
				t.Errorf("%s with a key for %s: matches %v, want %v", spec.Alg, other.Alg, got, want)
			}
			v.MessageID(k)
		}
	}
}

// TestReuse decides all vectors in one Verification, twice over, as a fresh one does.
func TestReuse(t *testing.T) {
	var reused Verification
	for range 2 {
		for _, x := range readVectors(t) {
			s, ok := Preset(x.Preset)
			if !ok {
				continue
			}
			for _, merged := range []bool{false, true} {
				d := x.delivery(t, merged)
				keys := x.keys(t, s)
				var fresh Verification
				type result struct {
					failure   Failure
					matches   bool
					id, event string
					message   MessageID
				}
				try := func(v *Verification) result {
					return result{s.Parse(v, d), v.Matches(keys[0]), v.DeliveryID(), v.Event(), v.MessageID(keys[0])}
				}
				if got, want := try(&reused), try(&fresh); got != want {
					t.Errorf("%s: %+v, want %+v", x.ID, got, want)
				}
			}
		}
	}
}

// TestMessageIDs says which templates and keys make which identity.
func TestMessageIDs(t *testing.T) {
	s := compile(t, Spec{Alg: "hmac-sha256", Sign: []string{"a{body}", "b{body}"}, Sig: SigSpec{In: []string{"header:X-Sig"}, Enc: "hex"}})
	k, other := key(t, s, "secret"), key(t, s, "other")
	d := &Delivery{Headers: headers("x-sig: " + hexMAC("b"+body)), Body: [][]byte{[]byte(body)}}
	var v Verification
	if f := s.Parse(&v, d); f != None {
		t.Fatal(f)
	}
	if !v.Matches(k) || v.Matches(other) {
		t.Fatal("the wrong key matches, or the right one does not")
	}
	sum := sha256.Sum256(mac("b" + body))
	if got, want := v.MessageID(k), MessageID(sum[:16]); got != want {
		t.Errorf("identity %x, want %x", got, want)
	}
	h := hmac.New(sha256.New, []byte("other"))
	fmt.Fprint(h, "b"+body)
	sum = sha256.Sum256(h.Sum(nil))
	if got, want := v.MessageID(other), MessageID(sum[:16]); got != want {
		t.Errorf("identity under the other key %x, want %x", got, want)
	}
}

func TestHeaders(t *testing.T) {
	s, _ := Preset("twilio")
	want := []string{"content-type", "x-twilio-signature", "i-twilio-idempotency-token"}
	if diff := cmp.Diff(s.Headers(), want); diff != "" {
		t.Errorf("got, want: %s", diff)
	}
}
