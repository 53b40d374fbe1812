package main

import (
	"debug/buildinfo"
	"fmt"
	"math"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// report is the page that is printed and written to docs/performance.md.
func (b *bench) report(rows []*row, o onceOnly, begin time.Time) string {
	var p page
	p.text("# Performance")
	p.text("<!-- Written by `make bench`: do not edit. -->")
	p.text(`What a check costs the authorizer, beside an ext_authz server on the stock grpc-go library that allows everything and looks at nothing
(the no-op). All of it was measured in one run, in which the rows take turns: a ratio is that of two rows in the same round, so that it holds
where the machine's speed drifts. Absolute times are those of this machine.`)
	p.text("```sh\nmake bench\n```")
	p.text(b.machineText(begin))
	b.barsTable(&p, rows)
	b.checksTables(&p, rows)
	b.envoyTable(&p, rows)
	b.overloadTable(&p, rows)
	b.sizesTable(&p, rows, o.sizes)
	workTable(&p, o.work)
	p.text(strings.TrimSpace(method))
	if r := find(rows, checksTable, noopRow, small); r != nil {
		own := medianOf(r, func(s *sample) float64 { return float64(s.own.Nanoseconds()) / 1e3 })
		p.text(fmt.Sprintf("The caller itself took %.1f µs of CPU for a check of the no-op at 2 KiB.", own))
	}
	return p.String()
}

// method is how it was measured.
const method = `
## How it is measured

- **Rounds.** Each row is measured once a round, forwards in one round and backwards in the next. A figure is the median of its rounds; behind a ratio stands its 95 %
  interval, from the order of the rounds (binomial: of nine rounds the second smallest to the second largest, which covers 96 %). Latencies are
  quantiles of all calls of all rounds.
- **CPU** is user and system time of the server's process alone, from its CPU clock, in nanoseconds. The caller's part of the loopback is not in it, and the caller shares
  the machine: checks/s says what both together do on these cores, at 16 checks at once over 2 connections
  where the row says nothing else.
- **Deliveries.** Every one is new: its body, its signature and its stream differ from all others of the run, so that the replay memory records each of
  them. The caller changes the end of a body that is encoded already and computes the last block of the HMAC; the server computes all of it. The caller reads
  the code of every reply, and one that is not as it must be ends the run: a delivery that was not new would be denied.
- **Full policy**: address list, signature (GitHub's HMAC-SHA256), failed-verification budget, one rate limit, and replay memory of 30 s, so that deliveries are
  forgotten within the run as others are recorded. **Signature only** keeps no state. Every decision is logged as JSON into a pipe, as in a container; the lines are
  counted, and a missing one ends the run. Denials come as a flood, of which the log holds the first ten a second and a count.
- **Shared store**: a Valkey of the same machine, whose own CPU is not counted. Checks that wait for its answer leave the server without work: at 16 at once its
  threads go to sleep and are woken about twice as often as with the embedded store, which costs beside the call itself; at 64 there is more often another check to go on with.
- **Through Envoy**: as ` + "`hookauthz envoy render`" + ` configures it, with listeners that differ in their authorizer only, 32 senders without TLS, and an application that answers at once.
  Envoy, the authorizer, the senders and the application share the cores.
- **Overload**: the server has a third of a CPU, two processes that never rest the other two, and the caller the other CPUs: a call costs its caller about as
  much as the server, which could not be overloaded otherwise. One delivery in four is forged. Every caller waits as long as Envoy does (2.25 s) and
  then sends the next one; one that is turned away rests for the second that Retry-After says. Goodput is what was valid, and was allowed in time. Load is
  counted in open calls, not in calls a second: Envoy's circuit breaker and HTTP/2 bound how many can be open, and what is answered makes room for the next.
  10x is ten times the calls at which the peak is reached.
- **Memory** is what was resident at the most (VmHWM), in a row or since the start.`

// page is Markdown that reads well in a terminal too.
type page struct{ strings.Builder }

func (p *page) text(paragraph string) { fmt.Fprintf(p, "%s\n\n", paragraph) }

// table writes a table; columns but the first are aligned to the right.
func (p *page) table(cells [][]string) {
	widths := make([]int, len(cells[0]))
	for _, line := range cells {
		for i, c := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(c), 3)
		}
	}
	for n, line := range cells {
		for i, c := range line {
			gap := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
			if i == 0 {
				c += gap
			} else {
				c = gap + c
			}
			fmt.Fprintf(p, "| %s ", c)
		}
		p.WriteString("|\n")
		if n > 0 {
			continue
		}
		for i, w := range widths {
			rule := strings.Repeat("-", w)
			if i > 0 {
				rule = rule[1:] + ":"
			}
			fmt.Fprintf(p, "| %s ", rule)
		}
		p.WriteString("|\n")
	}
	p.WriteString("\n")
}

