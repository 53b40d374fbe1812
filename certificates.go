package main

import (
	"log/slog"
	"time"

	"github.com/hookauthz/hookauthz/extauthz"
	"github.com/hookauthz/hookauthz/loglimit"
	"github.com/hookauthz/hookauthz/policy/fetch"
)

// issuerHosts are where the authorities of senders' certificates publish their own: Amazon's, and DigiCert's for PayPal.
var issuerHosts = []string{".amazontrust.com", ".digicert.com"}

// certificateLogEvery bounds the log of failed fetches: anybody can name a certificate that is not there.
const certificateLogEvery = 10 * time.Second

// newCertificates finds the certificates that deliveries name. It asks nobody unless a policy has a scheme that needs one.
func newCertificates(metrics *extauthz.CertificateMetrics, logger *slog.Logger, now func() time.Time) *fetch.Certificates {
	limit := &loglimit.Limit{Every: certificateLogEvery, Now: now}
	return fetch.NewCertificates(fetch.CertificatesConfig{
		IssuerHosts: issuerHosts,
		Now:         now,
		Report: func(host string, err error) {
			metrics.Fetched(err == nil)
			if err == nil {
				logger.Info("certificate fetched", "host", host)
				return
			}
			if held, due := limit.Due(); due {
				logger.Error("certificate not fetched: deliveries that name it get 503", "host", host, "error", err, "repeated", held)
			}
		},
	})
}
