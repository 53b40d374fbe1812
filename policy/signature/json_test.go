package signature

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestScanJSON(t *testing.T) {
	text := func(s string) jsonValue { return jsonValue{text: s, state: jsonText} }
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	tests := []struct {
		name, doc string
		paths     []string
		want      []jsonValue // nil where the document is none
	}{
		{"text", `{"a":"x"}`, []string{"a", "b"}, []jsonValue{text("x"), {}}},
		{"number as written", `{"a":-1.50e+3}`, []string{"a"}, []jsonValue{text("-1.50e+3")}},
		{"words", `{"a":true,"b":false,"c":null}`, []string{"a", "b", "c"}, []jsonValue{text("true"), text("false"), {}}},
		{"below", ` { "a" : { "b" : [ 1 , { "c" : "x" } ] } } `, []string{"a.b.1.c", "a.b.0", "a.b", "a"}, []jsonValue{text("x"), text("1"), {state: jsonList, items: 2}, {state: jsonOther}}},
		{"empty containers", `{"a":{},"b":[]}`, []string{"a", "b", "a.x", "b.0"}, []jsonValue{{state: jsonOther}, {state: jsonList}, {}, {}}},
		{"top-level list", `[{"a":1}]`, []string{"0.a"}, []jsonValue{text("1")}},
		{"escapes", `{"a":"\"\\\/\b\f\n\r\té\ud83d\ude00"}`, []string{"a"}, []jsonValue{text("\"\\/\b\f\n\r\té😀")}},
		{"escaped key", `{"\u0061":1}`, []string{"a"}, []jsonValue{text("1")}},
		{"half a pair", `{"a":"\ud83d"}`, []string{"a"}, []jsonValue{{state: jsonOther}}},
		{"half a pair, then an escape", `{"a":"\ud83d\u0041"}`, []string{"a"}, []jsonValue{{state: jsonOther}}},
		{"twice", `{"a":1,"a":2}`, []string{"a"}, []jsonValue{{text: "2", state: jsonText, duplicate: true}}},
		{"twice above", `{"a":{"b":1},"a":{}}`, []string{"a.b", "c"}, []jsonValue{{text: "1", state: jsonText, duplicate: true}, {}}},
		{"twice elsewhere", `{"a":1,"b":{"c":1,"c":2},"d":1,"d":2}`, []string{"a"}, []jsonValue{text("1")}},
		{"the same key at another level", `{"a":{"a":1}}`, []string{"a.a"}, []jsonValue{text("1")}},
		{"list for an object", `{"a":["x"]}`, []string{"a.b"}, []jsonValue{{}}},
		{"deep enough", `{"b":` + deep(maxJSONDepth-1) + `,"a":1}`, []string{"a"}, []jsonValue{text("1")}},
		{"too deep", `{"b":` + deep(maxJSONDepth+1) + `,"a":1}`, []string{"a"}, nil},
		{"long text", `{"a":"` + strings.Repeat("x", maxFieldText+1) + `"}`, []string{"a"}, []jsonValue{{state: jsonOther}}},
		{"nothing", ``, []string{"a"}, nil},
		{"cut short", `{"a":1`, []string{"a"}, nil},
		{"followed by more", `{"a":1}{}`, []string{"a"}, nil},
		{"comma at the end", `{"a":1,}`, []string{"a"}, nil},
		{"single quotes", `{'a':1}`, []string{"a"}, nil},
		{"comment", `{"a":1/**/}`, []string{"a"}, nil},
		{"leading zero", `{"a":01}`, []string{"a"}, nil},
		{"plus", `{"a":+1}`, []string{"a"}, nil},
		{"bare point", `{"a":1.}`, []string{"a"}, nil},
		{"no number", `{"a":NaN}`, []string{"a"}, nil},
		{"control character", "{\"a\":\"\n\"}", []string{"a"}, nil},
		{"bad escape", `{"a":"\x"}`, []string{"a"}, nil},
		{"bad hex", `{"a":"\u00g0"}`, []string{"a"}, nil},
		{"byte order mark", "\ufeff{}", []string{"a"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var paths []jsonPath
			for _, p := range tt.paths {
				paths = append(paths, newJSONPath(p))
			}
			got := make([]jsonValue, len(paths))
			if ok := scanJSON([]byte(tt.doc), paths, got); ok != (tt.want != nil) {
				t.Fatalf("a document: %v, want %v", ok, !ok)
			} else if !ok {
				return
			}
			if diff := cmp.Diff(got, tt.want, cmp.AllowUnexported(jsonValue{})); diff != "" {
				t.Errorf("got -, want +: %s", diff)
			}
		})
	}
}

// FuzzScanJSON compares with encoding/json: what is a document, and what stands at a path where no key occurs twice.
func FuzzScanJSON(f *testing.F) {
	for _, doc := range []string{adyenBody, mailgunBody, dropboxSignBody, `{"a":{"b":"x\u00e9"}}`, `{"a":{"b":1},"a":2}`, `[]`, `{"a":{"b":"\ud800"}}`, `{"a":`} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		values := make([]jsonValue, 2)
		ok := scanJSON(doc, []jsonPath{newJSONPath("a.b"), newJSONPath("c")}, values)
		if ok && !json.Valid(doc) {
			t.Fatalf("takes what encoding/json refuses: %q", doc)
		}
		if !ok {
			if json.Valid(doc) && strings.Count(string(doc), "[")+strings.Count(string(doc), "{") <= maxJSONDepth {
				t.Fatalf("refuses what encoding/json takes: %q", doc)
			}
			return
		}
		var want map[string]any
		d := json.NewDecoder(strings.NewReader(string(doc)))
		d.UseNumber()
		if d.Decode(&want) != nil {
			return
		}
		if got := values[1]; got.state == jsonText && !got.duplicate && fmt.Sprint(want["c"]) != strings.ToValidUTF8(got.text, "\ufffd") && want["c"] != nil {
			if strings.ContainsRune(fmt.Sprint(want["c"]), '\ufffd') { // invalid bytes are replaced one by one there
				return
			}
			t.Fatalf("reads %q, want %v", got.text, want["c"])
		}
	})
}
