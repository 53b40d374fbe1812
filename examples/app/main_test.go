package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func received(t *testing.T, url string) []delivery {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var ds []delivery
	if err := json.NewDecoder(resp.Body).Decode(&ds); err != nil {
		t.Fatal(err)
	}
	return ds
}

func TestRecorder(t *testing.T) {
	s := httptest.NewServer(new(recorder).routes())
	defer s.Close()

	if got := received(t, s.URL+"/received"); got == nil || len(got) != 0 {
		t.Errorf("before any delivery: %v, want an empty list", got)
	}
	body := []byte("\xff\x00bytes!")
	req, err := http.NewRequest(http.MethodPost, s.URL+"//webhooks/a%20b?q=1", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header["X-Twice"] = []string{"1", "2"}
	req.Header.Set("X-App-Status", "503")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got, want := resp.StatusCode, 503; got != want {
		t.Errorf("status %d, want %d", got, want)
	}
	ds := received(t, s.URL+"/received?header=x-twice&value=1,2")
	if len(ds) != 1 {
		t.Fatalf("%d deliveries, want 1", len(ds))
	}
	d := ds[0]
	if d.Method != "POST" || d.Path != "//webhooks/a%20b?q=1" || !bytes.Equal(d.Body, body) {
		t.Errorf("recorded %s %s %q", d.Method, d.Path, d.Body)
	}
	if diff := cmp.Diff([]string{"1", "2"}, d.Headers["X-Twice"]); diff != "" {
		t.Error(diff)
	}
	if got, want := d.SHA256, "d754f91cb580e43bed3c225f6951065d815f137dbfe51cbce10efa626ea5cbf1"; got != want {
		t.Errorf("sha256 %s, want %s", got, want)
	}
	if got := received(t, s.URL+"/received?header=x-twice&value=other"); len(got) != 0 {
		t.Errorf("the filter lets %d through, want 0", len(got))
	}
}

func TestRecorderKeepsTheNewest(t *testing.T) {
	var r recorder
	big := make([]byte, maxBytes/4)
	for range 6 {
		r.add(delivery{Body: big})
	}
	if got, want := len(r.kept), 4; got != want {
		t.Errorf("%d big deliveries kept, want %d", got, want)
	}
	for range maxKept {
		r.add(delivery{Path: "/new"})
	}
	if len(r.kept) != maxKept || r.kept[0].Path != "/new" || r.bytes != 0 {
		t.Errorf("%d kept of %d bytes, the first %q; want %d of 0, \"/new\"", len(r.kept), r.bytes, r.kept[0].Path, maxKept)
	}
}
