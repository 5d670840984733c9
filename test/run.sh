#!/bin/sh
# Runs every check and every test, as whoever calls it. Needs Go 1.26 and a C
# compiler (the race detector links with it); a test that needs more says so.
#
#	sh test/run.sh            everything
#	sh test/run.sh PACKAGES   only the tests of these packages
set -eu
cd "$(dirname "$0")/.."
command -v go >/dev/null || { echo "install Go 1.26 or newer first: https://go.dev/dl" >&2; exit 1; }
command -v "${CC:-gcc}" >/dev/null || { echo "install a C compiler first: sudo apt-get install -y gcc libc6-dev" >&2; exit 1; }

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT INT TERM
chmod 755 "$tmp"
CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "$tmp/bin/" ./cmd/...
export OPENSHELL_BIN="$tmp/bin"

if [ $# -eq 0 ]; then
	echo "== formatting, vet, staticcheck, generated code"
	unformatted=$(gofmt -l $(git ls-files '*.go' | grep -v '^api/gen/'))
	[ -z "$unformatted" ] || { echo "not formatted: $unformatted" >&2; exit 1; }
	go vet ./...
	go -C tools build -o "$tmp/staticcheck" honnef.co/go/tools/cmd/staticcheck
	"$tmp/staticcheck" ./...
	(cd tools && go run ./protogen -check)
	set -- ./...
fi

echo "== tests as $(id -un 2>/dev/null || id -u)"
go build -o "$tmp/tally" ./test/tally
# One package at a time: kernel tests and servers share two cores badly.
go test -race -json -p 2 -timeout 15m "$@" >"$tmp/out" 2>"$tmp/err" || true
cat "$tmp/err"
"$tmp/tally" -skips test/skips.txt <"$tmp/out"
