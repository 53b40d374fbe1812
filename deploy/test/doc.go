// Package test checks the files with which hookauthz is deployed.
package test
