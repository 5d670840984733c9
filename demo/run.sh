#!/bin/sh
# Builds everything into bin/ and shows a sandbox at work. Needs Go 1.26 only.
set -eu
cd "$(dirname "$0")/.."
command -v go >/dev/null || { echo "install Go 1.26 or newer first: https://go.dev/dl" >&2; exit 1; }
echo "building into bin/ (the first time takes a minute or two) ..."
CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o bin/ ./cmd/... ./demo
exec bin/demo
