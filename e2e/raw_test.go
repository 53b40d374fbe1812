package e2e

import (
	"bufio"
	"io"
	"net/http"
	"testing"
)

// readResponse reads one response, whatever the connection holds behind it.
func readResponse(t *testing.T, conn io.Reader) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols && resp.StatusCode != http.StatusContinue {
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
	}
	resp.Body.Close()
	return resp
}
