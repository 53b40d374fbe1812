// Package browser tests the console of the admin listener in a real Chromium. It is a module of its own: what drives a browser is not to
// weigh on those who use hookauthz.
package browser
