// Package archtest holds the shape of the repository as tests: who may import
// whom, what the small programs link, how long a file may be. Each rule has a
// reason, and a failing test prints it. It has no code but tests.
package archtest
