package browser

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// row is the row of a table that is headed by a text.
func row(head string) string {
	return fmt.Sprintf("[...document.querySelectorAll('tbody tr')].find((r) => r.querySelector('th')?.innerText.startsWith(%q))", head)
}

// cell is what stands in a row under a heading.
func cell(head, column string) string {
	return fmt.Sprintf("%s?.querySelector('[data-label=%q]')?.innerText", row(head), column)
}

func (p *page) visit(s *server, fragment string) {
	p.t.Helper()
	p.do(chromedp.Navigate("http://" + s.admin + "/" + fragment))
}

// click clicks the button of a row, or of a dialog, that reads so.
func (p *page) click(within, text string) {
	p.t.Helper()
	button := fmt.Sprintf("[...(%s)?.querySelectorAll('button') ?? []].find((b) => b.innerText === %q)", within, text)
	p.until(button)
	p.do(chromedp.Evaluate[chromedp.Void](button + ".click()"))
}

// fill writes into a field of the dialog.
func (p *page) fill(name, value string) {
	p.t.Helper()
	p.do(chromedp.SetValue(chromedp.CSS("dialog [name="+name+"]"), value))
}

const dialog = "document.querySelector('dialog')"

// traffic is some deliveries of each kind.
func traffic(t *testing.T, s *server) {
	t.Helper()
	for i := range 5 {
		if got := s.github(fmt.Sprintf(`{"n":%d}`, i), "x-github-event", "push"); got != "ok" {
			t.Fatalf("a right delivery is %s", got)
		}
	}
	for range 3 {
		if got := s.forged(); got != "signature_mismatch" {
			t.Fatalf("a forged delivery is %s", got)
		}
	}
	if got := s.deliver("/webhooks/stripe", "{}"); got != "paused" {
		t.Fatalf("a delivery to a paused endpoint is %s", got)
	}
	s.deliver("/<script>hacked=1</script><img src=x onerror=hacked=1>", "{}")
}

// By keyboard alone, from the plot to what failed and why.
func TestLookByKeyboard(t *testing.T) {
	s := start(t)
	traffic(t, s)
	p := open(t, 1280, 900, "light")
	p.visit(s, "")
	p.until(cell("github-ci", "denied") + " === '3'")
	if got := evaluate[string](p, cell("github-ci", "allowed")); got != "5" {
		t.Errorf("%s deliveries were allowed, want 5", got)
	}
	if got := evaluate[string](p, cell("github-ci", "most often")); got != "signature_mismatch (3)" {
		t.Errorf("most often: %q", got)
	}
	if label := evaluate[string](p, "document.querySelector('svg.plot').getAttribute('aria-label')"); label != "Deliveries: 10 in the last 60 minutes, at most 10 in 60 s" && label != "Deliveries: 10 in the last 60 minutes, at most 9 in 60 s" {
		t.Logf("the plot says %q", label) // the minute may have ended between them
	}
	for head, chip := range map[string]string{"payments": "paused", "newcomer-in-shadow": "shadow"} {
		if got := evaluate[bool](p, row(head)+".innerText.includes('"+chip+"')"); !got {
			t.Errorf("%s does not say that it is %s", head, chip)
		}
	}
	p.picture("endpoints-light")

	p.press(kb.Tab)
	if got := evaluate[string](p, "document.activeElement.innerText"); got != "Skip to the content" {
		t.Errorf("the first stop of Tab is %q", got)
	}
	p.tabTo("Denials")
	p.press(kb.Enter)
	p.untilSays("No secret version makes this signature")
	p.untilSays("/<script>hacked=1</script><img src=x onerror=hacked=1>")
	if evaluate[bool](p, "'hacked' in window") {
		t.Error("what a sender wrote ran as a script")
	}
	p.picture("denials-light")

	p.tabTo("github-ci")
	p.press(kb.Enter)
	p.untilSays("By reason, in the last hour")
	p.untilSays("2026-04")
	p.picture("endpoint-light")
	p.quiet()
}

// On a phone nothing is cut off, in the dark neither.
func TestPhone(t *testing.T) {
	s := start(t)
	traffic(t, s)
	p := open(t, 390, 844, "dark")
	for _, look := range []struct{ name, fragment, says string }{
		{"endpoints", "", "github-ci"}, {"denials", "#/denials", "signature_mismatch"}, {"endpoint", "#/endpoint/github-ci", "By reason, in the last hour"},
		{"secrets", "#/secrets", "2026-10"}, {"incidents", "#/incidents", "payments"}, {"nothing", "#/nothing", "There is no such page"},
	} {
		p.visit(s, look.fragment)
		p.untilSays(look.says)
		if wide := evaluate[int](p, "document.scrollingElement.scrollWidth"); wide > 390 {
			t.Errorf("%s is %d pixels wide on a window of 390", look.name, wide)
		}
		p.picture(look.name + "-phone-dark")
	}
	if back := evaluate[string](p, "getComputedStyle(document.documentElement).backgroundColor"); back != "rgb(16, 21, 26)" {
		t.Errorf("the background in the dark is %s", back)
	}
	p.quiet()
}

