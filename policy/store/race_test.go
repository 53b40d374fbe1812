//go:build race

package store_test

// raceDetector is on: what is measured of the heap is the detector's as well.
const raceDetector = true