func (b *bench) machineText(begin time.Time) string {
	cpu, kernel := machine()
	parts := []string{
		fmt.Sprintf("%s, %d cores, %s", cpu, runtime.NumCPU(), kernel),
		b.serverText(),
		"the no-op: " + b.libraryText(),
	}
	for _, name := range []string{"envoy", "valkey"} {
		if v := b.versions[name]; v != "" {
			parts = append(parts, versionText(name, v))
		}
	}
	return fmt.Sprintf("%s to %s: %d rounds of %s for each row.\n\n- %s", begin.UTC().Format("2006-01-02 15:04"), time.Now().UTC().Format("15:04 MST"),
		b.rounds, b.period, strings.Join(parts, "\n- "))
}

func (b *bench) serverText() string {
	out, err := exec.Command(b.server, "version").Output()
	text := strings.TrimSpace(string(out))
	if err != nil {
		text = "hookauthz: " + err.Error()
	}
	if info, err := buildinfo.ReadFile(b.server); err == nil && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-pgo" && s.Value != "" }) {
		text += ", built with a profile (PGO)"
	}
	return text
}

func (b *bench) libraryText() string {
	info, err := buildinfo.ReadFile(b.self)
	if err != nil {
		return err.Error()
	}
	for _, d := range info.Deps {
		if d.Path == "google.golang.org/grpc" {
			return info.GoVersion + ", grpc-go " + d.Version
		}
	}
	return info.GoVersion
}

// versionText shortens what a program says of its version.
func versionText(name, said string) string {
	said, _, _ = strings.Cut(said, "\n")
	if name == "envoy" { // "…/envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL"
		if parts := strings.Split(said, "/"); len(parts) > 4 {
			return "Envoy " + parts[len(parts)-4]
		}
	}
	words := strings.Fields(said) // "Valkey server v=9.1.2 sha=…", or Redis
	return strings.Join(words[:min(3, len(words))], " ")
}

func (b *bench) barsTable(p *page, rows []*row) {
	p.text("## Bars")
	cells := [][]string{{"what", "wanted", "median", "95 % interval", ""}}
	for _, bar := range bars(rows) {
		e := estimated(bar.values)
		cells = append(cells, []string{bar.what, bar.wanted(), number(bar.format, e.median), interval(bar.format, e), bar.verdict()})
	}
	p.table(cells)
	p.text("A bar holds if the interval reaches it." + b.coverageText())
}

func (b *bench) coverageText() string {
	if c := estimated(make([]float64, b.rounds)).coverage; c < 0.95 {
		return fmt.Sprintf(" **With %d rounds the intervals cover %.0f %% only: these are no results.**", b.rounds, 100*c)
	}
	return ""
}

func number(format string, v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	return fmt.Sprintf(format, v)
}

func interval(format string, e estimate) string {
	if math.IsNaN(e.low) {
		return "-"
	}
	return fmt.Sprintf(format+" - "+format, e.low, e.high)
}

// medianOf is the median of a row.
func medianOf(r *row, of func(*sample) float64) float64 { return estimated(values(r, of)).median }

func (r *row) quantiles() []string {
	var all []time.Duration
	for i := range r.samples {
		all = append(all, r.samples[i].latencies...)
	}
	slices.Sort(all)
	var out []string
	for _, share := range []float64{0.5, 0.99, 0.999} {
		out = append(out, fmt.Sprintf("%.2f", float64(quantile(all, share).Microseconds())/1000))
	}
	return out
}

func (b *bench) checksTables(p *page, rows []*row) {
	for _, t := range []table{checksTable, socketTable} {
		var cells [][]string
		for _, r := range rows {
			if r.table != t {
				continue
			}
			ratio := estimated(ratios(r, find(rows, t, noopRow, r.size), cpuOf))
			cells = append(cells, slices.Concat([]string{r.name, sizeText(r.size), number("%.1f", medianOf(r, microsOf)), number("%.2f", ratio.median),
				interval("%.2f", ratio), number("%.0f", medianOf(r, rateOf))}, r.quantiles(),
				[]string{number("%.1f", medianOf(r, allocsOf)), number("%.0f", medianOf(r, peakMiBOf))}))
		}
		if len(cells) == 0 {
			continue
		}
		p.text("## Checks over " + map[table]string{checksTable: "TCP", socketTable: "a unix socket"}[t])
		p.table(slices.Concat([][]string{{"", "body", "CPU µs/check", "to no-op", "95 % interval", "checks/s", "p50 ms", "p99 ms", "p999 ms", "allocs/check", "peak MiB"}}, cells))
	}
	if r := find(rows, checksTable, storeRow, small); r != nil {
		if share := medianOf(r, func(s *sample) float64 { return s.storeless }); share > 0 {
			p.text(fmt.Sprintf("%.2f %% of the decisions at 2 KiB got no answer from the shared store.", 100*share))
		}
	}
}

