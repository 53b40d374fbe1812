package admin

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Error is an answer that is no success. It goes out as JSON: {"error":"code","message":"...","hint":"..."}.
type Error struct {
	Status  int    `json:"-"`
	Code    string `json:"error"`          // for machines
	Message string `json:"message"`        // what is wrong
	Hint    string `json:"hint,omitempty"` // what to do about it
}

func (e *Error) Error() string { return e.Message }

// badRequest is an Error about what was asked.
func badRequest(code, hint, format string, args ...any) *Error {
	return &Error{http.StatusBadRequest, code, fmt.Sprintf(format, args...), hint}
}

func fail(w http.ResponseWriter, e *Error) { write(w, e.Status, e) }

func write(w http.ResponseWriter, status int, v any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		status = http.StatusInternalServerError
		b.Reset()
		b.WriteString(`{"error":"internal_error","message":"the answer cannot be written"}` + "\n")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

// read is a handler that answers with a value as JSON. It takes the query parameters that are listed, each once at most.
func (a *api) read(parameters []string, get func(r *http.Request, query url.Values) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		query, err := readQuery(r.URL.RawQuery, parameters)
		if err != nil {
			a.failed(w, r, err)
			return
		}
		a.answer(w, r, func() (any, error) { return get(r, query) })
	}
}

// maxAction bounds the body of an action.
const maxAction = 64 << 10

// act is a handler that takes a JSON object of type T and answers with a value as JSON.
func act[T any](a *api, do func(r *http.Request, action T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var action T
		if err := readAction(w, r, &action); err != nil {
			a.failed(w, r, err)
			return
		}
		a.answer(w, r, func() (any, error) { return do(r, action) })
	}
}

func (a *api) answer(w http.ResponseWriter, r *http.Request, get func() (any, error)) {
	v, err := get()
	if err != nil {
		a.failed(w, r, err)
		return
	}
	write(w, http.StatusOK, v)
}

// failed answers with an Error; any other error is our own fault, which only the log tells.
func (a *api) failed(w http.ResponseWriter, r *http.Request, err error) {
	var e *Error
	if !errors.As(err, &e) {
		a.config.Logger.Error("an admin request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		e = &Error{http.StatusInternalServerError, "internal_error", "the request failed", "the log of the server says why"}
	}
	fail(w, e)
}

// readQuery reads a query strictly.
func readQuery(raw string, parameters []string) (url.Values, error) {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return nil, badRequest("query", "", "the query cannot be read: %v", err)
	}
	for name, values := range query {
		if !slices.Contains(parameters, name) {
			hint := "there are none here"
			if len(parameters) > 0 {
				hint = "there are " + strings.Join(parameters, ", ")
			}
			return nil, badRequest("query", hint, "there is no parameter %.64q", name)
		}
		if len(values) > 1 {
			return nil, badRequest("query", "give it once", "the parameter %q is there twice", name)
		}
	}
	return query, nil
}

// readAction reads the body of an action strictly: a form of another site's page cannot send this type.
func readAction(w http.ResponseWriter, r *http.Request, into any) error {
	types := r.Header.Values("Content-Type")
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" || len(types) != 1 {
		return &Error{http.StatusUnsupportedMediaType, "media_type", "an action is sent as application/json", "send Content-Type: application/json"}
	}
	if _, err := readQuery(r.URL.RawQuery, nil); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAction))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return &Error{http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the body has more than %d bytes", maxAction), ""}
		}
		return badRequest("body", "", "the body cannot be read")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return badRequest("body", "", "the body cannot be read: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return badRequest("body", "", "something follows the object in the body")
	}
	return nil
}

const (
	defaultPage = 100
	maxPage     = 1000
)

// pageParameters are those of every list.
var pageParameters = []string{"limit", "after"}

// page is the part of a list that is asked for: what follows a key, up to a number of entries.
type page struct {
	after string
	limit int
}

func readPage(query url.Values) (page, error) {
	p := page{limit: defaultPage}
	if text := query.Get("limit"); query.Has("limit") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxPage {
			return p, badRequest("limit", fmt.Sprintf("give a number from 1 to %d", maxPage), "the limit %.32q is none", text)
		}
		p.limit = n
	}
	if query.Has("after") {
		key, err := base64.RawURLEncoding.Strict().DecodeString(query.Get("after"))
		if err != nil || len(key) == 0 || len(key) > 1024 {
			return p, badRequest("after", "take what an answer holds as next", "the parameter after does not come from an answer")
		}
		p.after = string(key)
	}
	return p, nil
}

// cursor is a key as the answer's next and the query's after hold it.
func cursor(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }

// pageOf is the page of a list that is sorted by its keys, which are distinct, and where the next one begins; next is empty at the end.
func pageOf[T any](p page, all []T, key func(T) string) (part []T, next string) {
	if p.after != "" {
		first, _ := slices.BinarySearchFunc(all, p.after, func(v T, after string) int {
			if key(v) <= after {
				return -1
			}
			return 1
		})
		all = all[first:]
	}
	if len(all) <= p.limit {
		return all, ""
	}
	return all[:p.limit], cursor(key(all[p.limit-1]))
}
