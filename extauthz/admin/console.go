package admin

import (
	"embed"
	"net/http"
	"path"
)

// consoleFiles are the console: pages of plain HTML, CSS and JavaScript, which say nothing of this server until the API does.
//
//go:embed console
var consoleFiles embed.FS

// consoleTypes are the types of the console's files, whatever the machine's own table says.
var consoleTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// consolePolicy lets the console load its own files and ask its own server, and nothing else. Text never becomes markup.
const consolePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// consoleFile is the file of the console at a path, written as it is: one that leads there by ".." is another path to the mux.
func consoleFile(urlPath string) (data []byte, contentType string, found bool) {
	if urlPath == "/" {
		urlPath = "/index.html"
	}
	data, err := consoleFiles.ReadFile("console" + urlPath)
	return data, consoleTypes[path.Ext(urlPath)], err == nil
}

// console serves the console's files.
func console(w http.ResponseWriter, r *http.Request) {
	data, contentType, found := consoleFile(r.URL.Path)
	if !found {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Security-Policy", consolePolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("X-Frame-Options", "DENY")
	w.Write(data)
}