func (b *bench) envoyTable(p *page, rows []*row) {
	var cells [][]string
	for _, r := range rows {
		if r.table != envoyTable {
			continue
		}
		ratio := estimated(ratios(r, find(rows, envoyTable, noopRow, r.size), rateOf))
		authz := "-"
		if r.name != bareRow {
			authz = number("%.1f", medianOf(r, func(s *sample) float64 { return float64(s.authz.Nanoseconds()) / 1e3 }))
		}
		cells = append(cells, slices.Concat([]string{r.name, sizeText(r.size), number("%.0f", medianOf(r, rateOf)), number("%.2f", ratio.median),
			interval("%.2f", ratio), number("%.1f", medianOf(r, microsOf)), authz}, r.quantiles()))
	}
	if len(cells) > 0 {
		p.text("## Deliveries through Envoy")
		p.table(slices.Concat([][]string{{"", "body", "requests/s", "to no-op", "95 % interval", "Envoy's CPU µs", "authorizer's CPU µs", "p50 ms", "p99 ms", "p999 ms"}}, cells))
	}
}

func (b *bench) overloadTable(p *page, rows []*row) {
	const t = overloadTable
	var cells [][]string
	for _, r := range rows {
		if r.table != t {
			continue
		}
		share := func(o outcome) string {
			return number("%.1f %%", 100*medianOf(r, func(s *sample) float64 {
				l := load{calls: s.calls}
				return float64(s.calls[o]) / float64(l.all())
			}))
		}
		cells = append(cells, slices.Concat([]string{r.name, fmt.Sprint(r.calls), number("%.0f", medianOf(r, rateOf)), number("%.2f", estimated(ratios(r, find(rows, t, peakRow, r.size), rateOf)).median),
			share(turnedAway), share(late), share(misjudged), number("%.0f %%", 100*medianOf(r, busyOf))}, r.quantiles(), []string{number("%.0f", medianOf(r, peakMiBOf)), "0"}))
	}
	if len(cells) > 0 {
		p.text("## Overload, 2 KiB, a third of a CPU")
		p.table(slices.Concat([][]string{{"", "open calls", "goodput/s", "to peak", "turned away", "late", "valid, denied", "its CPU", "p50 ms", "p99 ms", "p999 ms", "peak MiB", "wrongly allowed"}}, cells))
		p.text("Latencies are of what was let through. A forged delivery that is allowed ends the run. The server shares its CPU with two processes that never rest: where it uses a third of it, it was busy all the time.")
	}
}

func (b *bench) sizesTable(p *page, rows []*row, s sizes) {
	mib := func(bytes int64) string { return fmt.Sprintf("%.0f MiB", float64(bytes)/(1<<20)) }
	cells := [][]string{{"", ""}}
	if r := find(rows, reloadTable, reloadRow, 0); r != nil {
		cells = append(cells, []string{"reload of 10,000 policies in 100 files after a change of one: CPU", fmt.Sprintf("%.2f s", medianOf(r, secondsOf))},
			[]string{"the same: from the change until it is in force", fmt.Sprintf("%.2f s", medianOf(r, func(s *sample) float64 { return s.latencies[0].Seconds() }))},
			[]string{"the same: memory at the most", fmt.Sprintf("%.0f MiB", medianOf(r, peakMiBOf))})
	}
	if s.many.live > 0 {
		cells = append(cells, []string{"a new server with 1 policy: resident", mib(s.one.resident)}, []string{"with 10,000 policies: resident", mib(s.many.resident)},
			[]string{"heap of a policy", fmt.Sprintf("%.1f KiB", float64(s.many.live-s.one.live)/(many-1)/1024)},
			[]string{"heap of 1,000,000 limiter keys in the embedded store", fmt.Sprintf("%.0f MiB, %.0f bytes a key", s.keyBytes*1e6/(1<<20), s.keyBytes)})
	}
	if len(cells) > 1 {
		p.text("## Policies and state")
		p.table(cells)
	}
}
