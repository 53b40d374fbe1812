package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hookauthz/hookauthz/extauthz"
	"github.com/hookauthz/hookauthz/policy/incident"
)

const metricsHead = `# Metrics

Prometheus reads them at ` + "`/metrics`" + ` of the admin listener, or of ` + "`--metrics ADDRESS`" + `. Labels come from policy files and closed lists, never from a
request, so that no sender can make series; addresses and ids are in the log. Counters begin at zero when a server starts, and series of an
endpoint go when it leaves the policies. An empty ` + "`endpoint`" + ` is a delivery that no policy was found for.

[deploy/prometheus/rules.yaml](../deploy/prometheus/rules.yaml) has alerts over them, [deploy/grafana/dashboard.json](../deploy/grafana/dashboard.json) a dashboard to import, and
[operations.md](operations.md#alerts) what to do about each alert. What Go and the process say of themselves (` + "`go_`, `process_`" + `) is there too.

`

// A metricUse is what code does not say of a metric.
type metricUse struct {
	kind string // counter, gauge or histogram
	ask  string
}

// metricUses has every metric by name, without hookauthz_.
var metricUses = map[string]metricUse{
	"decisions_total":                              {"counter", "Is anybody denied who was allowed an hour ago; where, and why?"},
	"last_allowed_timestamp_seconds":               {"gauge", "Since when does an endpoint let nothing through? `time() - max by (endpoint) (...)`"},
	"check_duration_seconds":                       {"histogram", "How far is p99 from Envoy's timeout? Its exemplars are traces."},
	"endpoint_info":                                {"gauge", "What is still in shadow mode? Join it to others by `endpoint`."},
	"signature_verifications_total":                {"counter", "Which secret does the sender use, and does anybody guess? `result` is valid, decoy, or a reason."},
	"decoy_used_total":                             {"counter", "Has the place leaked where secrets are kept?"},
	"timestamp_age_seconds":                        {"histogram", "Is a sender's clock off, or ours, or do deliveries wait somewhere?"},
	"secret_available":                             {"gauge", "Which key cannot be read?"},
	"secret_not_after_timestamp_seconds":           {"gauge", "Which version ends soon?"},
	"secret_last_used_timestamp_seconds":           {"gauge", "Is the old version still used; may it go?"},
	"body_bytes":                                   {"histogram", "Did deliveries grow; does `maxBytes` fit?"},
	"checks_in_flight":                             {"gauge", "Does something hold checks up?"},
	"inflight_bytes":                               {"gauge", "How near is the memory for bodies to its bound?"},
	"inflight_bytes_limit":                         {"gauge", "The bound."},
	"inflight_waiting":                             {"gauge", "Do checks wait for memory?"},
	"open_calls":                                   {"gauge", "How near are open calls to their bound?"},
	"open_calls_limit":                             {"gauge", "The bound."},
	"calls_refused_total":                          {"counter", "Were calls refused that Envoy then treats by `status_on_error`?"},
	"connections_refused_total":                    {"counter", "Do more Envoys connect than there may be?"},
	"panics_total":                                 {"counter", "Is there a fault in the program?"},
	"log_suppressed_total":                         {"counter", "How large was the flood that the log only counted?"},
	"log_lost_lines_total":                         {"counter", "Is the log complete?"},
	"outcomes_total":                               {"counter", "Do outcomes come back from Envoy (`confirm: outcome`)? `none` are entries without a reservation."},
	"store_duration_seconds":                       {"histogram", "Is it the store that makes checks slow?"},
	"store_errors_total":                           {"counter", "How often does `onStoreFailure` decide?"},
	"store_keys":                                   {"gauge", "How full is the memory of this server? `journal` is what the store must still be told."},
	"store_evictions_total":                        {"counter", "Was anything forgotten before its time?"},
	"store_replicas":                               {"gauge", "By how many are limits divided while the store is away? Only with a shared store."},
	"breaker_state":                                {"gauge", "Does the store take part? Only with a shared store."},
	"policy_info":                                  {"gauge", "Do all servers decide by the same policies?"},
	"policy_reloads_total":                         {"counter", "When were policies changed?"},
	"policy_reload_success":                        {"gauge", "Are the files good that lie there now?"},
	"policy_last_reload_success_timestamp_seconds": {"gauge", "How old are the policies in force?"},
	"policy_faults":                                {"gauge", "How many faults keep the files from being taken?"},
	"policy_warnings":                              {"gauge", "Did a change bring warnings?"},
	"tls_certificate_not_after_timestamp_seconds":  {"gauge", "Which certificate ends soon?"},
	"address_list_refreshes_total":                 {"counter", "Can lists be fetched?"},
	"address_list_last_refresh_success_timestamp_seconds": {"gauge", "How old are the addresses in force?"},
	"address_list_addresses":                              {"gauge", "Did a list lose entries?"},
	"certificate_fetches_total":                           {"counter", "Can certificates be had that deliveries name?"},
	"trace_spans_total":                                   {"counter", "Do traces arrive? Only with traces."},
	"ready":                                               {"gauge", "Which server gets no deliveries?"},
	"incidents":                                           {"gauge", "Is anything paused, revoked or blocked by the people on call? On every server the same."},
	"audit_errors_total":                                  {"counter", "Can the audit file be written? Only with `--audit`."},
	"audit_lost_lines_total":                              {"counter", "How many lines are not in the audit file? A `dropped` line says so there. Only with `--audit`."},
	"admin_requests_total":                                {"counter", "Does somebody try tokens, or ask from elsewhere? `result` is ok, refused, invalid or failed."},
	"build_info":                                          {"gauge", "Which versions run?"},
}

