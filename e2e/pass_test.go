package e2e

import "testing"

// github is the delivery of GitHub's documentation, with its signature.
var github = delivery{
	path: "/webhooks/github", body: []byte("Hello, World!"),
	headers: []header{{"x-hub-signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"}},
}

func TestSmoke(t *testing.T) {
	s := setup(t)
	passes(t, s, github, "ok")
	bad := github
	bad.body = []byte("Hello, World?")
	r := send(t, s, bad)
	t.Log(r.status, logged(t, s, r.agent))
}