// An action asks before it acts, is in force at once, and can be undone.
func TestActions(t *testing.T) {
	s := start(t)
	traffic(t, s)
	p := open(t, 1280, 900, "light")
	p.visit(s, "#/endpoint/github-ci")
	p.click("document.querySelector('main')", "Pause…")
	p.untilSays("Pause github-ci")
	p.picture("pause-light")
	p.press(kb.Escape)
	p.until("!" + dialog)
	if got := s.github(`{"n":"before"}`); got != "ok" {
		t.Errorf("after Escape a delivery is %s", got)
	}

	p.click("document.querySelector('main')", "Pause…")
	p.click(dialog, "Pause") // nothing is filled in yet
	if evaluate[bool](p, dialog+".querySelector(':invalid') === null") {
		t.Error("an action without a reason is taken")
	}
	p.fill("why", "the application is being mended")
	p.fill("by", "alice")
	p.fill("for", "15m")
	p.click(dialog, "Pause")
	p.until("!" + dialog)
	p.untilSays("End the pause…")
	if got := s.github(`{"n":"paused"}`); got != "paused" {
		t.Errorf("a delivery to the paused endpoint is %s", got)
	}
	p.visit(s, "#/incidents")
	p.untilSays("the application is being mended")
	p.untilSays("alice")
	p.picture("incidents-light")
	p.click("[...document.querySelectorAll('tbody tr')].find((r) => r.innerText.includes('mended'))", "End…")
	p.fill("why", "mended")
	p.click(dialog, "End the pause")
	p.until("!" + dialog)
	if got := s.github(`{"n":"again"}`); got != "ok" {
		t.Errorf("after the pause a delivery is %s", got)
	}

	p.visit(s, "#/secrets")
	p.click("[...document.querySelectorAll('tbody tr')].find((r) => r.innerText.includes('github-ci') && r.innerText.includes('2026-10'))", "Revoke…")
	p.fill("why", "it stood in a log")
	p.fill("by", "alice")
	p.do(chromedp.Click(chromedp.CSS("dialog [name=sure]")))
	p.click(dialog, "Revoke")
	p.untilSays("no other version of github-ci is in force: every delivery to it is refused")
	p.picture("note-light")
	p.click(dialog, "Close")
	p.until("!" + dialog)
	if got := s.github(`{"n":"revoked"}`); got != "secret_expired" {
		t.Errorf("a delivery with the revoked secret is %s", got)
	}
	p.visit(s, "#/denials")
	p.untilSays("secret_expired")
	p.click(row(""), "Block…")
	p.fill("address", "192.0.2.0/33")
	p.fill("why", "a flood")
	p.click(dialog, "Block")
	p.until(dialog + "?.querySelector('[role=alert]:not([hidden])')?.innerText.includes('192.0.2.0/33')")
	p.fill("address", "192.0.2.7")
	p.click(dialog, "Block")
	p.until("!" + dialog)
	if got := s.github(`{"n":"blocked"}`); got != "source_denied" {
		t.Errorf("a delivery from the blocked address is %s", got)
	}
	p.quiet("400 (Bad Request)")
}

// With tokens the page asks for one, and a reader may not act.
func TestTokens(t *testing.T) {
	const operator, reader = "operator-token-of-the-browser-test", "reader-token-of-the-browser-test"
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte("operator alice "+operator+"\nread-only grafana "+reader+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, "--admin-token-file", file)
	p := open(t, 1280, 900, "light")
	p.visit(s, "")
	p.untilSays("A token is needed")
	p.picture("token-light")
	p.fill("token", "no-token-that-anybody-has-made")
	p.click(dialog, "Go on")
	p.untilSays("the token is not one of those that this server knows")
	p.fill("token", reader)
	p.click(dialog, "Go on")
	p.untilSays("github-ci")
	p.visit(s, "#/endpoint/github-ci")
	p.click("document.querySelector('main')", "Pause…")
	p.fill("why", "to see")
	p.fill("by", "mallory")
	p.click(dialog, "Pause")
	p.untilSays("it may not do this")
	p.click(dialog, "Cancel")
	if got := s.github("{}"); got != "ok" {
		t.Errorf("after a reader's pause a delivery is %s", got)
	}
	if cookies := evaluate[string](p, "document.cookie"); cookies != "" {
		t.Errorf("there are cookies: %q", cookies)
	}
	p.click("document.querySelector('footer')", "Forget the token")
	p.untilSays("A token is needed")
	p.quiet("401 (Unauthorized)", "403 (Forbidden)")
}

// Faults of the policy files and a server that is gone are told on every page.
func TestTrouble(t *testing.T) {
	s := start(t)
	p := open(t, 1280, 900, "light")
	p.visit(s, "#/denials")
	p.untilSays("None since this server started")
	s.write("github.yaml", "apiVersion: hookauthz.io/v1alpha1\nkind: WebhookPolicy\nmetadata: {name: github-ci}\nspec: {sginature: {}}\n")
	p.untilSays("The policy files have faults")
	p.untilSays(`github.yaml:4:8: webhook "github-ci": unknown key "sginature"; did you mean "signature"?`)
	p.picture("faults-light")
	p.quiet()
	s.process.Kill()
	p.untilSays("The server does not answer. What stands here may be old.")
	p.quiet("ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET")
}

// Nothing but the page's own files runs, whatever gets into it.
func TestContentSecurityPolicy(t *testing.T) {
	s := start(t)
	p := open(t, 1280, 900, "light")
	p.visit(s, "")
	p.untilSays("github-ci")
	p.do(chromedp.Evaluate[chromedp.Void](`{ const s = document.createElement("script"); try { s.text = "window.ran = 1"; document.body.append(s); } catch { } }`))
	if evaluate[bool](p, "'ran' in window") {
		t.Error("a script within the page ran")
	}
	if got := evaluate[string](p, `(() => { try { document.body.innerHTML = "<b>x</b>"; return "taken"; } catch (e) { return e.name; } })()`); got != "TypeError" {
		t.Errorf("markup from text: %s", got)
	}
	p.quiet("Content Security Policy", "TrustedScript", "TrustedHTML", "require-trusted-types-for")
}