// described is what the code says of a metric.
type described struct {
	help   string
	labels []string
}

var descPattern = regexp.MustCompile(`fqName: ("(?:[^"\\]|\\.)*"), help: ("(?:[^"\\]|\\.)*"), .*variableLabels: \{([^}]*)\}`)

// describedMetrics are the metrics that a server has, by name.
func describedMetrics() (map[string]described, error) {
	m := extauthz.NewMetrics("")
	m.Lists()
	m.Certificates()
	m.Spans()
	m.WatchStore(func() []extauthz.StoreStats { return nil })
	m.WatchReady(func() bool { return true })
	m.WatchLog(func() uint64 { return 0 })
	m.WatchIncidents(func() []incident.Incident { return nil })
	m.Admin()
	m.Audit()
	m.WatchReplicas(func() int { return 1 })
	ch := make(chan *prometheus.Desc)
	go func() {
		defer close(ch)
		m.Registry.Describe(ch)
	}()
	out := make(map[string]described)
	var failure error
	for d := range ch {
		parts := descPattern.FindStringSubmatch(d.String())
		if parts == nil {
			failure = fmt.Errorf("reading the description of a metric: %s", d)
			continue
		}
		name, err1 := strconv.Unquote(parts[1])
		help, err2 := strconv.Unquote(parts[2])
		if err1 != nil || err2 != nil {
			failure = fmt.Errorf("reading the description of a metric: %s", d)
			continue
		}
		if name, ours := strings.CutPrefix(name, "hookauthz_"); ours {
			about := described{help: help}
			if parts[3] != "" {
				about.labels = strings.Split(parts[3], ",")
			}
			out[name] = about
		}
	}
	return out, failure
}

// metricsPage is a table of the metrics.
func metricsPage() (string, error) {
	all, err := describedMetrics()
	if err != nil {
		return "", err
	}
	rows := [][]string{{"metric", "type", "labels", "meaning", "ask it"}}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		use, ok := metricUses[name]
		if !ok {
			return "", fmt.Errorf("metricUses does not say what to ask hookauthz_%s for", name)
		}
		rows = append(rows, []string{code("hookauthz_" + name), use.kind, codes(all[name].labels, ", "), text(all[name].help), prose(use.ask)})
	}
	for name := range metricUses {
		if _, ok := all[name]; !ok {
			return "", fmt.Errorf("metricUses names hookauthz_%s, which no server has", name)
		}
	}
	return metricsHead + table(rows), nil
}
